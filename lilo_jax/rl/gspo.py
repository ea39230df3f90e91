"""GSPO: the ratio of whole responses, length-normalised, is clipped instead of each token's (Zheng et al. 2025)."""

import dataclasses
import functools

from lilo_jax.bounds import NotNegative, Share
from lilo_jax.rl.advantages import group_normalized
from lilo_jax.rl.aggregations import sequence_mean
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import sequence_clipped_surrogate, sequence_ratio
from lilo_jax.rl.policy_gradient import by_group, policy_gradient


@dataclasses.dataclass(frozen=True)
class Gspo:
    """Settings of GSPO; the clip range is the paper's, section 5.1."""

    clip_low: Share = 3e-4
    clip_high: NotNegative = 4e-4
    """bounds of the length-normalised ratio of a response"""
    std_epsilon: NotNegative = 1e-8
    """added to a group's standard deviation"""

    def build(self) -> Algorithm:
        """The functions of GSPO."""
        clip = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        return policy_gradient(
            advantage=by_group(group_normalized, epsilon=self.std_epsilon),
            loss=functools.partial(sequence_clipped_surrogate, clip_low=self.clip_low, clip_high=self.clip_high),
            aggregate=sequence_mean,
            clip=clip,
            ratio=sequence_ratio,
            least_samples=2,
        )
