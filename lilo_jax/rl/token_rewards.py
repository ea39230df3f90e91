"""What each token earns: the outcome at the last one, and perhaps a price on leaving the reference at every one."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.models.scoring import live_tokens
from lilo_jax.rl.advantages import terminal_rewards
from lilo_jax.rl.losses import kl_k1
from lilo_jax.types import Array, PyTree, TrainBatch


class TokenRewards(NamedTuple):
    """Rewards of tokens as pure functions.

    Attributes:
        rewards: (batch) -> rewards, zero in the padding.
        init: () -> memory before the first step.
        remember: (batch) -> memory after the step.
    """

    rewards: Callable[[TrainBatch], Float[Array, "rows completion"]]
    init: Callable[[], PyTree] = tuple
    remember: Callable[[TrainBatch], PyTree] = lambda batch: batch.memory


def outcome() -> TokenRewards:
    """The row's reward at its last token."""
    return TokenRewards(lambda batch: terminal_rewards(batch.reward, live_tokens(batch)))


def outcome_less_kl(*, coefficient: float) -> TokenRewards:
    """The outcome, and at every token the price of leaving the reference.

        r_t = r [t is last] - beta (log pi(a_t) - log pi_ref(a_t))

    Source: Ziegler et al. 2019, equation 2; Ouyang et al. 2022 (InstructGPT), equation 2.

    Args:
        coefficient: beta.
    """
    return TokenRewards(lambda batch: priced(batch, coefficient))


def outcome_less_steered_kl(*, coefficient: float, target: float, horizon: int) -> TokenRewards:
    """`outcome_less_kl` whose coefficient follows the measured divergence.

        beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) min(n / horizon, 1))

    with KL the mean over the n rows of their summed log ratios to the reference.  A step changes it by a fifth at most.
    Source: Ziegler et al. 2019, section 2.2, in the form of its released code.

    Args:
        coefficient: the first beta.
        target: nats per response, above 0.
        horizon: responses.
    """

    def remember(batch: TrainBatch) -> PyTree:
        live = batch.row_mask.astype(jnp.float32)
        rows = jnp.maximum(live.sum(), 1)
        divergence = jnp.sum(_log_ratio(batch)) / rows
        error = jnp.clip(divergence / target - 1, -0.2, 0.2)
        return {"kl_coefficient": batch.memory["kl_coefficient"] * (1 + error * jnp.minimum(live.sum() / horizon, 1))}

    return TokenRewards(
        rewards=lambda batch: priced(batch, batch.memory["kl_coefficient"]),
        init=lambda: {"kl_coefficient": jnp.float32(coefficient)},
        remember=remember,
    )


def priced(batch: TrainBatch, coefficient: float | Float[Array, ""]) -> Float[Array, "rows completion"]:
    """The outcome at the last token, less `coefficient` times every token's log ratio."""
    return terminal_rewards(batch.reward, live_tokens(batch)) - coefficient * _log_ratio(batch)


def _log_ratio(batch: TrainBatch) -> Float[Array, "rows completion"]:
    return jnp.where(live_tokens(batch), kl_k1(batch.old_logprobs, batch.reference_logprobs), 0)
