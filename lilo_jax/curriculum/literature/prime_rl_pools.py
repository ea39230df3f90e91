"""Questions by the pool that their last success rate puts them in: hard, normal, easy, or never seen.

Source: prime-rl (PrimeIntellect), its difficulty pools and their defaults: thresholds are the largest rate of a pool.
"""

import dataclasses

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import latest
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import gumbel_top_k
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.curriculum.values import pools


@dataclasses.dataclass(frozen=True)
class PrimeRlPools:
    """Settings of the pools."""

    hard: Share = 0.25
    """largest success rate of the hard pool"""
    normal: Share = 0.75
    """largest success rate of the normal pool; what is above is easy"""
    hard_weight: NotNegative = 0.2
    """weight of a question of the hard pool"""
    normal_weight: NotNegative = 1.0
    """weight of a question of the normal pool"""
    easy_weight: NotNegative = 0.2
    """weight of a question of the easy pool"""
    unseen_weight: NotNegative = 1.0
    """weight of a question that was never seen"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` in proportion to the weights of their pools and trains on all."""
        weights = (self.hard_weight, self.normal_weight, self.easy_weight)
        if self.hard >= self.normal:
            raise ValueError(
                f"prime_rl_pools needs --curriculum.hard below --curriculum.normal, got {self.hard} and {self.normal}"
            )
        believed = latest()
        return compose(
            source=whole_pool(pool_size),
            worth=of_belief(
                believed,
                lambda estimate: pools(estimate, (self.hard, self.normal, 1.0), weights, self.unseen_weight),
            ),
            select=gumbel_top_k,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": believed.tracker},
        )
