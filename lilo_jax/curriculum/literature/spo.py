"""Questions in proportion to the standard deviation of their outcome, and a little for every one.

    w_i = sqrt(p_i (1 - p_i)) + floor,   p_i the mean of Beta counts that fade

Source: Xu and Ding 2025 (SPO, arXiv:2509.13232).  SPO rolls a question out once, and takes p_i off its reward: with
this rule that is `--rollout.samples 1 --algorithm reinforce --algorithm.baseline belief --algorithm.whitening batch`.
Deviation: its counts fade at a visit, by how far the policy has moved (to between 0.875 and 0.96), here by a constant
per step; they start from rollouts of the first policy, here from Beta(1, 1).
"""

import dataclasses

from lilo_jax.bounds import NotNegative, PositiveShare
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import decayed_counts, recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import gumbel_top_k
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.curriculum.values import deviation


@dataclasses.dataclass(frozen=True)
class Spo:
    """Settings of SPO."""

    floor: NotNegative = 0.05
    """weight of a question without variance"""
    decay: PositiveShare = 0.96
    """what stays of the counts with every step"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` in proportion to their weights and trains on all."""
        posterior = decayed_counts(decay=self.decay)
        return compose(
            source=whole_pool(pool_size),
            worth=of_belief(posterior, lambda estimate: deviation(estimate) + self.floor),
            select=gumbel_top_k,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": posterior.tracker},
            belief=recalled(posterior),
        )
