"""Policy gradients without a critic: an advantage per response, a loss per token, an aggregation.

`grpo`, `rloo` and their relatives differ in these three alone; each names its own.
"""

import functools
from collections.abc import Callable
from typing import Any

from lilo_jax.rl.advantages import per_token
from lilo_jax.rl.follow_ups import no_follow_ups
from lilo_jax.rl.losses import kl_k3, truncated_importance
from lilo_jax.rl.metrics import ratio_metrics
from lilo_jax.scoring import completion_mask
from lilo_jax.types import Algorithm, Array, Mean, Metrics, Minibatch, TokenScores, TrainBatch

ResponseAdvantage = Callable[[TrainBatch], Array]
"""(batch) -> [B], zero for masked rows."""
TokenLoss = Callable[[Array, Array, Array, Array], Array]
"""(logprobs, old_logprobs, advantages, mask), all [B, C] -> losses [B, C]."""
Aggregation = Callable[[Array, Minibatch], Array]
"""(losses, minibatch) -> scalar; see `lilo_jax.rl.aggregations`."""


def policy_gradient(
    *,
    advantage: ResponseAdvantage,
    loss: TokenLoss,
    aggregate: Aggregation,
    clip_low: float,
    clip_high: float,
    kl_coefficient: float = 0.0,
    kl_clamp: float = 10.0,
    importance_cap: float = 0.0,
) -> Algorithm:
    """The functions of a policy-gradient method without a critic.

    Args:
        advantage: of each response.
        loss: of each token.
        aggregate: losses to one number.
        clip_low, clip_high: bounds of the ratio, for the metrics.
        kl_coefficient: beta of the k3 divergence from the reference, aggregated like the loss; 0 keeps no reference.
        kl_clamp: upper bound of a token's divergence.
        importance_cap: advantages are weighted by min(pi_old / pi_sampler, cap); 0 leaves them.
    """
    return Algorithm(
        advantages=functools.partial(_advantages, advantage, importance_cap),
        policy_loss=functools.partial(
            _policy_loss,
            loss=loss,
            aggregate=aggregate,
            clip_low=clip_low,
            clip_high=clip_high,
            kl_coefficient=kl_coefficient,
            kl_clamp=kl_clamp,
        ),
        value_loss=None,
        follow_up_requests=no_follow_ups,
        needs_reference=kl_coefficient != 0,
    )


def by_group(estimator: Callable[..., Array], **settings: Any) -> ResponseAdvantage:
    """The response advantages of an estimator over groups, such as `lilo_jax.rl.advantages.leave_one_out`."""
    return lambda batch: estimator(
        batch.reward, batch.group, batch.row_mask, num_groups=batch.question.shape[0], **settings
    )


def on_tokens(surrogate: Callable[..., Array], **settings: Any) -> TokenLoss:
    """The loss of a surrogate that looks at each token by itself."""
    return lambda logprobs, old_logprobs, advantages, mask: surrogate(logprobs, old_logprobs, advantages, **settings)


def _advantages(advantage: ResponseAdvantage, importance_cap: float, batch: TrainBatch) -> tuple[Array, Array]:
    mask = completion_mask(batch.sequences, batch.old_logprobs.shape[1]) & batch.row_mask[:, None]
    advantages = per_token(advantage(batch), mask)
    if importance_cap:
        advantages *= truncated_importance(batch.old_logprobs, batch.sampler_logprobs, cap=importance_cap)
    return advantages, per_token(batch.reward, mask)


def _policy_loss(
    scores: TokenScores,
    batch: Minibatch,
    *,
    loss: TokenLoss,
    aggregate: Aggregation,
    clip_low: float,
    clip_high: float,
    kl_coefficient: float,
    kl_clamp: float,
) -> tuple[Array, Metrics]:
    losses = loss(scores.logprobs, batch.old_logprobs, batch.advantages, batch.mask)
    metrics = ratio_metrics(scores, batch, clip_low=clip_low, clip_high=clip_high)
    metrics["loss/policy"] = Mean.of(losses, batch.mask)
    if kl_coefficient:
        kl = kl_k3(scores.logprobs, batch.reference_logprobs, clamp=kl_clamp)
        metrics["loss/kl_to_reference"] = Mean.of(kl, batch.mask)
        losses = losses + kl_coefficient * kl
    return aggregate(losses, batch), metrics
