"""How devices are laid out as a mesh: slices and hosts by hand, with fake devices, and two slices of libtpu."""

import dataclasses
import importlib.util
import os

import numpy as np
import pytest
from jax.experimental import mesh_utils

from lilo_jax.device.mesh import laid_out, slow_axes
from lilo_jax.errors import UsageError


@dataclasses.dataclass(frozen=True, order=True)
class Gpu:
    """What JAX tells of a device of a cluster, where hosts are what links divide."""

    id: int
    process_index: int
    platform: str = "gpu"
    device_kind: str = "fake"


@dataclasses.dataclass(frozen=True, order=True)
class Chip:
    """What JAX tells of a chip of a topology that is only described: its host, but no slice."""

    id: int
    coords: tuple[int, int, int]
    process_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "fake"


@dataclasses.dataclass(frozen=True, order=True)
class Tpu(Chip):
    """What JAX tells of a chip of a slice."""

    slice_index: int = 0


def hosts(*counts):
    owners = [host for host, count in enumerate(counts) for _ in range(count)]
    return [Gpu(number, host) for number, host in enumerate(owners)]


def slices(count, x, y):
    """Slices of x * y chips, their devices mixed."""
    places = [(s, (i, j, 0)) for i in range(x) for j in range(y) for s in range(count)]
    return [Tpu(number, coords, slice_index=s) for number, (s, coords) in enumerate(places)]


def crossed(mesh, name):
    """Over how many slices or hosts each axis goes."""
    owner = np.vectorize(lambda device: getattr(device, name), otypes=[int])(mesh)
    return tuple(
        max(len(set(line)) for line in np.moveaxis(owner, a, -1).reshape(-1, owner.shape[a])) for a in range(4)
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 4, 1, 1), (2, 1, 1, 1)),
        ((4, 2, 1, 1), (2, 1, 1, 1)),
        ((8, 1, 1, 1), (2, 1, 1, 1)),
        ((2, 1, 1, 4), (2, 1, 1, 1)),
        ((1, 8, 1, 1), (1, 2, 1, 1)),
        ((1, 2, 1, 4), (1, 2, 1, 1)),
        ((1, 1, 1, 8), (1, 1, 1, 2)),
    ],
)
def test_the_outermost_axis_that_can_takes_the_slow_links(shape, expected):
    for name, devices in (("process_index", hosts(4, 4)), ("slice_index", slices(2, 2, 2))):
        mesh = laid_out(shape, devices)
        assert mesh.shape == shape
        assert sorted(mesh.flat) == sorted(devices)
        assert crossed(mesh, name) == expected
        told = list(slow_axes(shape, devices))
        assert len(told) == (expected[1] > 1) + (expected[3] > 1)
        if told:
            assert told[0].startswith(f"--mesh.{'fsdp' if expected[1] > 1 else 'tensor'} spans 2 ")
            assert ("hosts" if name == "process_index" else "slices") in told[0]
            assert "--mesh.data a multiple of 2" in told[0]


def test_slow_links_are_shared_out_where_data_cannot_take_all():
    """Six hosts, data 2 x fsdp 3 x tensor 4: data goes over two of them, fsdp over three."""
    assert crossed(laid_out((2, 3, 1, 4), hosts(4, 4, 4, 4, 4, 4)), "process_index") == (2, 3, 1, 1)


def test_hosts_of_one_slice_are_not_divided():
    """The chips of a slice have fast links whatever hosts they are on: here by rows, and an axis goes down columns."""
    devices = [Tpu(4 * i + j, (i, j, 0), process_index=i) for i in range(4) for j in range(4)]
    assert not list(slow_axes((1, 4, 1, 4), devices))
    assert sorted(crossed(laid_out((1, 4, 1, 4), devices), "process_index")) == [1, 1, 1, 4]


def test_a_described_slice_is_laid_out_as_the_slice_itself():
    """8 x 8 chips on hosts of 2 x 2: an axis of 4 goes along a side of the slice, not around a host."""
    places = [(i, j, 0) for j in range(8) for i in range(8)]
    described = [Chip(n, (i, j, k), i // 2 + 4 * (j // 2)) for n, (i, j, k) in enumerate(places)]
    real = [Tpu(chip.id, chip.coords, chip.process_index) for chip in described]
    mesh, expected = laid_out((1, 16, 1, 4), described), laid_out((1, 16, 1, 4), real)
    assert [chip.id for chip in mesh.flat] == [chip.id for chip in expected.flat]
    assert [chip.coords for chip in mesh[0, 0, 0]] == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert list(slow_axes((1, 16, 1, 4), described)) == list(slow_axes((1, 16, 1, 4), real))


def test_a_physical_axis_is_split_where_it_must_be_and_that_is_told():
    devices = slices(1, 4, 2)
    with pytest.raises(NotImplementedError):  # of 4 x 2 chips no axes of 2, 2 and 2
        mesh_utils.create_device_mesh((2, 2, 2), devices)
    mesh = laid_out((2, 2, 1, 2), devices)
    assert sorted(mesh.flat) == sorted(devices)
    [told] = slow_axes((2, 2, 1, 2), devices)
    assert "cannot be dealt out to data 2, fsdp 2, sequence 1, tensor 2" in told
    assert not list(slow_axes((1, 4, 1, 2), devices))


def test_unequal_hosts_are_refused():
    with pytest.raises(UsageError, match="from 2 to 4 devices each"):
        laid_out((6, 1, 1, 1), hosts(4, 2))


@pytest.mark.slow
def test_two_slices_of_libtpu():
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("needs libtpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4", num_slices=2).devices
    assert len(devices) == 16
    assert crossed(laid_out((2, 4, 1, 2), devices), "slice_index") == (2, 1, 1, 1)
    assert crossed(laid_out((1, 16, 1, 1), devices), "slice_index") == (1, 2, 1, 1)
    assert not list(slow_axes((2, 2, 1, 4), devices))
