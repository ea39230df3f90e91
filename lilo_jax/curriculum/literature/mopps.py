"""Of a random pool, the questions whose success rate, drawn from what is believed of it, is nearest to one half.

    gamma_i ~ Beta(a_i, b_i);  the B smallest (gamma_i - target)^2;  a_i <- decay a_i + (1 - decay) a_0 + successes

Source: Qu et al. 2025 (MoPPS, arXiv:2507.04632); its release draws pools of 16 B and does not forget.
"""

import dataclasses
import functools

from lilo_jax.bounds import Count, Positive, PositiveShare, Share
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import decayed_counts, recalled, thompson
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import nearness


@dataclasses.dataclass(frozen=True)
class Mopps:
    """Settings of MoPPS."""

    pool_ratio: Count = 16
    """candidates per question trained on"""
    target: Share = 0.5
    """success rate that is sought"""
    decay: PositiveShare = 1.0
    """lambda: what stays of the counts with every step; 1 forgets nothing"""
    prior: Positive = 1.0
    """a_0 = b_0"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` out of pool_ratio x as many and trains on all."""
        posterior = decayed_counts(decay=self.decay, prior=self.prior)
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=of_belief(thompson(posterior), functools.partial(nearness, target=self.target)),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": posterior.tracker},
            belief=recalled(posterior),
        )
