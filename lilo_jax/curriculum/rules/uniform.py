"""Uniform sampling: the baseline.  Fresh distinct questions every step, all of them trained on."""

import dataclasses

from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Settings of uniform sampling: none."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` distinct questions a step and trains on all."""
        return compose(
            source=random_pool(pool_size, questions),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
        )
