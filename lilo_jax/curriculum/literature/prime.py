"""Online filtering with oversampling: of four times the batch prefer groups of middling success, fill up with others.

Source: Cui et al. 2025 (PRIME, arXiv:2502.01456); settings of its recipe in verl.
Deviation: the recipe also prefers groups whose answers were not cut off, which group statistics do not tell.
"""

import dataclasses

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import preferring, within
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Prime:
    """Settings of PRIME's filter."""

    oversample: Count = 4
    """questions rolled out per question trained on"""
    low: Share = 0.2
    """least success rate that is preferred"""
    high: Share = 0.8
    """largest success rate that is preferred"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out oversample x `questions` and admits `questions`, those within the band first."""
        count = self.oversample * questions
        if count > pool_size or self.low > self.high:
            raise ValueError(
                f"prime rolls out {self.oversample} x {questions} questions of a pool of {pool_size} and prefers "
                f"success rates in "
                f"[{self.low}, {self.high}]; change --curriculum.oversample, --curriculum.low or --curriculum.high"
            )
        return compose(
            source=random_pool(pool_size, count),
            rounds=once(count, samples),
            gate=preferring(within(self.low, self.high)),
            count=questions,
            rows=questions * samples,
        )
