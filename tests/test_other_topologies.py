"""A run that goes on with other devices and another number of processes, against one that was never broken."""

import json
import pathlib

import numpy as np
import pytest
from directories import load_arrays
from several_hosts import run
from test_mesh import arguments as command_line

from lilo_jax import config as configuration
from lilo_jax.storage.run_directory import RunDirectory

STAGES = [
    ({"processes": 1, "devices": 8}, "--mesh.data 2 --mesh.fsdp 2 --mesh.tensor 2"),
    ({"processes": 1, "devices": 4}, "--mesh.data 1 --mesh.fsdp 4 --mesh.tensor 1"),
    ({"processes": 2, "devices": 2}, "--mesh.data 2 --mesh.fsdp 2 --mesh.tensor 1"),
    ({"processes": 1, "devices": 2}, "--mesh.data 1 --mesh.fsdp 1 --mesh.tensor 2"),
]
"""Where each step of the broken run is taken: 8 devices, 4, 2 processes of 2, and 2 of one process."""


@pytest.fixture(scope="module")
def broken_and_whole(tiny_config, tiny_start, tmp_path_factory):
    """The directories of both runs; they start from a model whose frozen copy is read again at every stage."""
    config = configuration.replace(
        tiny_config, num_steps=len(STAGES), model__path=tiny_start, sft__steps=0, rollout__max_new_tokens=6,
        evaluation__every=2, evaluation__splits=("test",), update__minibatches=2, storage__save_every=1,
    )  # fmt: skip
    root, options = tmp_path_factory.mktemp("topologies"), command_line(config)
    for done, (where, mesh) in enumerate(STAGES, start=1):
        run([*options, *mesh.split(), "--stop-at", str(done), "--output-dir", str(root / "broken")], **where)
    run([*options, "--output-dir", str(root / "whole")], processes=1, devices=1)
    return RunDirectory(root / "broken"), RunDirectory(root / "whole")


@pytest.mark.slow
def test_it_asks_the_same_questions_and_draws_the_same_tokens(broken_and_whole):
    broken, whole = broken_and_whole
    assert broken.is_done()
    assert whole.is_done()
    assert broken.rollouts() == whole.rollouts()
    assert len(broken.rollouts()) == len(STAGES)
    assert broken.read("ledger") == whole.read("ledger")
    assert json.loads((broken.path / "environment.json").read_text())["processes"] == 1  # where it began


@pytest.mark.slow
def test_it_ends_with_the_same_weights_and_moments(broken_and_whole, tiny_start):
    (_, found, _), (_, expected, _) = (load_arrays(directory.checkpoints_path) for directory in broken_and_whole)
    _, before, _ = load_arrays(pathlib.Path(tiny_start) / "checkpoints", "policy/params/")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    moved = max(np.abs(expected[name] - array).max() for name, array in before.items())
    assert moved > 1e-4  # a hundred times what the two may differ in
