"""Checksums that shards add up to: a plain loop, what a change does to them, and other meshes."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from several_hosts import run
from virtual_devices import printed_by

from lilo_jax.storage.array_checksums import _sum, checksums

RNG = np.random.default_rng(0)
ARRAYS = {
    "weights": RNG.standard_normal((3, 4, 5)).astype(np.float32),
    "half": RNG.standard_normal((6, 2)).astype(jnp.bfloat16),
    "count": np.int32(-7),
    "mask": np.array([True, False, True]),
    "none": np.zeros((0, 3), np.float32),
    "wide": RNG.integers(2**62, size=9),
}


def by_hand(array):
    """The sum of bits times odd numbers, one element at a time, with whole numbers of any size."""
    array, total = np.asarray(array), 0
    weights = [[int(raw) | 1 for raw in np.random.PCG64(axis).random_raw(n)] for axis, n in enumerate(array.shape)]
    for place in itertools.product(*map(range, array.shape)):
        term = int.from_bytes(array[place].tobytes(), "little")
        for axis, index in enumerate(place):
            term *= weights[axis][index]
        total += term
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}] {total % 2**64:016x}"


@pytest.mark.parametrize("name", ARRAYS)
def test_a_checksum_is_the_sum_of_a_plain_loop(name):
    assert checksums({name: ARRAYS[name]}) == {name: by_hand(ARRAYS[name])}
    if name != "wide":  # JAX has 32 bits
        assert checksums({name: jnp.asarray(ARRAYS[name])}) == {name: by_hand(ARRAYS[name])}


def test_the_stream_of_weights_is_the_one_of_format_4():
    """Written down once: another NumPy must not read old checkpoints as damaged."""
    assert checksums({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}) == {"x": "float32[2,3] 22280d92a2e00000"}


def test_parts_add_up_wherever_they_are_cut():
    x = ARRAYS["weights"]
    for rows, columns in itertools.product((1, 2), (1, 4)):
        cuts = [((0, 0, 0), x[:rows, :, :columns]), ((rows, 0, 0), x[rows:, :, :columns])]
        cuts += [((0, 0, columns), x[:rows, :, columns:]), ((rows, 0, columns), x[rows:, :, columns:])]
        assert sum(_sum(part, start) for start, part in cuts) % 2**64 == _sum(x, (0, 0, 0))


def test_every_flipped_bit_and_every_exchange_shows():
    x = ARRAYS["weights"]
    found = {checksums({"x": x})["x"]}
    for place, bit in itertools.product(range(x.size), range(32)):
        changed = x.copy()
        changed.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
        found.add(checksums({"x": changed})["x"])
    assert len(found) == 1 + 32 * x.size
    swapped = [x[::-1], x[:, ::-1], x[:, :, ::-1], -x, x * 0, np.roll(x, 1), x.reshape(4, 3, 5), x.astype(np.float64)]
    found |= {checksums({"x": other})["x"] for other in swapped}
    assert len(found) == 1 + 32 * x.size + len(swapped)


EIGHT_DEVICES = """
    import json, sys
    import jax, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from lilo_jax.storage.array_checksums import checksums

    x = np.random.default_rng(1).standard_normal((8, 4, 6)).astype(np.float32)
    found = [checksums({"x": x})["x"]]
    for shape, spec in [((8, 1), P("a")), ((2, 4), P("a", "b")), ((2, 4), P(None, "b")), ((4, 2), P(("a", "b"))),
                        ((2, 4), P()), ((4, 2), P(None, None, "b"))]:
        mesh = Mesh(np.array(jax.devices()).reshape(shape), ("a", "b"))
        found.append(checksums({"x": jax.device_put(x, NamedSharding(mesh, spec))})["x"])
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_layout_on_eight_devices_changes_it():
    found = json.loads(printed_by(EIGHT_DEVICES, devices=8).splitlines()[-1])
    assert len(found) == 7
    assert len(set(found)) == 1


TWO_PROCESSES = """
    import pathlib
    import jax, numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from lilo_jax.processes import hosts
    from lilo_jax.storage.array_checksums import checksums
    from lilo_jax.storage.checkpoints import Checkpoints, restore_arrays, stream_arrays

    path = pathlib.Path(hosts.begin(sys.argv[1:])[0])
    values = {name: np.random.default_rng(i).standard_normal((8, 4)).astype(np.float32) for i, name in enumerate("abc")}
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("far", "near"))

    def placed(*specs):
        def put(x, spec):
            return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])
        return {name: put(x, spec) for (name, x), spec in zip(values.items(), specs)}

    state = placed(P("far", "near"), P(("near", "far")), P())
    assert checksums(state) == checksums(values)
    real, largest = multihost_utils.process_allgather, []
    multihost_utils.process_allgather = lambda x, **how: (largest.append(np.size(x)), real(x, **how))[1]
    with Checkpoints(path, keep=1) as saving:
        saving.save(1, state, {})
    wanted = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
              for name, x in placed(P(None, "far"), P("near"), P("far")).items()}
    found = restore_arrays(path, 1, wanted)
    for name, array in found.items():
        assert array.sharding == wanted[name].sharding
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, values[name][shard.index])
    assert largest and max(largest) <= 2 * len(values), largest  # no array went to another host
    if hosts.is_first():  # as with --resume previous, where the others wait
        for name, array in stream_arrays(path, 1):
            np.testing.assert_array_equal(array, values[name])
    hosts.wait()
    print("as it was", flush=True)
    sys.exit()
"""


@pytest.mark.slow
def test_two_processes_add_up_save_and_restore_their_own_shards(tmp_path):
    for printed in run([str(tmp_path / "checkpoints")], plant=TWO_PROCESSES):
        assert printed.splitlines()[-1] == "as it was"
