"""The device mesh, and the one table from logical axis names to mesh axes from which every sharding derives.

Arrays are described by the *meaning* of their axes ("rows", "heads", "mlp", ...); only `RULES` knows on which mesh
axes a meaning is spread.  An axis whose size the mesh does not divide stays whole.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lilo_jax.bounds import Count, Whole
from lilo_jax.errors import UsageError
from lilo_jax.models.row_shards import ALONE, Leading, RowShards
from lilo_jax.types import Array, Constrain, PyTree

AXES = ("data", "fsdp", "sequence", "tensor")

RULES: dict[str, tuple[str, ...]] = {
    "rows": ("data", "fsdp"),  # of a batch
    "copies": ("data",),  # of a batch, where each copy of the model needs all of its rows
    "tokens": ("sequence",),  # of whole rows: the completions of a batch, and what comes before them
    "requests": ("data", "fsdp", "sequence"),  # with their prompts: what is sampled
    "embed": ("fsdp", "sequence"),  # the model width of a weight; activations keep it whole
    "width": ("fsdp",),  # the model width of activations, where rows are not split over it
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "layers": (),
    "head_dim": (),
}

DECODE_RULES = RULES | {"rows": (), "copies": (), "tokens": (), "embed": (), "width": ()}
"""While completions are sampled: each shard has its own rows and whole weights, split over `tensor` alone."""

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
    sequence: Count = 1
    """devices that score and train on the same rows, each on its part of their tokens; in all else like fsdp"""
    tensor: Count = 1
    """devices over which heads, MLP and vocabulary are split"""


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, int, int, int]:
    """The sizes of `AXES`; raises ValueError, naming the cure, if they do not make `num_devices`."""
    rest = config.fsdp * config.sequence * config.tensor
    data = config.data or num_devices // rest
    if data * rest != num_devices:
        raise ValueError(
            f"mesh data={config.data} x fsdp={config.fsdp} x sequence={config.sequence} x tensor={config.tensor} does "
            f"not make the {num_devices} devices at hand; choose sizes whose product is {num_devices}, or leave "
            f"--mesh.data 0"
        )
    return data, config.fsdp, config.sequence, config.tensor


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of all devices with the axes of `AXES`, all of type Auto, laid out as `laid_out` says."""
    devices = laid_out(mesh_shape(config, jax.device_count()), jax.devices())
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def laid_out(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of the mesh's shape, with the most messages on the fastest links.

    Where the devices are of several slices, or of several hosts that know of no slices, slow links join these: `data`
    takes them, and the others only the rest, in their order.  Axes that the links of a slice cannot be dealt
    out to as they are share some.

    Raises:
        UsageError: slices or hosts have different numbers of devices.
    """
    try:
        return _hybrid(shape, devices, split=False)
    except NotImplementedError:  # what JAX raises where an axis would need a part of a physical one
        return _hybrid(shape, devices, split=True)


def slow_axes(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> Iterator[str]:
    """What in the layout of these devices makes messages slow, in sentences; most layouts have nothing."""
    islands = _islands(devices)
    kind = "slices" if _of_slices(devices) else "hosts"
    for axis, across in zip(AXES[1:], _across(shape, len(islands))[1:], strict=True):
        if across > 1:
            yield (
                f"--mesh.{axis} spans {across} {kind}, and slow links join these: what it sends in every layer takes "
                f"them; give --mesh.data a multiple of {len(islands)}, which sends sums of gradients alone"
            )
    try:
        _hybrid(shape, devices, split=False)
    except NotImplementedError:
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, shape, strict=True))
        yield (
            f"the links of this slice cannot be dealt out to {sizes}: axes of the mesh share links, and wait for each "
            f"other; sizes that are products of the slice's own sides do not"
        )


def _hybrid(shape: tuple[int, ...], devices: Sequence[jax.Device], *, split: bool) -> np.ndarray:
    islands = _islands(devices)
    if len(counts := sorted({len(island) for island in islands})) > 1:
        raise UsageError(
            f"slices or hosts have from {counts[0]} to {counts[-1]} devices each: take as many of each of them"
        )
    across = _across(shape, len(islands))
    within = [size // parts for size, parts in zip(shape, across, strict=True)]
    if len(islands) == 1:
        return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=split)
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, process_is_granule=not _of_slices(devices), allow_split_physical_axes=split
    )


def _islands(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each slice, or of each host: within one links are fast.

    Chips of a TPU that name no slice, as those of a described topology, are of one.
    """
    found: dict[int, list[jax.Device]] = {}
    for device in devices:
        island = getattr(device, "slice_index", 0) if _of_slices(devices) else device.process_index
        found.setdefault(island, []).append(device)
    return list(found.values())


def _of_slices(devices: Sequence[jax.Device]) -> bool:
    return devices[0].platform == "tpu" or hasattr(devices[0], "slice_index")


def _across(shape: tuple[int, ...], islands: int) -> list[int]:
    """Over how many islands each axis goes: the outermost that can takes them."""
    across = []
    for size in shape:
        across.append(math.gcd(size, islands))
        islands //= across[-1]
    return across


def sharding(
    mesh: Mesh | AbstractMesh, axes: LogicalAxes, shape: tuple[int, ...], rules: Rules = RULES
) -> NamedSharding:
    """The sharding of an array of `shape` whose dimensions mean `axes` (None: no meaning, kept whole)."""
    spec = []
    for name, size in zip(axes, shape, strict=True):
        mesh_axes = rules[name] if name is not None else ()
        spec.append(mesh_axes if mesh_axes and size % _parts(mesh, mesh_axes) == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return _parts(mesh, RULES["rows"])


def engine_shards(mesh: Mesh) -> int:
    """How many parts of the mesh sample for themselves, each with whole weights."""
    return _parts(mesh, RULES["requests"])


def _parts(mesh: Mesh | AbstractMesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def constrainer(mesh: Mesh) -> Constrain:
    """`constrain(x, *axes)` for use inside jitted functions: fixes the layout of an intermediate array."""

    def constrain(x: Array, *axes: str | None) -> Array:
        return jax.lax.with_sharding_constraint(x, sharding(mesh, axes, x.shape))

    return constrain


def constrain_in_shard(x: Array, *axes: str | None) -> Array:
    """The `constrain` of functions that row shards run: the rows are a shard's own, `tensor` splits the rest."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(x, sharding(mesh, axes, x.shape, DECODE_RULES))


def row_shards_of(mesh: Mesh) -> RowShards:
    """The row shards of a mesh, for use inside jitted functions; `tensor` stays automatic in what they run.

    Nothing crosses from one row shard to another but what a function itself sends.
    """
    if engine_shards(mesh) == 1:
        return ALONE
    specs = {
        None: PartitionSpec(),
        "tokens": PartitionSpec(RULES["rows"], RULES["tokens"]),
        "requests": PartitionSpec(RULES["requests"]),
        "embed": PartitionSpec(RULES["embed"]),
    }

    def run(function: Callable[..., PyTree], arguments: Leading, results: Leading) -> Callable[..., PyTree]:
        inputs, outputs = (tuple(specs[name] for name in names) for names in (arguments, results))
        # JAX is not asked to prove that what should be alike on all shards is so.
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=inputs,
            out_specs=outputs if len(outputs) > 1 else outputs[0],
            axis_names=set(RULES["requests"]),
            check_vma=False,
        )

    def embed(size: int) -> str | None:
        return "embed" if size % _parts(mesh, RULES["embed"]) == 0 else None

    def total(x: Array) -> Array:
        over = RULES["embed"]
        if not embed(x.shape[0]):
            return jax.lax.psum(x, ("data", *over))
        # Each shard sends each other one its part: compilers for some TPUs make of a `psum_scatter` a sum that all
        # devices hold whole, which sends twice as much.
        parts = jax.lax.all_to_all(x, over, 0, 0, tiled=True)
        own = jnp.sum(parts.reshape(_parts(mesh, over), -1, *x.shape[1:]), axis=0)
        return jax.lax.psum(own, "data")

    def whole(weight: Array, dtype: jax.typing.DTypeLike, *axes: str | None) -> Array:
        """Cast where it lies and only then gathered: of a float32 weight half as many bytes cross the network."""
        cast = jax.lax.with_sharding_constraint(weight.astype(dtype), sharding(mesh, axes, weight.shape))
        held = jax.lax.optimization_barrier(cast)  # or XLA would gather first and cast then
        return jax.lax.with_sharding_constraint(held, sharding(mesh, axes, weight.shape, DECODE_RULES))

    return RowShards(row_shards(mesh), mesh.shape["sequence"], run, total, embed, whole)


def unconstrained(x: Array, *axes: str | None) -> Array:
    """The `constrain` of a single device: returns `x`."""
    del axes
    return x


def leading_rows(mesh: Mesh, shape: tuple[int, ...], name: str = "rows") -> NamedSharding:
    """The sharding of an array whose first axis has this logical name, as `put_rows` places it."""
    return sharding(mesh, (name, *[None] * (len(shape) - 1)), shape) if shape else replicated(mesh)


def put_rows(mesh: Mesh, tree: PyTree, name: str = "rows") -> PyTree:
    """Places host arrays, which every process holds whole, their first axis, of this logical name, being split."""

    def put(leaf: Any) -> Array:
        leaf = np.asarray(leaf)
        with jax.transfer_guard("allow"):  # to JAX what a callback returns is no named transfer
            return jax.make_array_from_callback(
                leaf.shape, leading_rows(mesh, leaf.shape, name), lambda index: leaf[index]
            )

    return jax.tree.map(put, tree)


def put_replicated(mesh: Mesh, tree: PyTree) -> PyTree:
    """Places host arrays on every device of the mesh."""
    everywhere = replicated(mesh)

    def put(leaf: Any) -> Array:
        if jax.process_count() == 1:
            return jax.device_put(leaf, everywhere)
        # What is the same on all hosts is not compared once more, nor sent: NaN would not be equal to NaN.
        leaf = np.asarray(leaf)
        with jax.transfer_guard("allow"):
            return jax.make_array_from_callback(leaf.shape, everywhere, lambda index: leaf[index])

    return jax.tree.map(put, tree)
