"""Gradients of log-probs, for studies of theory: their products within a response, and the size of weighted sums."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.models import Model
from lilo_jax.models.scoring import score
from lilo_jax.types import Array, PyTree, Sequences

CHUNK = 1024

TokenProducts = Callable[[PyTree, Sequences], Float[Array, "rows completion completion"]]
"""(params, B rows) -> g_t . g_t' of the tokens of each row, g_t being the gradient of a token's log-prob."""
SquaredGradients = Callable[[PyTree, Sequences, Float[Array, "groups rows completion"]], Float[Array, "groups"]]
"""(params, groups x rows, w) -> ||sum w_it g_it||^2 of each group."""


def token_products(model: Model, *, completion_width: int, temperature: float) -> TokenProducts:
    """Compiled; takes the memory of `completion_width` gradients."""

    def of_row(params: PyTree, row: Sequences) -> Float[Array, "completion completion"]:
        def logprobs(params: PyTree) -> Float[Array, "completion"]:
            return _logprobs(model, params, jax.tree.map(lambda x: x[None], row), completion_width, temperature)[0]

        leaves = jax.tree.leaves(jax.jacrev(logprobs)(params))
        flat = [leaf.reshape(completion_width, -1) for leaf in leaves]
        return sum((leaf @ leaf.T for leaf in flat), start=jnp.zeros((completion_width, completion_width)))

    return jax.jit(lambda params, rows: jax.lax.map(lambda row: of_row(params, row), rows))


def squared_gradients(model: Model, *, completion_width: int, temperature: float) -> SquaredGradients:
    """Compiled; one backward pass a group."""

    def of_group(params: PyTree, rows: Sequences, weights: Float[Array, "rows completion"]) -> Float[Array, ""]:
        def weighted(params: PyTree) -> Float[Array, ""]:
            return jnp.sum(weights * _logprobs(model, params, rows, completion_width, temperature))

        return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(weighted)(params))), start=jnp.float32(0))

    return jax.jit(lambda params, groups, weights: jax.lax.map(lambda one: of_group(params, *one), (groups, weights)))


def _logprobs(
    model: Model, params: PyTree, rows: Sequences, width: int, temperature: float
) -> Float[Array, "rows completion"]:
    return score(model, params, rows, completion_width=width, temperature=temperature, chunk=CHUNK).logprobs
