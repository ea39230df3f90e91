"""Products of activations and weights, in the orders in which hardware wants them.

All three compute y[..., out] = sum over in of x[..., in] w[in, out]; `inputs` is the number of axes that `in` has.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float

from lilo_jax.types import Array

Project = Callable[[Float[Array, "..."], Any, int], Float[Array, "..."]]
"""(x [..., *in], weight or `LowRank`, number of input axes) -> [..., *out]."""


class LowRank(flax.struct.PyTreeNode):
    """The weight base + scale a b, kept apart; see `lilo_jax.models.lora`.

    Attributes:
        base: [*in, *out].
        a: [*in, rank].
        b: [rank, *out].
        scale: of the product.
    """

    base: Float[Array, "..."]
    a: Float[Array, "..."]
    b: Float[Array, "..."]
    scale: float = flax.struct.field(pytree_node=False)

    def __getitem__(self, index: object) -> "LowRank":
        """The same index of all three; they may share leading axes."""
        return self if index is ... else jax.tree.map(lambda w: w[index], self)


def adaptable(product: Project) -> Project:
    """`product` for weights that may be `LowRank`: x base + scale (x a) b."""

    @functools.wraps(product)
    def run(x: Float[Array, "..."], weight: Float[Array, "..."] | LowRank, inputs: int) -> Float[Array, "..."]:
        if not isinstance(weight, LowRank):
            return product(x, weight, inputs)
        return product(x, weight.base, inputs) + weight.scale * product(product(x, weight.a, inputs), weight.b, 1)

    return run


@adaptable
def project(x: Float[Array, "..."], weight: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    """The product with a weight stored as [*in, *out]."""
    return jnp.tensordot(x, weight.astype(x.dtype), inputs)


@adaptable
def project_transposed(x: Float[Array, "..."], weight: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    """The product with a weight stored as [*out, *in]."""
    return jax.lax.dot_general(x, weight.astype(x.dtype), ((_last(x, inputs), _last(weight, inputs)), ((), ())))


@adaptable
def project_weights_first(x: Float[Array, "..."], weight: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    """The product with a weight stored as [*out, *in], the weight being the left matrix.

    With few rows in `x`, XLA's CPU matrix product runs about 1.3 times as fast in this order.  The barrier keeps the
    compiler from turning it round again.
    """
    product = jax.lax.dot_general(weight.astype(x.dtype), x, ((_last(weight, inputs), _last(x, inputs)), ((), ())))
    out = weight.ndim - inputs
    return jnp.moveaxis(jax.lax.optimization_barrier(product), range(out), range(-out, 0))


def transposed(weight: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    """[*in, *out] to [*out, *in]."""
    return jnp.moveaxis(weight, range(inputs), range(-inputs, 0))


def _last(x: Float[Array, "..."], count: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - count, x.ndim))
