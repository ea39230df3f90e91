"""Policy gradients without a critic: an advantage per response, a loss per token, an aggregation.

`grpo`, `rloo` and their relatives differ in these three alone; each names its own.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.models.scoring import live_tokens
from lilo_jax.rl.advantages import Whiten, left_as_they_are, per_token
from lilo_jax.rl.aggregations import Aggregation
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import token_ratio, truncated_importance
from lilo_jax.rl.penalties import kl_to_reference
from lilo_jax.rl.policy_loss import Ratio, TokenLoss, policy_loss
from lilo_jax.types import Array, TrainBatch

UNCLIPPED = {"clip_low": 1.0, "clip_high": math.inf}
"""Bounds that no ratio leaves."""

ResponseAdvantage = Callable[[TrainBatch], Float[Array, "rows"]]
"""(batch) -> advantages, zero for masked rows."""


def policy_gradient(
    *,
    advantage: ResponseAdvantage,
    loss: TokenLoss,
    aggregate: Aggregation,
    clip: Mapping[str, float] = UNCLIPPED,
    ratio: Ratio = token_ratio,
    whiten: Whiten = left_as_they_are,
    kl_coefficient: float = 0.0,
    kl_clamp: float = 10.0,
    importance_cap: float = 0.0,
    least_samples: int = 1,
    needs_belief: bool = False,
) -> Algorithm:
    """The functions of a policy-gradient method without a critic.

    Args:
        advantage: (batch) -> advantage of each response, [B].
        loss: (logprobs, old_logprobs, advantages, mask) -> loss of each token, [B, C]; padding is weighted 0.
        aggregate: (losses, minibatch) -> one number.
        clip: clip_low and clip_high, bounds of the ratio that `loss` has, for the metrics alone.
        ratio: what they bound.
        whiten: (advantages of tokens, mask) -> advantages of tokens.
        kl_coefficient: beta of the k3 divergence from the reference, aggregated like the loss; 0 keeps no reference.
        kl_clamp: upper bound of a token's divergence.
        importance_cap: advantages are weighted by min(pi_old / pi_sampler, cap); 0 leaves them.
        least_samples: rollouts of a question at least; 2 where `advantage` compares within groups.
        needs_belief: whether `advantage` reads what the curriculum believes.
    """
    without_gradient_at_zero = whiten is left_as_they_are and not kl_coefficient
    kl = [kl_to_reference(coefficient=kl_coefficient, clamp=kl_clamp, aggregate=aggregate)] if kl_coefficient else []
    return Algorithm(
        advantages=functools.partial(_advantages, advantage, whiten, importance_cap),
        policy_loss=policy_loss(loss, aggregate, kl, clip=clip, ratio=ratio),
        needs_reference=kl_coefficient != 0,
        least_samples=least_samples,
        needs_belief=needs_belief,
        informative=(lambda batch: advantage(batch) != 0) if without_gradient_at_zero else None,
    )


def by_group(estimator: Callable[..., Float[Array, "rows"]], **settings: Any) -> ResponseAdvantage:
    """The response advantages of an estimator over groups, such as `lilo_jax.rl.advantages.leave_one_out`."""
    return lambda batch: estimator(
        batch.reward, batch.group, batch.row_mask, num_groups=batch.place.shape[0], **settings
    )


def _advantages(
    advantage: ResponseAdvantage, whiten: Whiten, importance_cap: float, batch: TrainBatch
) -> tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]:
    mask = live_tokens(batch)
    advantages = whiten(per_token(advantage(batch), mask), mask)
    if importance_cap:
        weight = truncated_importance(batch.old_logprobs, batch.sampler_logprobs, cap=importance_cap)
        advantages *= jnp.where(mask, weight, 0)
    return advantages, per_token(batch.reward, mask)
