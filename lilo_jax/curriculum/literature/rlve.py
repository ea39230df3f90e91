"""A generator's level rises, category by category, when the policy has mastered the highest one that it is asked.

Each place draws a category, a level among the `window` up to the category's highest, and a question, all uniformly.

Source: Zeng et al. 2025 (RLVE, arXiv:2511.07317): a window of 4 levels, a rise at 90% over 8 prompts.
Deviation: questions are those of a pool in which every category has all its levels without a gap, not made on demand; a
level is drawn among those that the pool has.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Int, Key

from lilo_jax.bounds import Count, PositiveShare
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import heights, window_below
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import Classes, per_class
from lilo_jax.curriculum.sources import at_levels, whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Rlve:
    """Settings of RLVE."""

    window: Count = 4
    """levels that are asked at the same time"""
    threshold: PositiveShare = 0.9
    """success rate at the highest level that raises it"""
    least: Count = 8
    """groups at the highest level that it is judged by"""
    categories: Count = 64
    """most categories that the data set may have"""
    levels: Count = 64
    """most levels that the data set may have, counted from 0"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws a category and a level for each of `questions` places, then a question of them."""
        allowed = window_below(self.categories, self.levels, self.window, "heights")

        def classes(state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]) -> Classes:
            category, level = state.facts.category[places], state.facts.level[places]
            held = jnp.zeros((self.categories, self.levels), bool).at[category, level].set(True)
            # A category's levels share its probability, so that categories are alike however many of theirs are open.
            logits = -jnp.log(jnp.maximum(jnp.sum(allowed(state) & held, axis=1), 1))
            return Classes(jnp.zeros(places.shape), category * self.levels + level, jnp.repeat(logits, self.levels))

        return compose(
            source=at_levels(whole_pool(pool_size), allowed),
            worth=classes,
            select=per_class(),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"heights": heights(self.categories, threshold=self.threshold, least=self.least)},
            wants=Wants(categories=self.categories, levels=self.levels),
        )
