"""Peak host memory of importing a random model of 2 GB from safetensors shards.

    python -m benchmarks.import_memory                   # on one device, and on eight virtual ones (fsdp 4, tensor 2)
    python -m benchmarks.import_memory --gigabytes 0.2   # a smaller one
    python -m benchmarks.import_memory --dtype float32   # stored as float32 instead of bfloat16

On a CPU the devices' memory is the host's: the float32 weights themselves are part of it.  What the import needs beyond
them is printed in bytes and as a multiple of the largest stored tensor.  Counted is anonymous memory, sampled by a
thread every few milliseconds; pages of the mapped files, which the system can drop at any time, are given apart.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import numpy as np

from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.json_lines import to_json

SHARD_BYTES = 500 * 10**6
MESHES = {1: (1, 1), 8: (4, 2)}
"""Devices to the sizes of fsdp and tensor."""


def write_model(directory: pathlib.Path, gigabytes: float, dtype: str) -> int:
    """Writes a random Llama of about this size; returns the bytes of its largest tensor."""
    import jax
    import ml_dtypes

    from lilo_jax.device.mesh import unconstrained
    from lilo_jax.models import build_model
    from lilo_jax.models.decoder import DecoderConfig
    from lilo_jax.models.huggingface import FAMILIES, write_config
    from lilo_jax.models.huggingface.safetensors_files import write_tensors
    from lilo_jax.models.huggingface.weights import stored_shapes

    stored = np.dtype({"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}[dtype])
    per_layer = 12.1e6  # weights of a layer of this width
    layers = max(round((gigabytes * 1e9 / stored.itemsize - 33e6) / per_layer), 1)
    config = DecoderConfig(
        num_layers=layers, embed_dim=1024, num_heads=16, num_kv_heads=8, head_dim=64, mlp_dim=2944, vocab_size=16_384
    )
    (directory / "config.json").write_text(to_json(write_config(config) | {"dtype": dtype}))
    params = jax.eval_shape(build_model(config, unconstrained).init, jax.random.key(0))
    shapes = stored_shapes(FAMILIES["llama"], params)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        for name, shape in shapes.items():
            yield name, (rng.standard_normal(shape, dtype=np.float32) * 0.02).astype(stored)

    write_tensors(directory, shapes, tensors(), dtype=dtype, shard_bytes=SHARD_BYTES)
    return max(int(np.prod(shape)) for shape in shapes.values()) * stored.itemsize


def resident() -> tuple[int, int]:
    """Anonymous and file-backed resident bytes of this process."""
    status = pathlib.Path("/proc/self/status").read_text()
    anonymous, mapped = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("RssAnon", "RssFile"))  # type: ignore[index]
    return anonymous * 1024, mapped * 1024


def import_model(directory: pathlib.Path, devices: int) -> dict[str, float]:
    """Imports in this process, and says what it took."""
    import jax

    from lilo_jax.device.mesh import MeshConfig, constrainer, make_mesh
    from lilo_jax.models import build_model
    from lilo_jax.pretrained.sources import decoder_config, open_model

    fsdp, tensor = MESHES[devices]
    mesh = make_mesh(MeshConfig(data=1, fsdp=fsdp, tensor=tensor))
    source = open_model(str(directory))
    model = build_model(decoder_config(source), constrainer(mesh))
    before, peak, done = resident(), [0, 0], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            peak[:] = map(max, peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    params = jax.block_until_ready(source.weights(model, mesh))
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    leaves = jax.tree.leaves(params)
    shards = [
        sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == d) for d in jax.devices()
    ]
    return {
        "devices": devices,
        "weights_bytes": sum(leaf.nbytes for leaf in leaves),
        "most_bytes_of_a_device": max(shards),
        "peak_bytes": peak[0] - before[0],
        "mapped_bytes": peak[1] - before[1],
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--import", dest="run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(to_json(import_model(pathlib.Path(arguments.run[0]), int(arguments.run[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        largest = write_model(pathlib.Path(directory), arguments.gigabytes, arguments.dtype)
        stored = sum(file.stat().st_size for file in pathlib.Path(directory).glob("*.safetensors"))
        for devices in MESHES:
            flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            command = [sys.executable, "-m", "benchmarks.import_memory", "--import", directory, str(devices)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            found = json.loads(printed.splitlines()[-1])
            beyond = found["peak_bytes"] - found["weights_bytes"]
            found |= {"beyond_weights_bytes": beyond, "beyond_in_largest_tensors": round(beyond / largest, 2)}
            print(to_json({"stored_bytes": stored, "largest_tensor_bytes": largest, **found}), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
