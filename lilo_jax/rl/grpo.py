"""GRPO: group-standardised rewards, a token mean per response, then the mean over responses (Shao et al. 2024)."""

import dataclasses
import functools

import jax.numpy as jnp

from lilo_jax.rl.advantages import group_normalized, per_token
from lilo_jax.rl.follow_ups import no_follow_ups
from lilo_jax.rl.losses import clipped_surrogate, kl_k3
from lilo_jax.rl.metrics import ratio_metrics
from lilo_jax.scoring import completion_mask
from lilo_jax.types import Algorithm, Array, Mean, Metrics, Minibatch, TokenScores, TrainBatch


@dataclasses.dataclass(frozen=True)
class Grpo:
    """Settings of GRPO; the defaults are those of the paper's GRPO runs (Oat: no KL)."""

    clip_epsilon: float = 0.2
    """epsilon of the policy ratio"""
    kl_coefficient: float = 0.0
    """beta of the k3 KL to the reference, averaged like the surrogate; 0 keeps no reference"""
    kl_clamp: float = 10.0
    """upper bound of a token's KL estimate"""
    std_epsilon: float = 1e-8
    """added to a group's standard deviation"""

    def build(self) -> Algorithm:
        """The functions of GRPO."""
        return Algorithm(
            advantages=functools.partial(_advantages, self),
            policy_loss=functools.partial(_policy_loss, self),
            value_loss=None,
            follow_up_requests=no_follow_ups,
            needs_reference=self.kl_coefficient != 0,
        )


def _advantages(spec: Grpo, batch: TrainBatch) -> tuple[Array, Array]:
    mask = completion_mask(batch.sequences, batch.old_logprobs.shape[1]) & batch.row_mask[:, None]
    advantage = group_normalized(
        batch.reward, batch.group, batch.row_mask, num_groups=batch.question.shape[0], epsilon=spec.std_epsilon
    )
    return per_token(advantage, mask), per_token(batch.reward, mask)


def _policy_loss(spec: Grpo, scores: TokenScores, batch: Minibatch) -> tuple[Array, Metrics]:
    surrogate = clipped_surrogate(
        scores.logprobs,
        batch.old_logprobs,
        batch.advantages,
        clip_low=spec.clip_epsilon,
        clip_high=spec.clip_epsilon,
    )
    metrics = ratio_metrics(scores, batch, clip_low=spec.clip_epsilon, clip_high=spec.clip_epsilon)
    metrics["loss/policy"] = Mean.of(surrogate, batch.mask)
    losses = surrogate
    if spec.kl_coefficient:
        kl = kl_k3(scores.logprobs, batch.reference_logprobs, clamp=spec.kl_clamp)
        metrics["loss/kl_to_reference"] = Mean.of(kl, batch.mask)
        losses = losses + spec.kl_coefficient * kl
    response_length = jnp.maximum(jnp.sum(batch.mask, axis=1, keepdims=True), 1)
    return jnp.sum(losses * batch.sequence_weight / response_length), metrics
