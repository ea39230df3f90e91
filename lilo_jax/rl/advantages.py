"""Advantage estimators over ragged token batches.

Tokens are [B, C] with a mask; a row's live tokens are the first of its C.  Padding receives exactly zero.
"""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lilo_jax.types import Array

Whiten = Callable[[Float[Array, "rows completion"], Bool[Array, "rows completion"]], Float[Array, "rows completion"]]
"""(advantages, mask) -> advantages."""


def terminal_rewards(
    reward: Float[Array, "rows"], mask: Bool[Array, "rows completion"]
) -> Float[Array, "rows completion"]:
    """The row's reward at its last live token, zero elsewhere."""
    is_last = mask & ~jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    return jnp.where(is_last, reward[:, None], 0.0)


def generalized_advantages(
    rewards: Float[Array, "rows completion"],
    values: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
    *,
    discount: float,
    trace: float,
) -> tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]:
    """Generalised advantage estimates and the returns they imply.

        delta_t = r_t + gamma V_{t+1} - V_t          V is 0 after the last token
        A_t     = delta_t + gamma lambda A_{t+1}
        R_t     = A_t + V_t

    Source: Schulman et al. 2016 (GAE), eq. 11-16.  With lambda = 1, A_t = (discounted return) - V_t.

    Args:
        rewards: r_t.
        values: V_t, value of the state in which token t is chosen.
        mask: live tokens.
        discount: gamma in [0, 1].
        trace: lambda in [0, 1].

    Returns:
        Advantages and returns, zero in the padding.
    """
    chex.assert_equal_shape([rewards, values, mask])
    rewards, values = jnp.where(mask, rewards, 0), jnp.where(mask, values, 0)
    next_values = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    deltas = rewards + discount * next_values - values

    def step(
        following: Float[jax.Array, "rows"], delta: Float[jax.Array, "rows"]
    ) -> tuple[Float[jax.Array, "rows"], Float[jax.Array, "rows"]]:
        advantage = delta + discount * trace * following
        return advantage, advantage

    _, columns = jax.lax.scan(step, jnp.zeros(rewards.shape[0]), deltas.T, reverse=True)
    advantages = jnp.where(mask, columns.T, 0)
    return advantages, jnp.where(mask, advantages + values, 0)


