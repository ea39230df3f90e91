"""Programs compiled for a slice, and what the compiler says of them; what was compiled before is read from a file."""

import hashlib
import importlib.metadata
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from lilo_jax.device.reference import HOST_MEMORY
from lilo_jax.planning.collectives import largest, restored, traffic
from lilo_jax.planning.topology import GIB, Slice
from lilo_jax.storage.compilation_cache import cache_directory
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.types import PyTree

_USED = re.compile(r"(?:Used |total memory required for HLO temporaries \()([\d.]+)([KMGT]?)")
_ALLOCATION = re.compile(r"Size: ([\d.]+)([KMGT]?)\s+(?:.*?\n)*?\s+Shape: (\S+?\])")
_TENSOR = re.compile(r"tensor<((?:\d+x)+(?:f32|bf16|i32|ui32|i8|i1))>")
_WIDTHS = {"bf16": 2, "i8": 1, "i1": 1}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


class Compiled(NamedTuple):
    """What a program takes of each device, in bytes.

    Attributes:
        name: of the program.
        arguments, outputs, aliased, temporaries: aliased are outputs that take the place of arguments given away.
        peak: most that is held while it runs, its arguments included.
        traffic: what its collectives move; see `lilo_jax.planning.collectives.traffic`.
        buffers: its largest arrays, as text.
        fits: whether the compiler could make it at all.
    """

    name: str
    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    peak: int
    traffic: tuple[Any, ...]
    buffers: tuple[str, ...]
    fits: bool


def compiled(name: str, lower: Callable[[], jax.stages.Lowered], place: Slice) -> Compiled:
    """Compiles a program for a slice, or reads what was found when the same was compiled before.

    Args:
        name: of the program.
        lower: lowers it.
        place: the slice.
    """
    lowered, effort = lower(), jax.config.values["jax_exec_time_optimization_effort"]
    versions = [importlib.metadata.version("jax"), importlib.metadata.version("libtpu")]
    text = "\n".join([lowered.as_text(), place.name, str(place.mesh.devices.shape), str(effort), *versions])
    path = cache_directory() / "plans" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if path.is_file():
        return _restored(name, json.loads(path.read_text(encoding="utf-8")))
    found = _compile(name, lowered)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_json(found._asdict() | {"traffic": [part._asdict() for part in found.traffic]}))
    return found


def _restored(name: str, stored: dict[str, Any]) -> Compiled:
    own = {"name": name, "traffic": restored(stored["traffic"]), "buffers": tuple(stored["buffers"])}
    return Compiled(**stored | own)


def _compile(name: str, lowered: jax.stages.Lowered) -> Compiled:
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _too_large(name, str(error), lowered.as_text())
    memory: Any = program.memory_analysis()
    text = program.as_text() or ""
    return Compiled(
        name=name,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        traffic=tuple(traffic(text)),
        buffers=tuple(f"{size / GIB:.2f} GiB {shape} ({operation})" for size, shape, operation in largest(text, 3)),
        fits=True,
    )


def _too_large(name: str, error: str, written: str) -> Compiled:
    """What the compiler says of a program that it could not make; if it names no buffers, the largest as written.

    Args:
        name: of the program.
        error: of the compiler.
        written: the program before it was compiled; its arrays are those of a row shard in what row shards run, and
            elsewhere not divided yet.
    """
    used = _USED.search(error)
    peak = round(float(used[1]) * _UNITS[used[2]]) if used else 0
    listed = [f"{size} {unit}iB {shape}" for size, unit, shape in _ALLOCATION.findall(error)]
    if not listed:
        sizes = {found[0]: _written_size(found[1]) for found in _TENSOR.finditer(written)}
        ranked = sorted(((size, shape) for shape, size in sizes.items()), reverse=True)
        listed = [f"{size / GIB:.2f} GiB {shape}" for size, shape in ranked]
    return Compiled(name, 0, 0, 0, 0, peak, (), tuple(listed[:3]), fits=False)


def _written_size(shape: str) -> int:
    """Bytes of an array such as 30x32x1536xbf16."""
    *dimensions, dtype = shape.split("x")
    return math.prod(map(int, dimensions)) * _WIDTHS.get(dtype, 4)


def held(mesh_state: PyTree, *, on_host: bool = False) -> int:
    """Bytes that a tree of shapes with shardings takes of each device, or for each device of its host."""
    arrays = [x for x in jax.tree.leaves(mesh_state) if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)]
    leaves = [x for x in arrays if (x.sharding.memory_kind == HOST_MEMORY) == on_host]
    total = 0
    for leaf in leaves:
        size = leaf.dtype.itemsize
        for length in leaf.sharding.shard_shape(leaf.shape):
            size *= length
        total += size
    return total
