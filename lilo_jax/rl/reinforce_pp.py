"""REINFORCE++: rewards standardised over the whole batch, with PPO's clip and no critic (Hu et al. 2025)."""

import dataclasses
from typing import Literal

from lilo_jax.rl.advantages import batch_normalized, group_centred
from lilo_jax.rl.aggregations import token_mean
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, on_tokens, policy_gradient
from lilo_jax.types import Algorithm, Array, TrainBatch


@dataclasses.dataclass(frozen=True)
class ReinforcePp:
    """Settings of REINFORCE++."""

    baseline: Literal["none", "group_mean"] = "none"
    """group_mean: the paper's variant with baseline, for groups of several rollouts"""
    clip_epsilon: float = 0.2
    """epsilon of the policy ratio"""
    kl_coefficient: float = 0.0
    """beta of the k3 KL to the reference, averaged like the surrogate; 0 keeps no reference"""

    def build(self) -> Algorithm:
        """The functions of REINFORCE++."""
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        return policy_gradient(
            advantage={"none": normalized_reward, "group_mean": normalized_centred}[self.baseline],
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=token_mean,
            kl_coefficient=self.kl_coefficient,
            **clip,
        )


def normalized_reward(batch: TrainBatch) -> Array:
    """A_i = (r_i - mean) / std over the batch."""
    return batch_normalized(batch.reward, batch.row_mask)


def normalized_centred(batch: TrainBatch) -> Array:
    """A_i = r_i less its group's mean, then standardised over the batch."""
    return batch_normalized(by_group(group_centred)(batch), batch.row_mask)
