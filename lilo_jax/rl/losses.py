"""Per-token losses.  None takes a mean: the caller weights and sums (see `Minibatch`)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lilo_jax.types import Array


def clipped_surrogate(
    logprobs: Float[Array, "*tokens"],
    old_logprobs: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    *,
    clip_low: float,
    clip_high: float,
) -> Float[Array, "*tokens"]:
    """The pessimistic clipped policy loss.

        L = -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A),   rho = exp(logprobs - old_logprobs)

    Source: Schulman et al. 2017 (PPO), eq. 7 (clip_low = clip_high = epsilon); Yu et al. 2025 (DAPO), eq. 8
    (separate bounds).  Its gradient at rho = 1 is that of -A log pi.

    Args:
        clip_low, clip_high: at least 0.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, advantages])
    return _clipped(jnp.exp(logprobs - old_logprobs), advantages, clip_low=clip_low, clip_high=clip_high)


def _clipped(
    ratio: Float[Array, "*tokens"], advantages: Float[Array, "*tokens"], *, clip_low: float, clip_high: float
) -> Float[Array, "*tokens"]:
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def clipped_value_loss(
    values: Float[Array, "*tokens"],
    old_values: Float[Array, "*tokens"],
    returns: Float[Array, "*tokens"],
    *,
    clip: float,
) -> Float[Array, "*tokens"]:
    """Half the larger of two squared errors, of the value and of the value held near its old one.

        L = 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)

    Source: Schulman et al. 2017's released code; settings of Kazemnejad et al. 2024 (VinePPO), appendix.

    Args:
        clip: c, greater than 0.
    """
    chex.assert_equal_shape([values, old_values, returns])
    held = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (held - returns) ** 2)


def kl_k3(
    logprobs: Float[Array, "*tokens"], reference_logprobs: Float[Array, "*tokens"], *, clamp: float
) -> Float[Array, "*tokens"]:
    """Low-variance estimate of KL(policy || reference) from tokens of the policy.

        k3 = exp(d) - d - 1,   d = reference_logprobs - logprobs,   clamped to [0, clamp]

    Source: Schulman 2020 (approximating KL divergence); the clamp as in VinePPO's released code (10).

    Args:
        clamp: upper bound, greater than 0.
    """
    chex.assert_equal_shape([logprobs, reference_logprobs])
    difference = reference_logprobs - logprobs
    return jnp.clip(jnp.exp(difference) - difference - 1, 0, clamp)


def dual_clipped_surrogate(
    logprobs: Float[Array, "*tokens"],
    old_logprobs: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> Float[Array, "*tokens"]:
    """The clipped surrogate, bounded also where the advantage is negative and the ratio large.

        L = -max(min(rho A, clip(rho) A), c A) if A < 0, else -min(rho A, clip(rho) A)

    Source: Ye et al. 2020 (dual-clip PPO), equation 3, with c = `dual_clip` above 1.

    Args:
        clip_low, clip_high: at least 0.
        dual_clip: c, above 1 + clip_high.
    """
    losses = clipped_surrogate(logprobs, old_logprobs, advantages, clip_low=clip_low, clip_high=clip_high)
    return jnp.where(advantages < 0, jnp.minimum(losses, -dual_clip * advantages), losses)


def token_ratio(
    logprobs: Float[Array, "rows completion"],
    old_logprobs: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
) -> Float[Array, "rows completion"]:
    """Rho = exp(logprobs - old_logprobs); what stands outside the mask means nothing."""
    del mask
    return jnp.exp(logprobs - old_logprobs)


def sequence_ratio(
    logprobs: Float[Array, "rows completion"],
    old_logprobs: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
) -> Float[Array, "rows completion"]:
    """The length-normalised ratio of each response, at each of its tokens.

        s_i = exp(1/|o_i| sum_t (log pi - log pi_old))

    Source: Zheng et al. 2025 (GSPO), equation 7.

    Args:
        logprobs, old_logprobs: of tokens.
        mask: completion tokens.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, mask])
    length = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(mask, logprobs - old_logprobs, 0), axis=1, keepdims=True) / length
    return jnp.broadcast_to(jnp.exp(mean), logprobs.shape)


def sequence_clipped_surrogate(
    logprobs: Float[Array, "rows completion"],
    old_logprobs: Float[Array, "rows completion"],
    advantages: Float[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
    *,
    clip_low: float,
    clip_high: float,
) -> Float[Array, "rows completion"]:
    """The clipped surrogate of the length-normalised ratio of whole responses, the same for each of their tokens.

        s_i = exp(1/|o_i| sum_t (log pi - log pi_old)),   L_it = -min(s_i A_it, clip(s_i, 1 - low, 1 + high) A_it)

    Source: Zheng et al. 2025 (GSPO), equations 5 to 7.  With one token per response it is `clipped_surrogate`.

    Args:
        logprobs, old_logprobs, advantages: of tokens.
        mask: completion tokens.
        clip_low, clip_high: at least 0; the paper's are some 1e-4, as the mean over tokens moves little.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, advantages, mask])
    return _clipped(sequence_ratio(logprobs, old_logprobs, mask), advantages, clip_low=clip_low, clip_high=clip_high)


def clipped_weight_loss(
    logprobs: Float[Array, "*tokens"],
    old_logprobs: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    *,
    clip_low: float,
    clip_high: float,
) -> Float[Array, "*tokens"]:
    """REINFORCE whose importance weight is clipped, not its gradient: every token keeps one.

        L = -sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log pi,   sg: no gradient

    Source: MiniMax 2025 (CISPO), equations 4 and 5.

    Args:
        clip_low, clip_high: at least 0; a `clip_low` of 1 leaves the weight without a lower bound.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, advantages])
    weight = jnp.clip(jnp.exp(logprobs - old_logprobs), 1 - clip_low, 1 + clip_high)
    return -jax.lax.stop_gradient(weight) * advantages * logprobs


def truncated_importance(
    old_logprobs: Float[Array, "*tokens"], sampler_logprobs: Float[Array, "*tokens"], *, cap: float
) -> Float[Array, "*tokens"]:
    """The weight of a token whose sampler was not quite the policy: min(pi_old / pi_sampler, cap).

    Source: Yao et al. 2025 (off-policy RL of rollout engines), truncated importance sampling.

    Args:
        old_logprobs: of the trainer before the update.
        sampler_logprobs: as the sampler reported them.
        cap: upper bound of the weight.
    """
    chex.assert_equal_shape([old_logprobs, sampler_logprobs])
    return jnp.minimum(jnp.exp(old_logprobs - sampler_logprobs), cap)


def kl_k1(logprobs: Float[Array, "*tokens"], reference_logprobs: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """Unbiased estimate of KL(policy || reference) from tokens of the policy, of high variance: log pi - log pi_ref.

    Source: Schulman 2020 (approximating KL divergence).
    """
    chex.assert_equal_shape([logprobs, reference_logprobs])
    return logprobs - reference_logprobs


def kl_k2(logprobs: Float[Array, "*tokens"], reference_logprobs: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """Half the squared log ratio: biased, of low variance, and its gradient is that of the true divergence.

    Source: Schulman 2020 (approximating KL divergence).
    """
    chex.assert_equal_shape([logprobs, reference_logprobs])
    return 0.5 * (logprobs - reference_logprobs) ** 2
