"""Settings of every test: no network, one CPU device, and fixtures shared by several files."""

import importlib.metadata
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Most of a test's time is compilation: the compiler does not try hard.  It ends the process at a flag it does not know.
JAXLIB = tuple(int(number) for number in importlib.metadata.version("jaxlib").split(".")[:2])
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false" if JAXLIB < (0, 11) else "",  # halves the time of a compilation
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)
os.environ["NPROC"] = "1"  # threads of XLA: the test processes share the cores
# What one process of this test run has compiled, the others, which inherit the directory, need not.
OWN_CACHE = "LILO_JAX_TEST_CACHE" not in os.environ
if OWN_CACHE:
    os.environ["LILO_JAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="lilo_jax_tests_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["LILO_JAX_TEST_CACHE"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # what is broadcast is written

import pathlib

import jax
import numpy as np
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

CHECKED = ["curriculum", "keys", "models", "rl", "sampling", "simulation"]
"""Rooms whose signatures are checked in tests: shapes, dtypes and types of what goes in and comes out."""

install_import_hook([f"lilo_jax.{room}" for room in CHECKED], "signatures.checked")

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, ModelConfig, SftConfig, StorageConfig
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.run import run
from lilo_jax.training.sft import start_config


def pytest_unconfigure():
    """Removes what was compiled, unless another test run is to have it."""
    if OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def random_weights():
    """(tree of shapes, seed, deviation) -> float32 weights of those shapes, without compiling an initialiser.

    Normal, and norm scales scatter around 1, so that leaving one out would show.
    """

    def make(shapes, *, seed=0, deviation=0.25):
        rng = np.random.default_rng(seed)

        def weight(path, leaf):
            centre = 1.0 if path[-1].key == "scale" else 0.0
            return np.asarray(centre + deviation * rng.standard_normal(leaf.shape), np.float32)

        return jax.tree_util.tree_map_with_path(weight, shapes)

    return make


@pytest.fixture(scope="session")
def tiny_config():
    """A run of 20 steps of LILO with PPO that takes a second, once its programs are compiled.

    The model has one id more than the tokenizer, so that two devices can share the vocabulary.
    """
    return Config(
        num_steps=20,
        task=Chain(pool=64, validation=16, test=16, longer=8, demonstrations=200),
        model=ModelConfig(
            num_layers=1, embed_dim=32, num_heads=2, num_kv_heads=2, head_dim=16, mlp_dim=64, vocab_size=28
        ),
        sft=SftConfig(steps=150, batch=32),
        rollout=RolloutConfig(questions=4, samples=4),
        evaluation=EvaluationConfig(every=5, rows=16, splits=("validation", "test")),
        storage=StorageConfig(save_every=5, rollouts_every=1),
    )


@pytest.fixture(scope="session")
def run_once(tmp_path_factory, worker_id):
    """(config, name) -> the directory of its finished run, which all test processes share."""
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent

    def finished(config, name):
        directory = RunDirectory(root / name)
        with FileLock(root / f"{name}.turn"):
            if not directory.is_done():
                assert run(config, Launch(output_dir=str(directory.path))).done
        return directory

    return finished


@pytest.fixture(scope="session")
def tiny_start(tiny_config, run_once):
    """The directory of a fine-tuned tiny model, to start from."""
    return str(run_once(start_config(tiny_config), "tiny_start").path)


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tiny_start, run_once):
    """(config, directory) of a finished tiny run."""
    config = configuration.replace(tiny_config, model__path=tiny_start, sft__steps=0)
    return config, run_once(config, "tiny_run")


MOST_MAPS = 20_000
"""Memory maps of a process after which its compiled programs are dropped; Linux allows 65,530, and then it crashes."""


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Every compiled program takes memory maps, and a worker that goes through many modules compiles thousands."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MOST_MAPS:
        jax.clear_caches()
