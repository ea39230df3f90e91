"""Dr. GRPO: GRPO without its two biases, the standard deviation and the response's length (Liu et al. 2025)."""

import dataclasses
import functools

from lilo_jax.bounds import NotNegative, Share, Whole
from lilo_jax.rl.advantages import group_centred
from lilo_jax.rl.aggregations import constant_length
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens


@dataclasses.dataclass(frozen=True)
class DrGrpo:
    """Settings of Dr. GRPO."""

    clip_epsilon: Share = 0.2
    """epsilon of the policy ratio"""
    length: Whole = 0
    """constant that a response's token losses are divided by; 0: rollout.max-new-tokens"""
    importance_cap: NotNegative = 0.0
    """cap of min(pi_old / pi_sampler, cap), which weights advantages; 0 leaves them (Oat of today: 2)"""

    def build(self) -> Algorithm:
        """The functions of Dr. GRPO: centred rewards, token sums over the longest possible response."""
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        return policy_gradient(
            advantage=by_group(group_centred),
            loss=on_tokens(clipped_surrogate, **clip),
            aggregate=functools.partial(constant_length, length=self.length),
            importance_cap=self.importance_cap,
            clip=clip,
            least_samples=2,
        )
