"""What updates report: ratios and divergences of a minibatch, and advantages, values and follow-ups of a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lilo_jax.rl.losses import kl_k1, kl_k2, kl_k3
from lilo_jax.types import Array, Mean, Metrics, Minibatch, TokenScores, TrainBatch


def ratio_metrics(
    scores: TokenScores, batch: Minibatch, ratio: Float[Array, "rows completion"], *, clip_low: float, clip_high: float
) -> Metrics:
    """Token means of the ratio, raw and clipped, of the share outside the clip range, of the entropy, and of the three
    estimates of KL(old || new), whose tokens come from the old policy.

    Args:
        scores: of the new policy.
        batch: the minibatch.
        ratio: what the loss clips: of tokens, or of whole responses.
        clip_low, clip_high: its bounds, below and above 1.
    """
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return {
        "policy/ratio": Mean.of(ratio, batch.mask),
        "policy/ratio_clipped": Mean.of(clipped, batch.mask),
        "policy/clip_fraction": Mean.of(ratio != clipped, batch.mask),
        "policy/entropy": Mean.of(scores.entropy, batch.mask),
    } | divergences("policy/kl", batch.old_logprobs, scores.logprobs, batch.mask)


def divergences(
    name: str,
    logprobs: Float[Array, "rows completion"],
    other_logprobs: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
) -> Metrics:
    """Token means of the three estimates of KL(policy || other), by name and estimator; nothing is clamped."""
    return {
        f"{name}_k1": Mean.of(kl_k1(logprobs, other_logprobs), mask),
        f"{name}_k2": Mean.of(kl_k2(logprobs, other_logprobs), mask),
        f"{name}_k3": Mean.of(kl_k3(logprobs, other_logprobs, clamp=jnp.inf), mask),
    }


def advantage_metrics(batch: TrainBatch, mask: Bool[Array, "rows completion"]) -> Metrics:
    """Mean, variance, size and extremes of the tokens' advantages, and the share of trained groups without any."""
    live, num_groups = jnp.any(mask), batch.place.shape[0]
    largest = jax.ops.segment_max(
        jnp.max(jnp.where(mask, jnp.abs(batch.advantages), 0), axis=1), batch.group, num_segments=num_groups
    )
    return {
        "policy/advantage_mean": Mean.of(batch.advantages, mask),
        "policy/advantage_variance": variance(batch.advantages, mask),
        "policy/advantage_abs": Mean.of(jnp.abs(batch.advantages), mask),
        "policy/advantage_min": Mean.once(jnp.min(batch.advantages, initial=jnp.inf, where=mask), live),
        "policy/advantage_max": Mean.once(jnp.max(batch.advantages, initial=-jnp.inf, where=mask), live),
        "policy/zero_advantage_groups": Mean.of(largest <= 0, batch.group_mask),
    }


def sampler_metrics(batch: TrainBatch, mask: Bool[Array, "rows completion"]) -> Metrics:
    """How far the log-probs that the sampler reported are from the trainer's own, on average and at most."""
    gap = jnp.abs(batch.old_logprobs - batch.sampler_logprobs)
    return {
        "policy/sampler_gap": Mean.of(gap, mask),
        "policy/sampler_gap_max": Mean.once(jnp.max(gap, initial=0, where=mask), jnp.any(mask)),
    }


def value_metrics(batch: TrainBatch, mask: Bool[Array, "rows completion"]) -> Metrics:
    """The critic before the update: explained variance = 1 - mean (V - R)^2 / var R, and what it is made of."""
    error, spread = Mean.of((batch.old_values - batch.returns) ** 2, mask), variance(batch.returns, mask)
    # Returns are advantages plus values: equal ones are equal up to rounding, which explains nothing.
    varies = spread.total > 1e-9 * (spread.weight + jnp.sum(jnp.where(mask, batch.returns, 0) ** 2))
    return {
        "value/mean": Mean.of(batch.old_values, mask),
        "value/squared_error": error,
        "value/return_variance": spread,
        "value/explained_variance": Mean.once(1 - error.total / jnp.where(varies, spread.total, 1), varies),
    }


def follow_up_metrics(batch: TrainBatch, mask: Bool[Array, "rows completion"]) -> Metrics:
    """Over the places with follow-ups: rollouts of each, and the mean and variance of the values they give.

    A state that several responses pass through counts once for each.
    """
    found = batch.follow_ups
    value = found.reward_sum / jnp.maximum(found.attempts, 1)
    known = mask & (found.attempts > 0)
    return {
        "follow_up/rollouts": Mean.of(found.asked.astype(jnp.float32), mask & (found.asked > 0)),
        "follow_up/value_mean": Mean.of(value, known),
        "follow_up/value_variance": variance(value, known),
        "follow_up/steps": Mean.of(
            jnp.max(jnp.where(mask, batch.reasoning_step, 0), axis=1) + 1, jnp.any(mask, axis=1)
        ),
    }


def variance(values: Float[Array, "rows completion"], mask: Bool[Array, "rows completion"]) -> Mean:
    """The mean squared distance from the mean under the mask."""
    mean = Mean.of(values, mask)
    return Mean.of((values - mean.total / jnp.maximum(mean.weight, 1)) ** 2, mask)
