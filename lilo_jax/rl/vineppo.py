"""VinePPO: PPO whose values are measured by rollouts instead of predicted by a critic (Kazemnejad et al. 2024).

A response is cut into reasoning steps.  From the state before each step, the prompt included, K more completions are
sampled; their mean reward is the state's value, and a step's advantage is what it adds to the value.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax.numpy as jnp
from annotated_types import Interval
from jaxtyping import Float, Int

from lilo_jax.bounds import Count, NotNegative, Positive, Share, Whole
from lilo_jax.models.scoring import live_tokens
from lilo_jax.rl.advantages import Whiten, per_token, step_advantages, whitening
from lilo_jax.rl.aggregations import sequence_sum, token_mean
from lilo_jax.rl.contract import Algorithm, FollowUpRequests
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.monte_carlo import FollowUpBudget, fixed_budget, step_starts, until_certain
from lilo_jax.rl.penalties import kl_to_reference
from lilo_jax.rl.policy_loss import on_tokens, policy_loss
from lilo_jax.types import Array, TrainBatch


@dataclasses.dataclass(frozen=True)
class VinePpo:
    """Settings of VinePPO."""

    rollouts: Count = 9
    """K: rollouts from each state, or the most of them"""
    budget: Literal["fixed", "until_certain"] = "fixed"
    """fixed: K from every state; until_certain: first-rollouts, then as many again until a state's value is known to
    within interval-width, or K are reached"""
    first_rollouts: Count = 3
    """if until_certain: rollouts at a time"""
    interval_width: Annotated[float, Interval(gt=0, lt=1)] = 0.6
    """if until_certain: of the 95% Wilson interval of the success rate"""
    max_steps: Whole = 0
    """states beyond so many steps are not measured, and what follows has no advantage (VinePPO on GSM8K: 25); 0: all"""
    clip_epsilon: Share = 0.2
    """epsilon of the policy ratio"""
    whitening: Literal["blocks", "batch", "none"] = "blocks"
    """advantages are whitened over blocks of whiten-rows rows, over the batch, or left"""
    whiten_rows: Count = 16
    """rows of a block"""
    kl_coefficient: NotNegative = 1e-4
    """beta of the k3 KL to the reference, summed over tokens and averaged over rows; 0 keeps no reference"""
    kl_clamp: Positive = 10.0
    """upper bound of a token's divergence"""

    def build(self) -> Algorithm:
        """The functions of VinePPO."""
        if self.budget == "until_certain" and self.first_rollouts > self.rollouts:
            raise ValueError("--algorithm.first-rollouts must be at most --algorithm.rollouts")
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        kl = kl_to_reference(coefficient=self.kl_coefficient, clamp=self.kl_clamp, aggregate=sequence_sum)
        budgets: dict[str, FollowUpBudget] = {
            "fixed": functools.partial(fixed_budget, rollouts=self.rollouts),
            "until_certain": functools.partial(
                until_certain, first=self.first_rollouts, most=self.rollouts, width=self.interval_width
            ),
        }
        return Algorithm(
            advantages=functools.partial(_advantages, whiten=whitening(self.whitening, rows=self.whiten_rows)),
            policy_loss=policy_loss(
                on_tokens(clipped_surrogate, **clip), token_mean, [kl] if self.kl_coefficient else [], clip=clip
            ),
            needs_reference=self.kl_coefficient != 0,
            follow_ups=FollowUpRequests(
                wanted=functools.partial(_wanted, budget=budgets[self.budget], max_steps=self.max_steps),
                most=self.rollouts,
            ),
        )


def _wanted(batch: TrainBatch, *, budget: FollowUpBudget, max_steps: int) -> Int[Array, "rows completion"]:
    """Rollouts wanted where a step begins, and no more than `max_steps` steps are over."""
    measured = step_starts(batch)
    if max_steps:
        measured &= batch.reasoning_step <= max_steps
    return jnp.where(measured, budget(batch.follow_ups), 0)


def _advantages(
    batch: TrainBatch, *, whiten: Whiten
) -> tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]:
    mask, found = live_tokens(batch), batch.follow_ups
    values = found.reward_sum / jnp.maximum(found.attempts, 1)
    advantages = step_advantages(values, found.attempts > 0, batch.reward, mask, step_starts(batch))
    return whiten(advantages, mask), per_token(batch.reward, mask)
