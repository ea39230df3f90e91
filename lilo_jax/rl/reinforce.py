"""REINFORCE: the reward itself, or the reward less the batch's mean, times the gradient of log pi (Williams 1992)."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.rl.advantages import whitening
from lilo_jax.rl.aggregations import sequence_sum
from lilo_jax.rl.baselines import believed, less, posterior
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_weight_loss
from lilo_jax.rl.policy_gradient import policy_gradient
from lilo_jax.rl.policy_loss import on_tokens
from lilo_jax.types import Array, TrainBatch


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """Settings of REINFORCE."""

    baseline: Literal["batch_mean", "none", "belief", "posterior"] = "batch_mean"
    """what is taken off every reward; belief and posterior are those of RLOO"""
    whitening: Literal["batch", "none"] = "none"
    """over which tokens advantages get mean 0 and variance 1; belief and batch together are SPO's"""

    def build(self) -> Algorithm:
        """The functions of REINFORCE.

        Off-policy steps are weighted by the importance ratio of each token, at most 2; on-policy the weight is one.
        """
        clip = {"clip_low": 1.0, "clip_high": 1.0}
        advantages = {
            "batch_mean": less_batch_mean,
            "none": plain_reward,
            "belief": less(believed),
            "posterior": less(posterior),
        }
        return policy_gradient(
            advantage=advantages[self.baseline],
            loss=on_tokens(clipped_weight_loss, **clip),
            aggregate=sequence_sum,
            clip=clip,
            whiten=whitening(self.whitening, rows=1),
            needs_belief=self.baseline in ("belief", "posterior"),
        )


def plain_reward(batch: TrainBatch) -> Float[Array, "rows"]:
    """A_i = r_i, zero for masked rows."""
    return jnp.where(batch.row_mask, batch.reward, 0)


def less_batch_mean(batch: TrainBatch) -> Float[Array, "rows"]:
    """A_i = r_i - mean of all live rows."""
    live = jnp.maximum(jnp.sum(batch.row_mask), 1)
    mean = jnp.sum(jnp.where(batch.row_mask, batch.reward, 0)) / live
    return jnp.where(batch.row_mask, batch.reward - mean, 0)