def whiten_blocks(
    advantages: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
    *,
    block: int,
    epsilon: float = 1e-8,
) -> Float[Array, "rows completion"]:
    """Advantages with mean 0 and variance 1 over the tokens of each block of `block` consecutive rows.

        (A - mean) / sqrt(var + epsilon), var with the unbiased estimator (divisor n - 1)

    Blocks are semantic (16 sequences in Kazemnejad et al. 2024, VinePPO, whose released code has this estimator),
    never a device's micro-batch, so that micro-batching changes nothing.  A block without tokens, of one token, or of
    equal advantages becomes exactly zero.

    Args:
        advantages: of tokens.
        mask: live tokens.
        block: rows per block; divides B.
        epsilon: guards a block of equal advantages.
    """
    chex.assert_equal_shape([advantages, mask])
    chex.assert_is_divisible(advantages.shape[0], block)
    shape = (advantages.shape[0] // block, block * advantages.shape[1])
    centred, count = _centred(advantages.reshape(shape), mask.reshape(shape))
    variance = (centred**2).sum(axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
    return (centred * jax.lax.rsqrt(variance + epsilon)).reshape(advantages.shape)


def whiten_batch(
    advantages: Float[Array, "rows completion"], mask: Bool[Array, "rows completion"], *, epsilon: float = 1e-8
) -> Float[Array, "rows completion"]:
    """Advantages with mean 0 and variance 1 over all tokens of the batch: `whiten_blocks` with one block."""
    return whiten_blocks(advantages, mask, block=len(advantages), epsilon=epsilon)


def whitening(kind: str, *, rows: int) -> Whiten:
    """How advantages are whitened: "blocks" of `rows` rows, the "batch", or "none", which leaves them."""
    kinds: dict[str, Whiten] = {
        "blocks": functools.partial(whiten_blocks, block=rows),
        "batch": whiten_batch,
        "none": left_as_they_are,
    }
    return kinds[kind]


def left_as_they_are(
    advantages: Float[Array, "rows completion"], mask: Bool[Array, "rows completion"]
) -> Float[Array, "rows completion"]:
    """The advantages."""
    del mask
    return advantages


def _centred(
    values: Float[Array, "blocks tokens"], live: Bool[Array, "blocks tokens"]
) -> tuple[Float[Array, "blocks tokens"], Float[Array, "blocks 1"]]:
    """Live values less the mean of their row, zero elsewhere, and how many they are.

    With the lowest subtracted first, equal values are exactly equal to their mean: no rounding error is scaled up.
    """
    lowest = jnp.min(values, axis=1, keepdims=True, initial=jnp.inf, where=live)
    values, weights = jnp.where(live, values - lowest, 0), live.astype(jnp.float32)
    count = weights.sum(axis=1, keepdims=True)
    mean = values.sum(axis=1, keepdims=True) / jnp.maximum(count, 1)
    return (values - mean) * weights, count


def group_means(
    values: Float[Array, "rows"], group: Int[Array, "rows"], row_mask: Bool[Array, "rows"], *, num_groups: int
) -> tuple[Float[Array, "rows"], Float[Array, "rows"]]:
    """Mean of the live rows of each group, and their number, read back at every row; `num_groups` is static."""
    chex.assert_equal_shape([values, group, row_mask])
    live = row_mask.astype(jnp.float32)
    total = jax.ops.segment_sum(jnp.where(row_mask, values, 0), group, num_segments=num_groups)
    count = jax.ops.segment_sum(live, group, num_segments=num_groups)
    return (total / jnp.maximum(count, 1))[group], count[group]


def _centred_in_group(
    reward: Float[Array, "rows"], group: Int[Array, "rows"], row_mask: Bool[Array, "rows"], *, num_groups: int
) -> tuple[Float[Array, "rows"], Float[Array, "rows"]]:
    """Rewards less the mean of their group's live rows, zero in masked rows, and how many those are.

    With the lowest subtracted first, those of a group of equals become exactly zero instead of a rounding error.
    """
    lowest = jax.ops.segment_min(jnp.where(row_mask, reward, jnp.inf), group, num_segments=num_groups)
    reward = jnp.where(row_mask, reward - lowest[group], 0)
    mean, size = group_means(reward, group, row_mask, num_groups=num_groups)
    return jnp.where(row_mask, reward - mean, 0), size


def leave_one_out(
    reward: Float[Array, "rows"], group: Int[Array, "rows"], row_mask: Bool[Array, "rows"], *, num_groups: int
) -> Float[Array, "rows"]:
    """Reward minus the mean reward of the *other* rows of its group.

        A_i = r_i - (1 / (G - 1)) sum_{j != i} r_j = G / (G - 1) (r_i - mean r)

    Source: Ahmadian et al. 2024 (RLOO), eq. 4.  A row alone in its group, and a masked row, gets zero.

    Args:
        reward: of each row.
        group: of each row; groups may be of any size.
        row_mask: live rows.
        num_groups: static.
    """
    centred, size = _centred_in_group(reward, group, row_mask, num_groups=num_groups)
    return jnp.where(size > 1, size / jnp.maximum(size - 1, 1) * centred, 0)


def group_normalized(
    reward: Float[Array, "rows"],
    group: Int[Array, "rows"],
    row_mask: Bool[Array, "rows"],
    *,
    num_groups: int,
    epsilon: float,
) -> Float[Array, "rows"]:
    """Reward standardised within its group.

        A_i = (r_i - mean r) / (std r + epsilon), std with the unbiased estimator (divisor G - 1)

    Source: Shao et al. 2024 (GRPO), section 4.1.2; the divisor and epsilon = 1e-8 as in the released Oat code.
    A row alone in its group, a group of equal rewards, and a masked row get zero.

    Args:
        reward: of each row.
        group: of each row.
        row_mask: live rows.
        num_groups: static.
        epsilon: added to the standard deviation.
    """
    centred, size = _centred_in_group(reward, group, row_mask, num_groups=num_groups)
    mean_square, _ = group_means(centred**2, group, row_mask, num_groups=num_groups)
    std = jnp.sqrt(mean_square * size / jnp.maximum(size - 1, 1))
    return jnp.where(row_mask & (size > 1), centred / (std + epsilon), 0)


def per_token(advantage: Float[Array, "rows"], mask: Bool[Array, "rows completion"]) -> Float[Array, "rows completion"]:
    """A row's advantage copied to each of its live tokens."""
    return jnp.where(mask, advantage[:, None], 0)


def group_centred(
    reward: Float[Array, "rows"], group: Int[Array, "rows"], row_mask: Bool[Array, "rows"], *, num_groups: int
) -> Float[Array, "rows"]:
    """Reward minus the mean reward of its group, itself included.

        A_i = r_i - mean r

    Source: Liu et al. 2025 (Dr. GRPO), section 3.2.  It is (G - 1) / G of `leave_one_out`.  A group of equal rewards,
    and a masked row, get exactly zero.

    Args:
        reward: of each row.
        group: of each row; groups may be of any size.
        row_mask: live rows.
        num_groups: static.
    """
    return _centred_in_group(reward, group, row_mask, num_groups=num_groups)[0]


def step_advantages(
    values: Float[Array, "rows completion"],
    known: Bool[Array, "rows completion"],
    reward: Float[Array, "rows"],
    mask: Bool[Array, "rows completion"],
    starts: Bool[Array, "rows completion"],
) -> Float[Array, "rows completion"]:
    """What each reasoning step adds to the value, copied to all tokens of the step.

        A_k = r_k + V(s_{k+1}) - V(s_k),   r_k = r in the last step and else 0,   V(terminal) = 0

    Where a value is unknown, it is taken from what follows: V(s_k) = r_k + V(s_{k+1}), so that the step's advantage is
    zero.  Over the steps of a row the advantages add up to the reward less the value of the prompt (or of the first
    state whose value is known).

    Source: Kazemnejad et al. 2024 (VinePPO), section 4.1 and the released code.

    Args:
        values: read where a step starts and `known`.
        known: where they are.
        reward: of each row.
        mask: live tokens.
        starts: the first token of each step; true at the first live token of every row.

    Returns:
        Advantages, zero in the padding.
    """
    chex.assert_equal_shape([values, known, mask, starts])
    width = mask.shape[1]
    index = jnp.broadcast_to(jnp.arange(width), mask.shape)
    # The reward is what the finished response is worth: r_k + V(s_{k+1}) is then one number, `after`.
    measured = jnp.where(mask & starts & known, index, width)
    following = jnp.pad(jax.lax.cummin(measured, axis=1, reverse=True)[:, 1:], ((0, 0), (0, 1)), constant_values=width)
    ahead = jnp.concatenate([jnp.where(measured < width, values, 0), reward[:, None]], axis=1)
    after = jnp.take_along_axis(ahead, following, axis=1)
    before = jnp.where(measured < width, values, after)
    start = jax.lax.cummax(jnp.where(mask & starts, index, 0), axis=1)
    before, after = (jnp.take_along_axis(x, start, axis=1) for x in (before, after))
    return jnp.where(mask, after - before, 0)
