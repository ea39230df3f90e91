"""A bandit over categories with a bonus for those that were asked little.

    u_c = mean |A| over a window + sqrt(2 ln(N + 1) / (n_c + 1));   a category for a place by softmax(u / temperature)

Source: Wang et al. 2025 (DUMP, arXiv:2504.09710); window and temperature of its release.
Deviation: the window is counted in groups, `window` rollouts' worth of them; n_c counts rollouts trained on.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jaxtyping import Int, Key

from lilo_jax.bounds import Count, Positive
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import category_window, upper_bounds
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import Classes, per_class
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Dump:
    """Settings of DUMP."""

    window: Count = 300
    """rollouts of a category that its mean is taken over"""
    temperature: Positive = 0.1
    """of the softmax"""
    categories: Annotated[int, Ge(2)] = 64
    """most categories that the data set may have"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws a category for each of `questions` places, then a question of it."""
        if self.window < samples:
            raise ValueError(f"dump needs --curriculum.window of at least {samples} rollouts, got {self.window}")

        def classes(state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]) -> Classes:
            bounds = upper_bounds(state.memory["arrivals"], samples)
            return Classes(jnp.zeros(places.shape), state.facts.category[places], bounds / self.temperature)

        return compose(
            source=whole_pool(pool_size),
            worth=classes,
            select=per_class(),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"arrivals": category_window(self.categories, self.window // samples)},
            wants=Wants(categories=self.categories),
        )
