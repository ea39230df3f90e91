"""TPU slices by name, with the published figures of their chips."""

import functools
import os
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from lilo_jax.device.mesh import AXES, MeshConfig, laid_out, mesh_shape
from lilo_jax.errors import UsageError, unknown_name

GIB = 2**30


class _Chip(NamedTuple):
    """Published figures of a device, and the share of each that is taken to be reached.

    Attributes:
        memory: bytes of a device that programs may use.
        operations: bfloat16 operations a second.
        bandwidth: bytes of its memory a second.
        link: bytes a second that a device sends to all its neighbours together.
        watts: mean power of a chip; 0 where none is published.
    """

    memory: float
    operations: float
    bandwidth: float
    link: float
    watts: float = 0


CHIPS = {
    "v4": _Chip(30.75 * GIB, 275e12, 1228e9, 300e9, 170),
    "v5e": _Chip(15.75 * GIB, 197e12, 819e9, 200e9),
    "v5p": _Chip(95.74 * GIB, 459e12, 2765e9, 600e9),
    "v6e": _Chip(31.25 * GIB, 918e12, 1640e9, 448e9),
}
"""From Google Cloud's pages on its TPU versions; memory is what the compiler leaves to programs; watts from Jouppi et
al. 2023 (TPU v4, table 4)."""


class Slice(NamedTuple):
    """Devices to plan for.

    Attributes:
        name: of the topology, such as v5p:2x2x4.
        chip: what each device is.
        mesh: of its devices, which can compile and not run.
    """

    name: str
    chip: _Chip
    mesh: Mesh


def described(name: str, config: MeshConfig) -> Slice:
    """The slice of a name, its devices laid out as a mesh.

    Args:
        name: GENERATION:SHAPE, such as v5e:4x4.
        config: sizes of the axes.

    Raises:
        UsageError: the name or the sizes mean nothing, or the compiler for TPUs isn't installed.
    """
    generation, _, shape = name.partition(":")
    if generation not in CHIPS:
        raise unknown_name("TPU generation", generation, CHIPS)
    if not shape:
        raise UsageError(f"--topology is GENERATION:SHAPE, such as {generation}:2x4, not {name}")
    devices = _devices(name)
    try:
        sizes = mesh_shape(config, len(devices))
    except ValueError as error:
        raise UsageError(str(error)) from None
    laid = laid_out(sizes, devices)
    return Slice(name, CHIPS[generation], Mesh(laid, AXES, axis_types=(AxisType.Auto,) * len(AXES)))


@functools.cache
def _devices(name: str) -> tuple[jax.Device, ...]:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no machine to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # whatever libtpu, or its absence, raises
        if "libtpu" in str(error) or "No such" in str(error) or "not found" in str(error).lower():
            raise UsageError(
                'a plan needs the compiler for TPUs: pip install "lilo-jax[aot]" (it needs no TPU)'
            ) from None
        raise UsageError(f"no topology {name}: {' '.join(str(error).split())[:200]}") from None
    return tuple(np.array(found.devices).flat)
