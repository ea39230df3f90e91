"""RLOO: REINFORCE with the mean of a group's other rollouts as baseline (Ahmadian et al. 2024).

The advantage is theirs.  Off-policy the ratio of each token is clipped, and tokens weigh the same, as verl has it; TRL
clips the ratio of whole responses.
"""

import dataclasses
from typing import Literal

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.rl.advantages import leave_one_out
from lilo_jax.rl.aggregations import token_mean
from lilo_jax.rl.baselines import believed, less, posterior
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens


@dataclasses.dataclass(frozen=True)
class Rloo:
    """Settings of RLOO."""

    clip_low: Share = 0.2
    clip_high: NotNegative = 0.28
    """bounds of the policy ratio; inactive when every step is on-policy"""
    baseline: Literal["group", "belief", "posterior"] = "group"
    """mean of the others in the group, what the curriculum believes of the question, or both, weighted"""

    def build(self) -> Algorithm:
        """The functions of RLOO: leave-one-out advantages, token-mean clipped surrogate."""
        advantages = {"group": by_group(leave_one_out), "belief": less(believed), "posterior": less(posterior)}
        clip = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        return policy_gradient(
            advantage=advantages[self.baseline],
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=token_mean,
            clip=clip,
            least_samples=2 if self.baseline == "group" else 1,
            needs_belief=self.baseline != "group",
        )
