"""Products of the gradients of log-probs, for studies of theory: they give the size of every weighted sum of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lilo_jax.models import Model
from lilo_jax.models.scoring import score
from lilo_jax.types import Array, PyTree, Sequences

CHUNK = 1024

GradientProducts = Callable[[PyTree, Sequences], Float[Array, "sums sums"]]
"""(params, G rows) -> products of the gradients of their sums of log-probs, those of a row side by side."""


def gradient_products(model: Model, sums: Float[np.ndarray, "K T"], *, temperature: float) -> GradientProducts:
    """Compiled; takes the memory of G K gradients, and K backward passes a row.

        s_rk = sum_t sums_kt log pi(y_rt);    products[r K + k, r' K + k'] = grad s_rk . grad s_r'k'

    so that ||sum_i w_i grad s_i||^2 = w^T products w.  The identity as `sums` stands for single tokens, a row of ones
    for whole responses; T is the completions' width, and log pi is 0 beyond a response.
    """

    def of_row(params: PyTree, row: Sequences) -> Float[Array, "K"]:
        rows = jax.tree.map(lambda x: x[None], row)
        width = sums.shape[1]
        scored = score(model, params, rows, completion_width=width, temperature=temperature, chunk=CHUNK)
        return jnp.dot(jnp.asarray(sums, jnp.float32), scored.logprobs[0], precision="highest")

    def of_group(params: PyTree, rows: Sequences) -> Float[Array, "sums sums"]:
        gradients = jax.lax.map(lambda row: jax.jacrev(of_row)(params, row), rows)
        size = rows.tokens.shape[0] * sums.shape[0]
        flat = (leaf.reshape(size, -1) for leaf in jax.tree.leaves(gradients))
        return sum((jnp.dot(x, x.T, precision="highest") for x in flat), start=jnp.zeros((size, size)))

    return jax.jit(of_group)
