"""Choosing by score: a vectorised top-k with fair ties, and uniform draws without replacement.

Every choice is a function of the scores and a key alone, so it is the same on any number of devices.
"""

import chex
import jax
import jax.numpy as jnp

from lilo_jax.types import Array


def top_k(scores: Array, key: Array, *, k: int, eligible: Array | None = None) -> tuple[Array, Array]:
    """Indices of the `k` highest scores; equal scores are ordered at random.

    NaN and ineligible entries rank below every number, so a question that was never measured cannot displace a
    measured one.  (A plain sort or `lax.top_k` ranks NaN first, and breaks ties by position: with 8 attempts p(1-p)
    takes five values only, so position would decide most choices.)

    Args:
        scores: float32 [K].
        key: consumed; breaks ties.
        k: static, at most K.
        eligible: bool [K] or None for all.

    Returns:
        indices int32 [k], distinct, best first; and bool [k], False where fewer than `k` entries were eligible
        numbers.
    """
    chex.assert_rank(scores, 1)
    usable = ~jnp.isnan(scores) if eligible is None else ~jnp.isnan(scores) & eligible
    tie_break = jax.random.uniform(key, scores.shape)
    order = jnp.lexsort((tie_break, jnp.where(usable, -scores, 0), ~usable))
    indices = order[:k].astype(jnp.int32)
    return indices, usable[indices]


def draw(key: Array, *, size: int, k: int) -> Array:
    """`k` distinct numbers of 0..size-1, uniform over ordered draws without replacement, int32 [k]; k <= size."""
    return jax.random.permutation(key, size)[:k].astype(jnp.int32)
