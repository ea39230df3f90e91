"""Values: how much there is to learn from a question, as a function of what is believed of its success rate.

Each takes an `Estimate` of questions to a number for each.  The variance family (`variance`, `deviation`, `mixed`,
`-distance(1/2)`) ranks alike under top-k with the same estimate; its members differ where a rule draws in proportion,
sets a threshold, or divides by a price.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from lilo_jax.curriculum.estimators import rollouts_known
from lilo_jax.types import Array, Estimate


def variance(estimate: Estimate) -> Float[Array, "*questions"]:
    """p(1 - p) at the mean of the belief: learnability (Foster et al. 2025; Rutherford et al. 2024)."""
    return estimate.mean * (1 - estimate.mean)


def expected_variance(estimate: Estimate) -> Float[Array, "questions"]:
    """E[p(1 - p)] under the belief = mean (1 - mean) - variance; for Beta(a, b): ab / ((a + b)(a + b + 1))."""
    return estimate.mean * (1 - estimate.mean) - estimate.variance


def marginal_variance(estimate: Estimate, samples: int) -> Float[Array, "questions"]:
    """Expected variance of the advantage that GRPO gives an outcome on average over the rest of its group (MaPP).

        E[V(p)],   V(p) = p (1 - p) (sum_k C(G - 1, k) p^k (1 - p)^(G - 1 - k) d_k)^2,   p ~ Beta(a, b)

    d_k is how far the advantages of a right and of a wrong answer are apart beside k right ones among G - 1.  V is a
    sum of c_i p^i (1 - p)^(2G - i), and E[p^i (1 - p)^j] a quotient of rising products of a, b and a + b: it is exact.

    Args:
        estimate: its Beta(a, b), as `rollouts_known` has it.
        samples: G, at least 2; static.
    """
    right = np.arange(samples + 1)
    spread = np.sqrt(right * (samples - right) / (samples * (samples - 1)))
    above, below = ((x / np.where(spread > 0, spread, np.inf)) for x in (1 - right / samples, right / samples))
    ways = np.array([math.comb(samples - 1, k) / 2 ** (samples - 1) for k in range(samples)])
    apart = ways * (above[1:] + below[:-1])
    log_c = np.log(np.convolve(apart, apart)) + 2 * (samples - 1) * math.log(2)
    count = rollouts_known(estimate, least=1e-3, most=1e6)
    powers = np.arange(1, 2 * samples)

    def log_rising(x: Float[Array, "questions"]) -> Float[Array, "questions powers"]:
        """Logs of x, x (x + 1), ... up to 2G factors."""
        return jnp.cumsum(
            jnp.log(jnp.maximum(x, 1e-9)[:, None] + np.arange(2 * samples, dtype=np.float32)[None]), axis=1
        )

    a, b, both = map(log_rising, (count * estimate.mean, count * (1 - estimate.mean), count))
    terms = a[:, powers - 1] + b[:, 2 * samples - powers - 1] - both[:, -1:]
    return jnp.sum(jnp.exp(terms + log_c.astype(np.float32)[None]), axis=1)


def corrected_variance(estimate: Estimate, attempts: Num[Array, "questions"]) -> Float[Array, "questions"]:
    """p(1 - p) K / (K - 1), which K fresh rollouts estimate without bias; NaN for K < 2.

    An `Estimate` does not say of how many rollouts it is, so `of_belief` cannot take this one: a rule of its own
    hands it what `recalled` gives, and the attempts, such as `state.attempts[places]` with `frequency`.
    """
    return jnp.where(attempts > 1, variance(estimate) * attempts / jnp.maximum(attempts - 1, 1), jnp.nan)


def deviation(estimate: Estimate) -> Float[Array, "questions"]:
    """sqrt(p(1 - p)): the standard deviation of the outcome (SPO, CurES)."""
    return jnp.sqrt(jnp.maximum(variance(estimate), 0))


def nearness(estimate: Estimate, target: Float[Array, "*questions"] | float = 0.5) -> Float[Array, "questions"]:
    """-(p - target)^2."""
    return -((estimate.mean - target) ** 2)


def band(estimate: Estimate, low: float, high: float) -> Float[Array, "questions"]:
    """1 where low <= p <= high, else 0."""
    return ((estimate.mean >= low) & (estimate.mean <= high)).astype(jnp.float32)


def pools(
    estimate: Estimate, thresholds: Sequence[float], weights: Sequence[float], unseen: float
) -> Float[Array, "questions"]:
    """The weight of the first pool whose threshold is at least p, the last one's if none is; `unseen` for NaN."""
    pool = jnp.searchsorted(jnp.asarray(thresholds, jnp.float32), estimate.mean).clip(max=len(weights) - 1)
    return jnp.where(jnp.isnan(estimate.mean), unseen, jnp.asarray(weights, jnp.float32)[pool])


def hard_variance(estimate: Estimate) -> Float[Array, "*questions"]:
    """p(1 - p)^2, highest at p = 1/3: a policy-gradient step's gain in success (Li et al. 2025, Knapsack RL)."""
    return estimate.mean * (1 - estimate.mean) ** 2


def failure(estimate: Estimate) -> Float[Array, "questions"]:
    """1 - p (Kimi k1.5)."""
    return 1 - estimate.mean


def mixed(estimate: Estimate, samples: int | Int[Array, "*rollouts"]) -> Float[Array, "*table"]:
    """Probability that `samples` rollouts are neither all right nor all wrong: 1 - p^G - (1 - p)^G."""
    return 1 - estimate.mean**samples - (1 - estimate.mean) ** samples


def progress(fast: Estimate, slow: Estimate) -> Float[Array, "questions"]:
    """|p_fast - p_slow|: how far two averages of different memory have come apart."""
    return jnp.abs(fast.mean - slow.mean)
