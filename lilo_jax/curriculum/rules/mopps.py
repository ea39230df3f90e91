"""Of a random pool, the questions whose success rate, drawn from what is believed of it, is nearest to one half.

    gamma_i ~ Beta(a_i, b_i);  the B smallest (gamma_i - target)^2;  a_i <- decay a_i + (1 - decay) a_0 + successes

Source: Qu et al. 2025 (MoPPS, arXiv:2507.04632); its release draws pools of 16 B and does not forget.
"""

import dataclasses
import functools

from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.estimators import decayed_counts, thompson
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import nearness, success
from lilo_jax.types import Curriculum


@dataclasses.dataclass(frozen=True)
class Mopps:
    """Settings of MoPPS."""

    pool_ratio: int = 16
    """candidates per question trained on"""
    target: float = 0.5
    """success rate that is sought"""
    decay: float = 1.0
    """lambda: what stays of the counts with every step; 1 forgets nothing"""
    prior: float = 1.0
    """a_0 = b_0"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` out of pool_ratio x as many and trains on all."""
        if self.pool_ratio < 1 or not 0 <= self.target <= 1 or not 0 < self.decay <= 1 or self.prior <= 0:
            raise ValueError(
                f"mopps needs --curriculum.pool-ratio of at least 1, --curriculum.target in [0, 1], --curriculum.decay "
                f"in (0, 1] and --curriculum.prior above 0, got {self.pool_ratio}, {self.target}, {self.decay} and "
                f"{self.prior}"
            )
        posterior = decayed_counts(decay=self.decay, prior=self.prior)
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            score=of_belief(thompson(posterior), functools.partial(nearness, target=self.target)),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": posterior.tracker},
            belief=of_belief(posterior, success),
        )
