"""Prices: what a question's value is divided by, or what excludes it.

Each takes values float32 [J] of questions to float32 [J]; NaN excludes.
"""

import jax.numpy as jnp

from lilo_jax.curriculum.statistics import expected_lengths
from lilo_jax.types import Array, CurriculumState


def per_length(values: Array, state: CurriculumState, ids: Array, *, power: float) -> Array:
    """Value per expected length^power; power 1 is value per generated token, 0 changes nothing."""
    return values / jnp.maximum(expected_lengths(state, ids), 1) ** power


def per_visit(values: Array, state: CurriculumState, ids: Array, *, scale: float) -> Array:
    """Value / (1 + visits / scale): what was trained on often has less left to give."""
    return values / (1 + state.visits[ids] / scale)


def retired(values: Array, mean: Array, attempts: Array, *, threshold: float, least: float = 1) -> Array:
    """NaN for questions whose success rate over at least `least` attempts is at or above the threshold."""
    return jnp.where((attempts >= least) & (mean >= threshold), jnp.nan, values)


def balanced(values: Array, groups: Array, num_groups: int) -> Array:
    """Values divided by the number of entries of their group, so that groups weigh alike whatever their size."""
    sizes = jnp.zeros(num_groups, jnp.float32).at[groups].add(1)
    return values / sizes[groups]
