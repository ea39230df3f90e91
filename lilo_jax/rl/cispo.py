"""CISPO: the importance weight is clipped, and no token loses its gradient (MiniMax 2025, MiniMax-M1)."""

import dataclasses

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.rl.advantages import group_normalized
from lilo_jax.rl.aggregations import token_mean
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_weight_loss
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens


@dataclasses.dataclass(frozen=True)
class Cispo:
    """Settings of CISPO; the paper leaves the weight without a lower bound and does not print its upper one."""

    clip_low: Share = 1.0
    """1: no lower bound"""
    clip_high: NotNegative = 0.28
    """the weight is at most 1 + clip_high"""
    std_epsilon: NotNegative = 1e-8
    """added to a group's standard deviation"""

    def build(self) -> Algorithm:
        """The functions of CISPO."""
        clip = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        return policy_gradient(
            advantage=by_group(group_normalized, epsilon=self.std_epsilon),
            loss=on_tokens(clipped_weight_loss, **clip),
            aggregate=token_mean,
            clip=clip,
            least_samples=2,
        )
