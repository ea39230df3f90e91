"""PPO with a critic, as in Schulman et al. 2017 with the settings of Kazemnejad et al. 2024 (VinePPO's baseline)."""

import dataclasses
import functools

import jax.numpy as jnp

from lilo_jax.rl.advantages import generalized_advantages, terminal_rewards, whiten_blocks
from lilo_jax.rl.follow_ups import no_follow_ups
from lilo_jax.rl.losses import clipped_surrogate, clipped_value_loss, kl_k3
from lilo_jax.rl.metrics import ratio_metrics
from lilo_jax.scoring import completion_mask
from lilo_jax.types import Algorithm, Array, Mean, Metrics, Minibatch, TokenScores, TrainBatch


@dataclasses.dataclass(frozen=True)
class Ppo:
    """Settings of PPO."""

    clip_epsilon: float = 0.2
    """epsilon of the policy ratio"""
    value_clip: float = 0.2
    """the value may move this far from its old prediction before its gradient stops"""
    discount: float = 1.0
    """gamma"""
    gae_lambda: float = 1.0
    """lambda; 1 makes the advantage the return minus the value"""
    kl_coefficient: float = 1e-4
    """beta of the k3 KL to the reference, summed over tokens and averaged over rows"""
    kl_clamp: float = 10.0
    """upper bound of a token's KL estimate"""
    whiten_rows: int = 16
    """rows per whitening block; 0 leaves advantages as they are"""

    def build(self) -> Algorithm:
        """The functions of PPO."""
        return Algorithm(
            advantages=functools.partial(_advantages, self),
            policy_loss=functools.partial(_policy_loss, self),
            value_loss=functools.partial(_value_loss, self),
            follow_up_requests=no_follow_ups,
            needs_reference=self.kl_coefficient != 0,
        )


def _advantages(spec: Ppo, batch: TrainBatch) -> tuple[Array, Array]:
    mask = completion_mask(batch.sequences, batch.old_values.shape[1]) & batch.row_mask[:, None]
    advantages, returns = generalized_advantages(
        terminal_rewards(batch.reward, mask),
        batch.old_values,
        mask,
        discount=spec.discount,
        trace=spec.gae_lambda,
    )
    if spec.whiten_rows:
        advantages = whiten_blocks(advantages, mask, block=spec.whiten_rows)
    return advantages, returns


def _policy_loss(spec: Ppo, scores: TokenScores, batch: Minibatch) -> tuple[Array, Metrics]:
    surrogate = clipped_surrogate(
        scores.logprobs,
        batch.old_logprobs,
        batch.advantages,
        clip_low=spec.clip_epsilon,
        clip_high=spec.clip_epsilon,
    )
    loss = jnp.sum(surrogate * batch.token_weight)
    metrics = ratio_metrics(scores, batch, clip_low=spec.clip_epsilon, clip_high=spec.clip_epsilon)
    metrics["loss/policy"] = Mean.of(surrogate, batch.mask)
    if spec.kl_coefficient:
        kl = kl_k3(scores.logprobs, batch.reference_logprobs, clamp=spec.kl_clamp)
        loss += spec.kl_coefficient * jnp.sum(kl * batch.sequence_weight)
        metrics["loss/kl_to_reference"] = Mean.of(kl, batch.mask)
    return loss, metrics


def _value_loss(spec: Ppo, values: Array, batch: Minibatch) -> tuple[Array, Metrics]:
    losses = clipped_value_loss(values, batch.old_values, batch.returns, clip=spec.value_clip)
    return jnp.sum(losses * batch.token_weight), {"loss/value": Mean.of(losses, batch.mask)}
