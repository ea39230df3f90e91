"""Of a random pool, the questions whose groups are believed to give the most varied advantages.

    the B highest E[V_G(p)] under Beta(a, b);  a <- decay a + (1 - decay) a_0 + successes,  b likewise of failures

V_G is the variance of GRPO's advantage once the luck of a group's composition is averaged out of it; see
`values.marginal_variance`.

Source: MaPP (arXiv:2609.34990), its prompt selection.  Its advantage is `--algorithm grpo --algorithm.baseline
marginal`, which reads the counts of this rule.  Pool and counts have the settings of MoPPS (arXiv:2507.04632), which it
builds on; its own could not be read.
Deviation: GRPO's epsilon is left out of V_G.
"""

import dataclasses
import functools

from lilo_jax.bounds import Count, Positive, PositiveShare
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import decayed_counts, recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import marginal_variance


@dataclasses.dataclass(frozen=True)
class Mapp:
    """Settings of MaPP."""

    pool_ratio: Count = 16
    """candidates per question trained on"""
    decay: PositiveShare = 1.0
    """what stays of the counts with every step; 1 forgets nothing"""
    prior: Positive = 1.0
    """a_0 = b_0"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes `questions` out of pool_ratio x as many and trains on all."""
        posterior = decayed_counts(decay=self.decay, prior=self.prior)
        value = functools.partial(marginal_variance, samples=max(samples, 2))
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=of_belief(posterior, value),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": posterior.tracker},
            belief=recalled(posterior),
            least_samples=2,
        )
