"""RLOO: REINFORCE with the mean of a group's other rollouts as baseline (Ahmadian et al. 2024)."""

import dataclasses
import functools

import jax.numpy as jnp

from lilo_jax.rl.advantages import leave_one_out, per_token
from lilo_jax.rl.follow_ups import no_follow_ups
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.metrics import ratio_metrics
from lilo_jax.scoring import completion_mask
from lilo_jax.types import Algorithm, Array, Mean, Metrics, Minibatch, TokenScores, TrainBatch


@dataclasses.dataclass(frozen=True)
class Rloo:
    """Settings of RLOO."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    """bounds of the policy ratio; inactive when every step is on-policy"""

    def build(self) -> Algorithm:
        """The functions of RLOO: leave-one-out advantages, token-mean clipped surrogate."""
        return Algorithm(
            advantages=_advantages,
            policy_loss=functools.partial(_policy_loss, self),
            value_loss=None,
            follow_up_requests=no_follow_ups,
            needs_reference=False,
        )


def _advantages(batch: TrainBatch) -> tuple[Array, Array]:
    mask = completion_mask(batch.sequences, batch.old_logprobs.shape[1]) & batch.row_mask[:, None]
    advantage = leave_one_out(batch.reward, batch.group, batch.row_mask, num_groups=batch.question.shape[0])
    return per_token(advantage, mask), per_token(batch.reward, mask)


def _policy_loss(spec: Rloo, scores: TokenScores, batch: Minibatch) -> tuple[Array, Metrics]:
    surrogate = clipped_surrogate(
        scores.logprobs, batch.old_logprobs, batch.advantages, clip_low=spec.clip_low, clip_high=spec.clip_high
    )
    metrics = ratio_metrics(scores, batch, clip_low=spec.clip_low, clip_high=spec.clip_high)
    metrics["loss/policy"] = Mean.of(surrogate, batch.mask)
    return jnp.sum(surrogate * batch.token_weight), metrics
