"""Allocators: how many rollouts each chosen question gets.

Each takes what is believed of questions to numbers that sum to the budget, between `least` and `most` each.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from lilo_jax.curriculum.values import hard_variance, mixed, variance
from lilo_jax.types import Array, Estimate


def by_gains(gains: Float[Array, "questions rollouts"], *, budget: int, least: int) -> Int[Array, "questions"]:
    """`least` for each, and the rest of the budget by greatest marginal gain, one rollout at a time.

    Greedy is optimal where the gains of a question fall with every rollout (a concave value), and all at once it is a
    top-k of the table of gains.

    Args:
        gains: gain of the (least + 1)-th, ... rollout of each question.
        budget: static, from least * J to most * J.
        least: static.
    """
    count = gains.shape[0]
    extra = budget - least * count
    falling = jax.lax.cummin(jnp.asarray(gains), axis=1)
    chosen = jax.lax.top_k(falling.T.reshape(-1), extra)[1]  # by rollout, then by question: ties are spread
    return jnp.full(count, least, jnp.int32).at[chosen % count].add(1)


def constant(estimate: Estimate, *, samples: int) -> Int[Array, "questions"]:
    """`samples` each."""
    return jnp.full(estimate.mean.shape, samples, jnp.int32)


def neyman(
    estimate: Estimate, lengths: Float[Array, "questions"], *, budget: int, least: int, most: int
) -> Int[Array, "questions"]:
    """In proportion to sqrt(p(1 - p) / length): the least variance of a mean for a budget (Neyman 1934).

    Rounded to whole rollouts by greedy gains: v / (n (n + 1)) for the (n + 1)-th, which falls with n and sums to the
    same optimum.
    """
    n = jnp.arange(least, most, dtype=jnp.float32)
    worth = variance(estimate) / jnp.maximum(lengths, 1)
    return by_gains(worth[:, None] / (jnp.maximum(n, 0.5) * (n + 1))[None], budget=budget, least=least)


def knapsack(estimate: Estimate, *, budget: int, least: int, most: int) -> Int[Array, "questions"]:
    """The most of sum_i (1 - p^n - (1 - p)^n) p(1 - p)^2 for a budget (Li et al. 2025, Knapsack RL, arXiv:2509.25849).

    The first factor is concave in n from n = 1 on, so greedy marginal gains reach the optimum of the paper's dynamic
    programme; `least` must be at least 1.
    """
    n = jnp.arange(least, most, dtype=jnp.int32)[None]
    wide = Estimate(estimate.mean[:, None], estimate.variance[:, None])
    gains = (mixed(wide, n + 1) - mixed(wide, n)) * hard_variance(wide)
    return by_gains(gains, budget=budget, least=least)
