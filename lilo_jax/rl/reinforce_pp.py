"""REINFORCE++: rewards whitened over all tokens of the batch, with PPO's clip and no critic (Hu et al. 2025).

A_it = (r_i - mean) / std   over the tokens of the batch, where a response counts as often as it has tokens
"""

import dataclasses
from typing import Literal

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.rl.advantages import group_centred, whiten_batch
from lilo_jax.rl.aggregations import token_mean
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens
from lilo_jax.rl.reinforce import plain_reward


@dataclasses.dataclass(frozen=True)
class ReinforcePp:
    """Settings of REINFORCE++."""

    baseline: Literal["none", "group_mean"] = "none"
    """group_mean: the paper's variant with baseline, for groups of several rollouts"""
    clip_epsilon: Share = 0.2
    """epsilon of the policy ratio"""
    kl_coefficient: NotNegative = 0.0
    """beta of the k3 KL to the reference, averaged like the surrogate; 0 keeps no reference"""

    def build(self) -> Algorithm:
        """The functions of REINFORCE++."""
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        return policy_gradient(
            advantage={"none": plain_reward, "group_mean": by_group(group_centred)}[self.baseline],
            whiten=whiten_batch,
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=token_mean,
            kl_coefficient=self.kl_coefficient,
            clip=clip,
            least_samples={"none": 1, "group_mean": 2}[self.baseline],
        )
