"""Balanced online difficulty filtering: a symmetric band of success rates, refilled to a fixed batch.

Source: Bae et al. 2025 (arXiv:2504.03380): groups outside of the band are dropped and replaced at once.
Deviation: replacing happens in rounds of a batch, at most `most_rounds`; the paper replaces asynchronously.
"""

import dataclasses

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import within
from lilo_jax.curriculum.rounds import refill
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Balanced:
    """Settings of balanced filtering."""

    low: Share = 0.2
    """least success rate that is trained on"""
    high: Share = 0.8
    """largest success rate that is trained on"""
    most_rounds: Count = 10
    """rounds of a step at most"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out rounds of `questions` until as many groups are within the band."""
        if self.low > self.high or questions > pool_size:
            raise ValueError(
                f"balanced keeps success rates in [{self.low}, {self.high}] over rounds of {questions} questions "
                f"out of {pool_size}; change --curriculum.low, --curriculum.high or --rollout.questions"
            )
        gate = within(self.low, self.high)
        return compose(
            source=random_pool(pool_size, questions * self.most_rounds),
            rounds=refill(questions, samples, gate=gate, needed=questions, most=self.most_rounds),
            gate=gate,
            count=questions,
            rows=questions * samples,
            least_samples=2,
        )
