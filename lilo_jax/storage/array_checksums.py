"""A checksum of an array is the sum of its shards' checksums: each host looks at its own shards, on any mesh.

    C(x) = sum of bits(x[i, j, ...]) a[i] b[j] ...  modulo 2^64

with an odd random number for every index of every axis, the same for all arrays.  A shard's part of the sum needs its
place in the array and nothing of the others.  Every weight is odd, so one changed bit always changes C; that other
changes cancel is as good as impossible.  It guards against damage, not against intent.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

MODULUS = 2**64


def checksums(arrays: Mapping[str, Any]) -> dict[str, str]:
    """`dtype[shape] C` of every array, by name; where arrays lie on several hosts, all must call it."""
    sums = np.array([_sum_here(array) for array in arrays.values()], np.uint64)
    spread = [isinstance(array, jax.Array) and not array.is_fully_addressable for array in arrays.values()]
    if any(spread):
        halves = multihost_utils.process_allgather(sums.view(np.uint32))  # JAX would cut what has 64 bits
        sums = np.where(spread, np.asarray(halves).view(np.uint64).sum(0, dtype=np.uint64), sums)
    return {name: f"{kind(array)} {found:016x}" for (name, array), found in zip(arrays.items(), sums, strict=True)}


def kind(array: Any) -> str:
    """`dtype[shape]`."""
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, np.shape(array)))}]"


def _sum_here(array: Any) -> int:
    """The sum over the shards of this process, each counted on one device alone."""
    if not isinstance(array, jax.Array):
        return _sum(np.asarray(array), (0,) * np.ndim(array))
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    return sum(_sum(_on_host(shard.data), _start(shard.index)) for shard in shards) % MODULUS


def _start(index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(part.start or 0 for part in index)


def _on_host(data: jax.Array) -> np.ndarray:
    """A shard's values.  It is asked through a handle that is forgotten: an array keeps what it has once given."""
    return jax.device_get(jax.make_array_from_single_device_arrays(data.shape, data.sharding, [data]))


def _sum(values: np.ndarray, start: tuple[int, ...]) -> int:
    """The part of C of a shard that begins at `start`, axis by axis from the last."""
    total = values.view(f"u{values.dtype.itemsize}")
    for axis in reversed(range(values.ndim)):
        weights = _weights(axis, start[axis] + values.shape[axis])[start[axis] :]
        total = np.einsum("...i,i->...", total, weights, dtype=np.uint64)
    return int(total)


@functools.lru_cache(maxsize=64)
def _weights(axis: int, size: int) -> np.ndarray:
    """The odd numbers of an axis's first `size` indices; NumPy promises this stream of bits for all versions."""
    return np.random.PCG64(axis).random_raw(size) | np.uint64(1)
