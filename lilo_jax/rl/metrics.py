"""What every clipped policy loss reports."""

import jax.numpy as jnp

from lilo_jax.types import Mean, Metrics, Minibatch, TokenScores


def ratio_metrics(scores: TokenScores, batch: Minibatch, *, clip_low: float, clip_high: float) -> Metrics:
    """Token means of the ratio, of the share outside the clip range, of k3 KL to the old policy, and of entropy."""
    log_ratio = scores.logprobs - batch.old_logprobs
    ratio = jnp.exp(log_ratio)
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return {
        "policy/ratio": Mean.of(ratio, batch.mask),
        "policy/clip_fraction": Mean.of(outside, batch.mask),
        "policy/kl_to_old": Mean.of(ratio - log_ratio - 1, batch.mask),
        "policy/entropy": Mean.of(scores.entropy, batch.mask),
    }
