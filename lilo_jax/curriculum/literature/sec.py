"""A bandit over categories: each is worth the advantages that it gave of late.

    Q_c <- (1 - rate) Q_c + rate mean |A|;   a category for each place by softmax(Q / temperature), then any question

Source: Chen et al. 2025 (SEC, arXiv:2505.14970).
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jaxtyping import Int, Key

from lilo_jax.bounds import Positive, PositiveShare
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import category_average
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import Classes, per_class
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Sec:
    """Settings of SEC."""

    rate: PositiveShare = 0.5
    """alpha: of the moving average"""
    temperature: Positive = 1.0
    """tau: of the softmax"""
    categories: Annotated[int, Ge(2)] = 64
    """most categories that the data set may have"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws a category for each of `questions` places, then a question of it."""

        def classes(state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]) -> Classes:
            return Classes(
                jnp.zeros(places.shape), state.facts.category[places], state.memory["values"] / self.temperature
            )

        return compose(
            source=whole_pool(pool_size),
            worth=classes,
            select=per_class(),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"values": category_average(self.categories, self.rate)},
            wants=Wants(categories=self.categories),
        )
