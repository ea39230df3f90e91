"""GRPO: group-standardised rewards, a token mean per response, then the mean over responses (Shao et al. 2024)."""

import dataclasses
from typing import Literal

from lilo_jax.bounds import NotNegative, Positive, Share
from lilo_jax.rl.advantages import group_normalized
from lilo_jax.rl.aggregations import sequence_mean
from lilo_jax.rl.baselines import believed, marginal, posterior, standardized
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens


@dataclasses.dataclass(frozen=True)
class Grpo:
    """Settings of GRPO; the defaults are those of the paper's GRPO runs (Oat: no KL)."""

    clip_epsilon: Share = 0.2
    """epsilon of the policy ratio"""
    kl_coefficient: NotNegative = 0.0
    """beta of the k3 KL to the reference, averaged like the surrogate; 0 keeps no reference"""
    kl_clamp: Positive = 10.0
    """upper bound of a token's KL estimate"""
    std_epsilon: NotNegative = 1e-8
    """added to a group's standard deviation"""
    importance_cap: NotNegative = 0.0
    """cap of min(pi_old / pi_sampler, cap), which weights advantages; 0 leaves them (Oat of today: 2)"""
    baseline: Literal["group", "belief", "posterior", "marginal"] = "group"
    """mean and deviation: of the group, of the curriculum's belief, of both, or of the groups that it expects (MaPP)"""

    def build(self) -> Algorithm:
        """The functions of GRPO."""
        advantages = {
            "group": by_group(group_normalized, epsilon=self.std_epsilon),
            "belief": standardized(believed),
            "posterior": standardized(posterior),
            "marginal": marginal(epsilon=self.std_epsilon),
        }
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        return policy_gradient(
            advantage=advantages[self.baseline],
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=sequence_mean,
            kl_coefficient=self.kl_coefficient,
            kl_clamp=self.kl_clamp,
            importance_cap=self.importance_cap,
            clip=clip,
            least_samples=2 if self.baseline in ("group", "marginal") else 1,
            needs_belief=self.baseline != "group",
        )
