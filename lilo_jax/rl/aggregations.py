"""From losses of tokens to the loss of a minibatch: what a token, a response and a length weigh.

Each takes losses [B, C] and the minibatch, whose weights were fixed before it was cut into micro-batches, and gives a
scalar that adds over micro-batches.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.types import Array, Minibatch

Aggregation = Callable[[Float[Array, "rows completion"], Minibatch], Float[Array, ""]]
"""(losses, minibatch) -> scalar."""


def token_mean(losses: Float[Array, "rows completion"], batch: Minibatch) -> Float[Array, ""]:
    """The mean over all tokens of the minibatch: long responses weigh more.

        L = sum_i sum_t L_it / sum_i |o_i|

    Source: Yu et al. 2025 (DAPO), equation 8; also VinePPO's PPO.
    """
    return jnp.sum(losses * batch.token_weight)


def sequence_mean(losses: Float[Array, "rows completion"], batch: Minibatch) -> Float[Array, ""]:
    """The mean over responses of their means over tokens: each response weighs the same, a token of a long one less.

        L = 1/B sum_i 1/|o_i| sum_t L_it

    Source: Shao et al. 2024 (GRPO), equation 3.
    """
    length = jnp.maximum(jnp.sum(batch.mask, axis=1, keepdims=True), 1)
    return jnp.sum(losses * batch.sequence_weight / length)


def constant_length(losses: Float[Array, "rows completion"], batch: Minibatch, *, length: int) -> Float[Array, ""]:
    """The mean over responses of their sums over tokens, divided by a constant: no length bias.

        L = 1/B sum_i 1/C sum_t L_it

    Source: Liu et al. 2025 (Dr. GRPO), listing 1, whose released code divides by the generation budget.

    Args:
        losses: of tokens.
        batch: the minibatch.
        length: C; 0 takes the width of the batch's completions, which is the generation budget.
    """
    return jnp.sum(losses * batch.sequence_weight) / (length or batch.mask.shape[1])


def sequence_sum(losses: Float[Array, "rows completion"], batch: Minibatch) -> Float[Array, ""]:
    """The mean over responses of their sums over tokens: the gradient of log pi(response) itself.

        L = 1/B sum_i sum_t L_it

    Source: Williams 1992 (REINFORCE).
    """
    return jnp.sum(losses * batch.sequence_weight)
