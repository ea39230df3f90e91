"""Dynamic sampling: draw batches until enough groups have both right and wrong answers, and train on those.

Source: Yu et al. 2025 (DAPO, arXiv:2503.14476), equation 11 and algorithm 1; its release draws 3 x the batch at a time,
at most 10 times.
Deviation: after the last round a step trains on what it has; the release stops.  Groups beyond the batch are dropped.
"""

import dataclasses

from lilo_jax.bounds import Count
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import only_mixed
from lilo_jax.curriculum.rounds import refill
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Dapo:
    """Settings of dynamic sampling."""

    round_ratio: Count = 3
    """questions of a round per question trained on"""
    most_rounds: Count = 10
    """rounds of a step at most"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out rounds of round_ratio x `questions` until `questions` groups are mixed."""
        count = self.round_ratio * questions
        if count > pool_size:
            raise ValueError(
                f"dapo draws rounds of {self.round_ratio} x {questions} questions from a pool of {pool_size}; change "
                f"--curriculum.round-ratio"
            )
        return compose(
            source=random_pool(pool_size, count * self.most_rounds),
            rounds=refill(count, samples, gate=only_mixed, needed=questions, most=self.most_rounds),
            gate=only_mixed,
            count=questions,
            rows=questions * samples,
            least_samples=2,
        )
