"""DAPO: GRPO with a higher upper clip and a token mean, and no KL (Yu et al. 2025).

Its overlong punishment is `--reward.length-penalty 1.0 --reward.length-free` (budget less cache).
"""

import dataclasses

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.rl.advantages import group_normalized
from lilo_jax.rl.aggregations import token_mean
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens


@dataclasses.dataclass(frozen=True)
class Dapo:
    """Settings of DAPO."""

    clip_low: Share = 0.2
    clip_high: NotNegative = 0.28
    """bounds of the policy ratio: the upper one is higher"""
    std_epsilon: NotNegative = 1e-8
    """added to a group's standard deviation"""

    def build(self) -> Algorithm:
        """The functions of DAPO."""
        clip = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        return policy_gradient(
            advantage=by_group(group_normalized, epsilon=self.std_epsilon),
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=token_mean,
            clip=clip,
            least_samples=2,
        )
