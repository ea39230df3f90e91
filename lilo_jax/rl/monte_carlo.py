"""Which states are measured by more rollouts, and by how many."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lilo_jax.models.scoring import live_tokens
from lilo_jax.types import Array, FollowUps, TrainBatch

FollowUpBudget = Callable[[FollowUps], Int[Array, "rows completion"]]
"""(what was found) -> more rollouts wanted from each state."""

NORMAL_QUANTILE = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def step_starts(batch: TrainBatch) -> Bool[Array, "rows completion"]:
    """The live tokens with which a reasoning step begins."""
    step = batch.reasoning_step
    begins = jnp.concatenate([jnp.ones_like(step[:, :1], bool), step[:, 1:] != step[:, :-1]], axis=1)
    return begins & live_tokens(batch)


def fixed_budget(found: FollowUps, *, rollouts: int) -> Int[Array, "rows completion"]:
    """K = `rollouts` from every state, at once."""
    return jnp.where(found.asked == 0, rollouts, 0)


def until_certain(found: FollowUps, *, first: int, most: int, width: float) -> Int[Array, "rows completion"]:
    """`first` rollouts, then as many again until the 95% interval of the success rate is at most `width` wide.

    A state never gets more than `most`.  Rollouts whose grader failed count as asked, not as attempts.

    It saves rollouts for some bias: who stops when the first rollouts agree believes them.  At 3 of 9 and a width of
    0.6 a value can be off by 0.07 towards 0 or 1, and the gradient is that of slightly wrong values.

    Args:
        found: so far.
        first: rollouts at a time, at least 1.
        most: K.
        width: in (0, 1).
    """
    uncertain = wilson_width(found.reward_sum, found.attempts) > width
    more = jnp.minimum(first, most - found.asked)
    return jnp.where((found.asked == 0) | uncertain, more, 0)


def wilson_width(
    successes: Float[Array, "*states"], attempts: Float[Array, "*states"], *, quantile: float = NORMAL_QUANTILE
) -> Float[Array, "*states"]:
    """Width of the Wilson score interval of a success rate; 1 without an attempt.

        2 z / (1 + z^2/n) sqrt(p (1 - p) / n + z^2 / (4 n^2))

    Source: Wilson 1927.  Rewards outside of [0, 1], which shaping can make, are counted as 0 or 1.

    Args:
        successes: sum of rewards.
        attempts: n.
        quantile: z.
    """
    n = jnp.maximum(attempts, 1)
    rate = jnp.clip(successes / n, 0, 1)
    half = quantile / (1 + quantile**2 / n) * jnp.sqrt(rate * (1 - rate) / n + quantile**2 / (4 * n**2))
    return jnp.where(attempts > 0, 2 * half, 1)
