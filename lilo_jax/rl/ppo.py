"""PPO with a critic, as in Schulman et al. 2017 with the settings of Kazemnejad et al. 2024 (VinePPO's baseline).

Where the literature has alternatives, a setting names the function that is used; none of the functions has a branch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Literal

import jax.numpy as jnp
from annotated_types import Gt
from jaxtyping import Float

from lilo_jax.bounds import Count, NotNegative, Number, Positive, Share
from lilo_jax.models.scoring import live_tokens
from lilo_jax.rl.advantages import Whiten, generalized_advantages, whitening
from lilo_jax.rl.aggregations import sequence_sum, token_mean
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.losses import clipped_surrogate, clipped_value_loss, dual_clipped_surrogate
from lilo_jax.rl.penalties import Penalty, entropy_bonus, kl_to_reference
from lilo_jax.rl.policy_loss import on_tokens, policy_loss
from lilo_jax.rl.token_rewards import TokenRewards, outcome, outcome_less_kl, outcome_less_steered_kl
from lilo_jax.types import Array, Mean, Metrics, Minibatch, TrainBatch


@dataclasses.dataclass(frozen=True)
class Ppo:
    """Settings of PPO."""

    clip_epsilon: Share = 0.2
    """epsilon of the policy ratio"""
    value_clip: Positive = 0.2
    """the value may move this far from its old prediction before its gradient stops"""
    discount: Share = 1.0
    """gamma"""
    gae_lambda: Share = 1.0
    """lambda; 1 makes the advantage the return minus the value"""
    whitening: Literal["blocks", "batch", "none"] = "blocks"
    """advantages are whitened over blocks of whiten-rows rows, over the batch, or left"""
    whiten_rows: Count = 16
    """rows of a block"""
    kl: Literal["loss", "reward", "steered_reward"] = "loss"
    """where leaving the reference is paid for: in the loss (k3, summed over tokens, averaged over rows), in the reward
    of every token, or there with a coefficient that is steered towards kl-target"""
    kl_coefficient: NotNegative = 1e-4
    """beta, or the first one if it is steered; 0 keeps no reference"""
    kl_clamp: Positive = 10.0
    """in the loss, upper bound of a token's divergence"""
    kl_target: Positive = 6.0
    """if steered: nats per response"""
    kl_horizon: Count = 10_000
    """if steered: the coefficient changes by at most a fifth in so many responses"""
    surrogate: Literal["clipped", "dual_clipped"] = "clipped"
    """dual_clipped bounds the loss of a negative advantage too"""
    dual_clip: Annotated[float, Gt(1)] = 3.0
    """bound of the ratio where the advantage is negative"""
    entropy_coefficient: Number = 0.0
    """what a nat of mean token entropy takes off the loss"""

    def build(self) -> Algorithm:
        """The functions of PPO."""
        if self.surrogate == "dual_clipped" and self.dual_clip <= 1 + self.clip_epsilon:
            raise ValueError("--algorithm.dual-clip must be above 1 + --algorithm.clip-epsilon")
        clip = {"clip_low": self.clip_epsilon, "clip_high": self.clip_epsilon}
        surrogates: dict[str, Callable[..., Float[Array, "rows completion"]]] = {
            "clipped": clipped_surrogate,
            "dual_clipped": functools.partial(dual_clipped_surrogate, dual_clip=self.dual_clip),
        }
        token_rewards = self._token_rewards()
        return Algorithm(
            advantages=functools.partial(
                _advantages,
                token_rewards=token_rewards,
                whiten=whitening(self.whitening, rows=self.whiten_rows),
                discount=self.discount,
                trace=self.gae_lambda,
            ),
            policy_loss=policy_loss(
                on_tokens(surrogates[self.surrogate], **clip), token_mean, self._penalties(), clip=clip
            ),
            value_loss=functools.partial(_value_loss, clip=self.value_clip),
            needs_reference=self.kl_coefficient != 0,
            init=token_rewards.init,
            remember=token_rewards.remember,
        )

    def _token_rewards(self) -> TokenRewards:
        if self.kl == "reward":
            return outcome_less_kl(coefficient=self.kl_coefficient)
        if self.kl == "steered_reward":
            return outcome_less_steered_kl(
                coefficient=self.kl_coefficient, target=self.kl_target, horizon=self.kl_horizon
            )
        return outcome()

    def _penalties(self) -> list[Penalty]:
        penalties = []
        if self.kl == "loss" and self.kl_coefficient:
            penalties.append(
                kl_to_reference(coefficient=self.kl_coefficient, clamp=self.kl_clamp, aggregate=sequence_sum)
            )
        if self.entropy_coefficient:
            penalties.append(entropy_bonus(coefficient=self.entropy_coefficient, aggregate=token_mean))
        return penalties


def _advantages(
    batch: TrainBatch,
    *,
    token_rewards: TokenRewards,
    whiten: Whiten,
    discount: float,
    trace: float,
) -> tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]:
    mask = live_tokens(batch)
    advantages, returns = generalized_advantages(
        token_rewards.rewards(batch), batch.old_values, mask, discount=discount, trace=trace
    )
    return whiten(advantages, mask), returns


def _value_loss(
    values: Float[Array, "rows completion"], batch: Minibatch, *, clip: float
) -> tuple[Float[Array, ""], Metrics]:
    values = jnp.where(batch.mask, values, 0)
    losses = clipped_value_loss(values, batch.old_values, batch.returns, clip=clip)
    moved = jnp.abs(values - batch.old_values) > clip
    return token_mean(losses, batch), {
        "loss/value": Mean.of(losses, batch.mask),
        "value/clip_fraction": Mean.of(moved, batch.mask),
    }
