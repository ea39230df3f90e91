"""Prices: what a question's value is divided by, or what excludes it.

Each takes values of questions to values; NaN excludes.
"""

import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from lilo_jax.curriculum.statistics import expected_lengths
from lilo_jax.types import Array, CurriculumState


def per_length(
    values: Float[Array, "questions"], state: CurriculumState, places: Int[Array, "questions"], *, power: float
) -> Float[Array, "questions"]:
    """Value per expected length^power; power 1 is value per generated token, 0 changes nothing."""
    return values / jnp.maximum(expected_lengths(state, places), 1) ** power


def per_visit(
    values: Float[Array, "questions"], state: CurriculumState, places: Int[Array, "questions"], *, scale: float
) -> Float[Array, "questions"]:
    """Value / (1 + visits / scale): what was trained on often has less left to give."""
    return values / (1 + state.visits[places] / scale)


def retired(
    values: Float[Array, "questions"],
    mean: Float[Array, "questions"],
    attempts: Num[Array, "questions"],
    *,
    threshold: float,
    least: float = 1,
) -> Float[Array, "questions"]:
    """NaN for questions whose success rate over at least `least` attempts is at or above the threshold."""
    return jnp.where((attempts >= least) & (mean >= threshold), jnp.nan, values)


def balanced(
    values: Float[Array, "questions"], groups: Int[Array, "questions"], num_groups: int
) -> Float[Array, "questions"]:
    """Values divided by the number of entries of their group, so that groups weigh alike whatever their size."""
    sizes = jnp.zeros(num_groups, jnp.float32).at[groups].add(1)
    return values / sizes[groups]
