"""REINFORCE: the reward itself, or the reward less the batch's mean, times the gradient of log pi (Williams 1992)."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.rl.aggregations import sequence_sum
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_weight_loss
from lilo_jax.rl.policy_gradient import policy_gradient
from lilo_jax.rl.policy_loss import on_tokens
from lilo_jax.types import Array, TrainBatch


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """Settings of REINFORCE."""

    baseline: Literal["batch_mean", "none"] = "batch_mean"
    """what is taken off every reward"""

    def build(self) -> Algorithm:
        """The functions of REINFORCE.

        Off-policy steps are weighted by the importance ratio of each token, at most 2; on-policy the weight is one.
        """
        clip = {"clip_low": 1.0, "clip_high": 1.0}
        return policy_gradient(
            advantage={"batch_mean": less_batch_mean, "none": plain_reward}[self.baseline],
            loss=on_tokens(clipped_weight_loss, **clip),
            aggregate=sequence_sum,
            clip=clip,
        )


def plain_reward(batch: TrainBatch) -> Float[Array, "rows"]:
    """A_i = r_i, zero for masked rows."""
    return jnp.where(batch.row_mask, batch.reward, 0)


def less_batch_mean(batch: TrainBatch) -> Float[Array, "rows"]:
    """A_i = r_i - mean of all live rows."""
    live = jnp.maximum(jnp.sum(batch.row_mask), 1)
    mean = jnp.sum(jnp.where(batch.row_mask, batch.reward, 0)) / live
    return jnp.where(batch.row_mask, batch.reward - mean, 0)
