"""Weights from files to the devices, one array at a time."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lilo_jax.device.layout import weights_layout
from lilo_jax.models.huggingface.weights import WeightStream
from lilo_jax.types import Array, PyTree


@jax.jit
def are_finite(weight: Array) -> Array:
    """Whether all numbers of an array, wherever its shards lie, are finite; bool []."""
    return jnp.isfinite(weight).all()


def place_weights(init: Callable[..., PyTree], axes: PyTree, mesh: Mesh, stream: WeightStream) -> PyTree:
    """Parameters on the mesh, in float32, from arrays that come one at a time.

    Each array is sent to the devices in its own type, every device getting its shard, and written into a stack that
    exists once: the host holds one array at a time.

    Args:
        init: (key) -> params, for their shapes.
        axes: logical axes of every weight.
        mesh: where they go.
        stream: every layer of every weight, in any order.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    layout = weights_layout(mesh, axes, shapes)
    placed: dict[tuple[str, ...], Array] = {}

    @functools.cache
    def write_layer(spec: NamedSharding) -> Callable[..., Array]:
        return jax.jit(lambda stack, part, index: stack.at[index].set(part), donate_argnums=0, out_shardings=spec)

    @functools.cache
    def convert(spec: NamedSharding) -> Callable[..., Array]:
        # A copy even of float32: on CPU the array may still be the mapped file.
        return jax.jit(lambda part: jnp.array(part, jnp.float32, copy=True), out_shardings=spec)

    for path, layer, array in stream:
        shape, spec = (functools.reduce(lambda node, name: node[name], path, tree) for tree in (shapes, layout))
        own = spec if layer is None else NamedSharding(mesh, PartitionSpec(*spec.spec[1:]))
        part = jax.make_array_from_callback(array.shape, own, array.__getitem__)
        if layer is None:
            placed[path] = convert(spec)(part)
        else:
            stack = placed.pop(path, None)
            stack = jnp.zeros(shape.shape, shape.dtype, device=spec) if stack is None else stack
            placed[path] = write_layer(spec)(stack, part, layer)
    return traverse_util.unflatten_dict(placed)
