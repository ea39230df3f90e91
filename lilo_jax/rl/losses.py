"""Per-token losses.  None takes a mean: the caller weights and sums (see `Minibatch`)."""

import chex
import jax.numpy as jnp

from lilo_jax.types import Array


def clipped_surrogate(
    logprobs: Array, old_logprobs: Array, advantages: Array, *, clip_low: float, clip_high: float
) -> Array:
    """The pessimistic clipped policy loss.

        L = -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A),   rho = exp(logprobs - old_logprobs)

    Source: Schulman et al. 2017 (PPO), eq. 7 (clip_low = clip_high = epsilon); Yu et al. 2025 (DAPO), eq. 8
    (separate bounds).  Its gradient at rho = 1 is that of -A log pi.

    Args:
        logprobs, old_logprobs, advantages: float32, one shape.
        clip_low, clip_high: at least 0.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, advantages])
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def clipped_value_loss(values: Array, old_values: Array, returns: Array, *, clip: float) -> Array:
    """Half the larger of two squared errors, of the value and of the value held near its old one.

        L = 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)

    Source: Schulman et al. 2017's released code; settings of Kazemnejad et al. 2024 (VinePPO), appendix.

    Args:
        values, old_values, returns: float32, one shape.
        clip: c, greater than 0.
    """
    chex.assert_equal_shape([values, old_values, returns])
    held = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (held - returns) ** 2)


def kl_k3(logprobs: Array, reference_logprobs: Array, *, clamp: float) -> Array:
    """Low-variance estimate of KL(policy || reference) from tokens of the policy.

        k3 = exp(d) - d - 1,   d = reference_logprobs - logprobs,   clamped to [0, clamp]

    Source: Schulman 2020 (approximating KL divergence); the clamp as in VinePPO's released code (10).

    Args:
        logprobs, reference_logprobs: float32, one shape.
        clamp: upper bound, greater than 0.
    """
    chex.assert_equal_shape([logprobs, reference_logprobs])
    difference = reference_logprobs - logprobs
    return jnp.clip(jnp.exp(difference) - difference - 1, 0, clamp)
