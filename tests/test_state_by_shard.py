"""What a host needs of memory to read, hand on and restore a model: less than all of it, measured in a process."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from virtual_devices import printed_by

from lilo_jax import config as configuration
from lilo_jax.errors import UsageError
from lilo_jax.pretrained.sources import RunModel, decoder_config, weight_shapes
from lilo_jax.storage.checkpoints import Checkpoints, newest
from lilo_jax.storage.run_directory import RunDirectory

MEASURED = """
    import ctypes, json, pathlib, re, shutil, sys
    import jax
    from lilo_jax.device.mesh import MeshConfig, constrainer, make_mesh
    from lilo_jax.models import build_model
    from lilo_jax.pretrained.export import export
    from lilo_jax.pretrained.sources import RunModel, decoder_config
    from lilo_jax.storage.checkpoints import newest, stream_arrays
    from lilo_jax.storage.digest import digests
    from lilo_jax.storage.run_directory import RunDirectory

    path, output = map(pathlib.Path, sys.argv[1:3])
    source = RunModel(path)
    size = int(sys.argv[3])

    def kilobytes(name):
        return int(re.search(rf"{name}:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])

    def grown(function):
        function()  # what is compiled and kept by libraries is there after the first time
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = kilobytes("VmRSS")
        kept = function()
        return (kilobytes("VmHWM") - before) * 1024

    def weights():
        mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
        return jax.block_until_ready(source.weights(build_model(decoder_config(source), constrainer(mesh)), mesh))

    def written():
        shutil.rmtree(output, ignore_errors=True)
        return export(str(path), output, shard_bytes=size // 3)

    step = newest(source.checkpoints)
    print(json.dumps({
        "everything kept": grown(lambda: dict(stream_arrays(source.checkpoints, step))),
        "one after the other": grown(lambda: [array.sum() for _, array in stream_arrays(source.checkpoints, step)]),
        "digests": grown(lambda: digests(RunDirectory(path))),
        "export": grown(written),
        "weights": grown(weights),
    }))
"""


@pytest.fixture(scope="module")
def large(tiny_start, tmp_path_factory):
    """(directory, bytes of each of its weights) of a run with a model of 190 MB, of nine weights of nearly one size."""
    path = pathlib.Path(shutil.copytree(tiny_start, tmp_path_factory.mktemp("large") / "run"))
    directory = RunDirectory(path)
    config = configuration.of_run(directory)
    sizes = {
        "num_layers": 20, "embed_dim": 512, "num_heads": 8, "num_kv_heads": 8, "head_dim": 64, "mlp_dim": 512,
        "vocab_size": 10_240, "tie_embeddings": False,
    }  # fmt: skip
    larger = configuration.replace(config, **{f"model__{name}": size for name, size in sizes.items()})
    directory.store_config(configuration.to_dict(larger))
    shapes, rng = weight_shapes(decoder_config(RunModel(path))), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    step = newest(directory.checkpoints_path)
    shutil.rmtree(directory.checkpoints_path)
    with Checkpoints(directory.checkpoints_path, keep=1) as checkpoints:
        checkpoints.save(step, {"policy": {"params": params}}, {"ledger": {}})
    return path, [leaf.nbytes for leaf in jax.tree.leaves(params)]


@pytest.mark.slow
def test_no_reader_holds_the_model_but_who_asks_for_all_of_it(large, tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")  # freed is given back, as it is of larger weights anyway
    path, sizes = large
    model, largest = sum(sizes), max(sizes)
    assert model > 8 * largest
    found = json.loads(printed_by(MEASURED, path, tmp_path / "exported", model, devices=8).splitlines()[-1])
    assert found["everything kept"] > 0.8 * model  # so the measure sees what is held
    for name in ("one after the other", "digests", "export"):
        assert found[name] < 4.5 * largest, found  # the weight before, and the next while orbax decodes it
    assert found["weights"] < 1.6 * model, found  # all devices are this host's: the weights once, and not a second time


@pytest.mark.slow
def test_a_critic_that_was_never_trained_is_refused(large):
    model = RunModel(large[0])
    with pytest.raises(UsageError, match="holds no critic: its algorithm trains none"):
        list(model.stream_at(newest(model.checkpoints), "critic"))
