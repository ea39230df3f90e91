"""The policy loss of every algorithm: a loss per token, an aggregation, and penalties."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Bool, Float

from lilo_jax.rl.aggregations import Aggregation
from lilo_jax.rl.losses import token_ratio
from lilo_jax.rl.metrics import ratio_metrics
from lilo_jax.rl.penalties import Penalty
from lilo_jax.types import Array, Mean, Metrics, Minibatch, TokenScores

TokenLoss = Callable[
    [
        Float[Array, "rows completion"],
        Float[Array, "rows completion"],
        Float[Array, "rows completion"],
        Bool[Array, "rows completion"],
    ],
    Float[Array, "rows completion"],
]
"""(logprobs, old_logprobs, advantages, mask) -> losses."""

Ratio = Callable[
    [Float[Array, "rows completion"], Float[Array, "rows completion"], Bool[Array, "rows completion"]],
    Float[Array, "rows completion"],
]
"""(logprobs, old_logprobs, mask) -> ratio."""


def policy_loss(
    loss: TokenLoss,
    aggregate: Aggregation,
    penalties: Sequence[Penalty] = (),
    *,
    clip: Mapping[str, float],
    ratio: Ratio = token_ratio,
) -> Callable[[TokenScores, Minibatch], tuple[Float[Array, ""], Metrics]]:
    """(scores, minibatch) -> (aggregate(losses) + penalties, metrics); what stands in the padding is never read.

    Args:
        loss: of each token.
        aggregate: losses to one number.
        penalties: what is added.
        clip: clip_low and clip_high, bounds of the ratio, for the metrics.
        ratio: what they bound.
    """

    def total(scores: TokenScores, batch: Minibatch) -> tuple[Float[Array, ""], Metrics]:
        # Before anything is computed of them: the gradient of a masked NaN would be NaN again.
        scores = TokenScores(*(jnp.where(batch.mask, x, 0) for x in (scores.logprobs, scores.entropy)))
        losses = loss(scores.logprobs, batch.old_logprobs, batch.advantages, batch.mask)
        ratios = ratio(scores.logprobs, batch.old_logprobs, batch.mask)
        metrics = ratio_metrics(scores, batch, ratios, **clip)
        metrics["loss/policy"] = Mean.of(losses, batch.mask)
        value = aggregate(losses, batch)
        for penalty in penalties:
            added, measured = penalty(scores, batch)
            value, metrics = value + added, metrics | measured
        return value, metrics

    return total


def on_tokens(surrogate: Callable[..., Float[Array, "rows completion"]], **settings: Any) -> TokenLoss:
    """The loss of a surrogate that looks at each token by itself."""
    return lambda logprobs, old_logprobs, advantages, mask: surrogate(logprobs, old_logprobs, advantages, **settings)
