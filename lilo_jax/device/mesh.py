"""The device mesh, and the one table from logical axis names to mesh axes from which every sharding derives.

Arrays are described by the *meaning* of their axes ("rows", "heads", "mlp", ...); only `RULES` knows on which mesh
axes a meaning is spread.  An axis whose size the mesh does not divide stays whole.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lilo_jax.bounds import Count, Whole
from lilo_jax.types import Array, Constrain, PyTree

AXES = ("data", "fsdp", "tensor")

RULES: dict[str, tuple[str, ...]] = {
    "rows": ("data", "fsdp"),  # sequences, requests, prompts
    "embed": ("fsdp",),  # the model width of a weight; activations keep it whole
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "layers": (),
    "head_dim": (),
}

DECODE_RULES = RULES | {"rows": (), "embed": ()}
"""While completions are sampled: each row shard has its own rows and whole weights, split over `tensor` alone."""

LogicalAxes = tuple[str | None, ...]
Rules = Mapping[str, tuple[str, ...]]
"""Logical axis name to mesh axes."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices each mesh axis spans; the product must be the number of devices."""

    data: Whole = 0
    """copies of the model, each with its own rows; 0 takes all devices that the other axes leave"""
    fsdp: Count = 1
    """devices over which rows *and* weights are split; weights are gathered where they are used"""
    tensor: Count = 1
    """devices over which heads, MLP and vocabulary are split"""


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """The sizes of (data, fsdp, tensor); raises ValueError, naming the cure, if they do not make `num_devices`."""
    rest = config.fsdp * config.tensor
    data = config.data or num_devices // rest
    if data * rest != num_devices:
        raise ValueError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not make the "
            f"{num_devices} devices at hand; choose sizes whose product is {num_devices}, or leave --mesh.data 0"
        )
    return data, config.fsdp, config.tensor


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of all devices with axes data, fsdp, tensor, all of type Auto."""
    shape = mesh_shape(config, jax.device_count())
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def sharding(
    mesh: Mesh | AbstractMesh, axes: LogicalAxes, shape: tuple[int, ...], rules: Rules = RULES
) -> NamedSharding:
    """The sharding of an array of `shape` whose dimensions mean `axes` (None: no meaning, kept whole)."""
    spec = []
    for name, size in zip(axes, shape, strict=True):
        mesh_axes = rules[name] if name is not None else ()
        parts = math.prod(mesh.shape[axis] for axis in mesh_axes)
        spec.append(mesh_axes if mesh_axes and size % parts == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def constrainer(mesh: Mesh) -> Constrain:
    """`constrain(x, *axes)` for use inside jitted functions: fixes the layout of an intermediate array."""

    def constrain(x: Array, *axes: str | None) -> Array:
        return jax.lax.with_sharding_constraint(x, sharding(mesh, axes, x.shape))

    return constrain


def constrain_in_shard(x: Array, *axes: str | None) -> Array:
    """The `constrain` of functions that `by_row_shard` runs: the rows are a shard's own, `tensor` splits the rest."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(x, sharding(mesh, axes, x.shape, DECODE_RULES))


def by_row_shard(mesh: Mesh, function: Callable[..., PyTree], in_rows: tuple[bool, ...]) -> Callable[..., PyTree]:
    """`function`, each row shard running it on its own rows; what it returns has rows.

    Nothing crosses from one row shard to another but what the function itself sends.  `tensor` stays automatic.

    Args:
        mesh: whose axes data and fsdp split rows.
        function: of positional arguments.
        in_rows: of each argument, whether its arrays are split by rows; the others are whole on every row shard.
    """
    if row_shards(mesh) == 1:
        return function
    rows = PartitionSpec(RULES["rows"])
    specs = tuple(rows if split else PartitionSpec() for split in in_rows)
    # What is the same on all shards is not known to JAX to be so: keys, budgets, the weights.
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=rows, axis_names=set(RULES["rows"]), check_vma=False
    )


def unconstrained(x: Array, *axes: str | None) -> Array:
    """The `constrain` of a single device: returns `x`."""
    del axes
    return x


def _leading_rows(mesh: Mesh, leaf: Any) -> NamedSharding:
    shape = np.shape(leaf)
    return sharding(mesh, ("rows", *[None] * (len(shape) - 1)), shape) if shape else replicated(mesh)


def put_rows(mesh: Mesh, tree: PyTree) -> PyTree:
    """Places host arrays, which every process holds whole, with their first axis split over the row shards."""

    def put(leaf: Any) -> Array:
        leaf = np.asarray(leaf)
        with jax.transfer_guard("allow"):  # to JAX what a callback returns is no named transfer
            return jax.make_array_from_callback(leaf.shape, _leading_rows(mesh, leaf), lambda index: leaf[index])

    return jax.tree.map(put, tree)


def put_replicated(mesh: Mesh, tree: PyTree) -> PyTree:
    """Places host arrays on every device of the mesh."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, replicated(mesh)), tree)
