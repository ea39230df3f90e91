"""Any questions, and the batch's rollouts spent on them where they promise most.

Each question gets between `least` and `most` rollouts, questions x samples in all, to maximise the sum of
(1 - p^n - (1 - p)^n) p(1 - p)^2 with p of its last visit.

Source: Li et al. 2025 (Knapsack RL, arXiv:2509.25849).
Deviation: a last rate of 0 or 1 is taken to be half a success away from it, so that such questions come in last but
not never, where the paper has rules of its own for them; a question that was never seen is taken to be at one half.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Int, Key

from lilo_jax.bounds import Count
from lilo_jax.curriculum.allocators import knapsack
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import latest, recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import allocated
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Knapsack:
    """Settings of the knapsack."""

    least: Count = 2
    """rollouts of every question, at least"""
    most: Count = 128
    """rollouts of a question, at most"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` and spends questions x samples rollouts on them."""
        if not 1 <= self.least <= samples <= self.most:
            raise ValueError(
                f"knapsack needs 1 <= least <= rollouts a question <= most, got {self.least}, {samples} and "
                f"{self.most}; change --curriculum.least, --curriculum.most or --rollout.samples"
            )
        believed, budget = latest(), questions * samples
        recall = recalled(believed)

        def allocate(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Int[Array, "questions"]:
            estimate = recall(state, places, key)
            mean = jnp.nan_to_num(estimate.mean, nan=0.5)
            inside = estimate._replace(mean=jnp.clip(mean, 0.5 / samples, 1 - 0.5 / samples))
            return knapsack(inside, budget=budget, least=self.least, most=self.most)

        return compose(
            source=random_pool(pool_size, questions),
            rounds=allocated(questions, self.most, allocate),
            gate=everything,
            count=questions,
            rows=budget,
            remembers={"success": believed.tracker},
            belief=recalled(believed),
        )
