"""Gates: which of the groups that were rolled out are trained on.

A gate takes the collected groups to their merit: the highest are admitted, NaN never is.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from lilo_jax.curriculum.selectors import Selector, top_k
from lilo_jax.curriculum.statistics import is_mixed, learnability
from lilo_jax.types import Admission, Array, CurriculumState, GroupStatistics

Gate = Callable[[GroupStatistics], Float[Array, "groups"]]


def everything(collected: GroupStatistics) -> Float[Array, "groups"]:
    """All groups with a verdict, those opened first before the others."""
    order = -jnp.arange(collected.attempts.shape[0], dtype=jnp.float32)
    return jnp.where(collected.attempts > 0, order, jnp.nan)


def most_variance(collected: GroupStatistics) -> Float[Array, "groups"]:
    """By p(1 - p): LILO's admission, which takes groups of no variance when there are too few others."""
    return learnability(collected.successes, collected.attempts)


def only_mixed(collected: GroupStatistics) -> Float[Array, "groups"]:
    """Groups with both outcomes, in the order in which they were opened (DAPO)."""
    return jnp.where(is_mixed(collected), everything(collected), jnp.nan)


def within(low: float, high: float) -> Gate:
    """Groups whose success rate is in [low, high], in order (balanced filtering)."""

    def merit(collected: GroupStatistics) -> Float[Array, "groups"]:
        rate = collected.successes / jnp.maximum(collected.attempts, 1)
        return jnp.where((rate >= low) & (rate <= high), everything(collected), jnp.nan)

    return merit


def preferring(gate: Gate) -> Gate:
    """What the gate lets through first, then all others: the batch stays full (PRIME)."""

    def merit(collected: GroupStatistics) -> Float[Array, "groups"]:
        size = collected.attempts.shape[0]
        return everything(collected) + size * ~jnp.isnan(gate(collected))

    return merit


def largest_variance(samples: int) -> float:
    """The largest p(1 - p) of so many rollouts: 1/4, or less if they are odd in number."""
    return (samples // 2) * ((samples + 1) // 2) / samples**2


def least_variance(threshold: float, samples: int) -> Gate:
    """Groups with p(1 - p) of at least `threshold` times the largest that is possible (VCRL), in order.

    The largest that is possible is floor(G/2) ceil(G/2) / G^2.
    """
    largest = largest_variance(samples)

    def merit(collected: GroupStatistics) -> Float[Array, "groups"]:
        share = learnability(collected.successes, collected.attempts) / largest
        return jnp.where(share >= threshold, everything(collected), jnp.nan)

    return merit


def advantages_in(low: float, high: float) -> Gate:
    """Groups whose mean |reward - mean reward| of 0/1 rewards, 2p(1 - p), is in (low, high] (prime-rl's filter)."""

    def merit(collected: GroupStatistics) -> Float[Array, "groups"]:
        size = 2 * learnability(collected.successes, collected.attempts)
        return jnp.where((size > low) & (size <= high), everything(collected), jnp.nan)

    return merit


def of_round(first_round: int, gate: Gate) -> Gate:
    """The gate, for groups opened in a round from `first_round` on."""
    return lambda collected: jnp.where(collected.round >= first_round, gate(collected), jnp.nan)


def of_last_round(gate: Gate) -> Gate:
    """The gate, for groups opened in the last round that opened any."""
    return lambda collected: jnp.where(collected.round == jnp.max(collected.round), gate(collected), jnp.nan)


def of_size(rollouts: int, gate: Gate) -> Gate:
    """The gate, for groups of at least so many rollouts: those that went on after a screening (SPEED)."""
    return lambda collected: jnp.where(collected.rollouts >= rollouts, gate(collected), jnp.nan)


def either(first: Gate, second: Gate) -> Gate:
    """What passes one of two gates, in order."""

    def merit(collected: GroupStatistics) -> Float[Array, "groups"]:
        passed = ~jnp.isnan(first(collected)) | ~jnp.isnan(second(collected))
        return jnp.where(passed, everything(collected), jnp.nan)

    return merit


def admit(
    state: CurriculumState,
    collected: GroupStatistics,
    key: Key[jax.Array, ""],
    *,
    gate: Gate,
    count: int,
    keep: Selector = top_k,
) -> Admission:
    """`count` groups by merit, as `keep` selects them: the highest, ties at random; fewer, masked, if the gate lets
    fewer through.
    """
    del state
    return Admission(*keep(gate(collected), key, k=count))


def admission(
    gate: Gate, count: int, keep: Selector = top_k
) -> Callable[[CurriculumState, GroupStatistics, Key[jax.Array, ""]], Admission]:
    """A curriculum's `admit`."""
    return functools.partial(admit, gate=gate, count=count, keep=keep)
