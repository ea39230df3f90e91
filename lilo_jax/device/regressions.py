"""The compiled program of many logistic regressions at once: one for every penalty and part of the questions."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.curriculum.regression import fit
from lilo_jax.types import Array

ROUNDS = 5
"""Calls of `fit`, each of a few Newton steps, from coefficients of zero to where they stand still."""
INTERCEPT = 10.0
"""The column of ones is that large, so that the same penalty leaves the intercept all but free."""


@jax.jit
def fitted_logits(
    features: Float[Array, "questions features"],
    rate: Float[Array, "questions"],
    weights: Float[Array, "parts questions"],
    penalties: Float[Array, "penalties"],
) -> Float[Array, "penalties parts questions"]:
    """Log-odds of success of every question, by each regression.

    The coefficients w and b minimise, with z_i = x_i . w + b and the weights n_i of a part,

        sum_i n_i [softplus(z_i) - r_i z_i] + penalty / 2 |w|^2 + b^2 / 200

    Args:
        features: x, without a column of ones.
        rate: r, in [0, 1].
        weights: n, of each part of the questions that a regression learns from: attempts, and 0 for the others.
        penalties: greater than 0.
    """
    ones = jnp.full((len(features), 1), INTERCEPT, features.dtype)

    def of_penalty(penalty: Float[Array, ""]) -> Float[Array, "parts questions"]:
        # A penalty on coefficients is a scale of the features, so that `fit` always has the same one.
        x = jnp.concatenate([features / jnp.sqrt(penalty), ones], axis=1)

        def of_part(weight: Float[Array, "questions"]) -> Float[Array, "questions"]:
            start = jnp.zeros(x.shape[1])
            again = functools.partial(_fitted_from, x, rate, weight)
            return x @ jax.lax.fori_loop(0, ROUNDS, lambda _, w: again(w), start)

        return jax.vmap(of_part)(weights)

    return jax.lax.map(of_penalty, penalties)


def _fitted_from(
    x: Float[Array, "questions columns"],
    rate: Float[Array, "questions"],
    weight: Float[Array, "questions"],
    start: Float[Array, "columns"],
) -> Float[Array, "columns"]:
    return fit(x, rate, weight, start, precision=1.0)[0]
