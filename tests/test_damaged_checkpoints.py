"""A checkpoint that was changed in any way is refused by name or is read as it was, and an earlier one is offered."""

import pathlib
import shutil

import numpy as np
import pytest
from directories import load_arrays

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.checkpoints import Checkpoints, finished_steps, read_record, stream_arrays
from lilo_jax.storage.digest import digests
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.run import run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(path, arrays, record) of two small checkpoints, of which the newer is meant."""
    path, rng = tmp_path_factory.mktemp("saved") / "checkpoints", np.random.default_rng(0)
    state = {"weights": rng.standard_normal((8, 16)).astype(np.float32), "count": np.int32(3), "mask": np.ones(5, bool)}
    with Checkpoints(path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state, {"ledger": {"train/generated": 17}})
    return path, state, read_record(path, 2)


def damages(content, rng):
    """Flipped bits, cuts and None for a deletion."""
    for _ in range(12):
        changed = bytearray(content)
        if content:
            changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
            yield bytes(changed)
    yield content[: len(content) // 2]
    yield b""
    yield None


def test_every_file_of_a_checkpoint_is_guarded(saved, tmp_path):
    """Either nothing that is read has changed, or there is one sentence that names the checkpoint."""
    path, state, record = saved
    copy, rng, refused = pathlib.Path(shutil.copytree(path, tmp_path / "copy")), np.random.default_rng(1), 0
    files = [file for file in (copy / "2").rglob("*") if file.is_file()]
    assert len(files) >= 6
    for file in files:
        content = file.read_bytes()
        for changed in damages(content, rng):
            file.unlink() if changed is None else file.write_bytes(changed)
            error = ""
            try:
                arrays, found = dict(stream_arrays(copy, 2)), read_record(copy, 2)
            except RunError as refusal:
                error, refused = str(refusal), refused + 1
            if error:
                assert f"{copy}/2 " in error
                assert "\n" not in error
                continue
            assert found == record
            assert arrays.keys() == state.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, state[name])
                assert array.dtype == state[name].dtype
        file.write_bytes(content)
    assert refused >= 2 * len(files)
    assert read_record(copy, 2) == record


def test_an_array_under_another_name_is_damage(saved, tmp_path):
    """Then orbax leaves out what it was asked for, without a word."""
    copy = pathlib.Path(shutil.copytree(saved[0], tmp_path / "copy"))
    file = copy / "2" / "state" / "_METADATA"
    file.write_bytes(file.read_bytes().replace(b"mask", b"masc"))
    with pytest.raises(RunError, match=r"/2 is damaged \(mask is not what was written\)"):
        dict(stream_arrays(copy, 2))


def test_a_prefix_is_checked_and_the_earlier_one_is_named(saved, tmp_path):
    path = saved[0]
    step, arrays, _ = load_arrays(path, "w")
    assert (step, list(arrays)) == (2, ["weights"])
    copy = pathlib.Path(shutil.copytree(path, tmp_path / "copy"))
    for data in (copy / "2" / "state").rglob("d/*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(
        RunError, match=r"checkpoints?.*/2 is damaged .*--resume previous goes on from an earlier one \(1\)"
    ):
        load_arrays(copy)
    shutil.rmtree(copy / "1")
    with pytest.raises(RunError, match="there is no earlier one"):
        load_arrays(copy)


@pytest.mark.slow
def test_resume_previous_moves_what_is_damaged_aside_and_ends_the_same(tiny_run, tmp_path):
    config, expected = tiny_run
    path = tmp_path / "run"
    directory = run(config, Launch(output_dir=str(path), stop_at=10)).directory
    assert finished_steps(directory.checkpoints_path) == [5, 10]
    largest = max((directory.checkpoints_path / "10").rglob("*"), key=lambda f: f.stat().st_size * f.is_file())
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(RunError, match=r"/10 is damaged .*--resume previous goes on from an earlier one \(5\)"):
        run(config, Launch(output_dir=str(path)))
    assert run(config, Launch(output_dir=str(path), resume="previous")).done
    assert [p.name for p in (path / "damaged").iterdir()] == ["10"]
    assert digests(directory) == digests(expected)
    for name in ("metrics", "eval", "ledger"):
        assert directory.read(name) == expected.read(name)


@pytest.mark.slow
def test_the_reference_is_read_again_from_where_the_run_started(tiny_run, tmp_path):
    """It is in no checkpoint; another start in its place is refused."""
    config, expected = tiny_run
    assert config.algorithm.build().needs_reference
    assert not any(name.startswith(("reference", "base")) for name in digests(expected))
    start = shutil.copytree(config.model.path, tmp_path / "start")
    moved = configuration.replace(config, model__path=str(start))
    directory = run(moved, Launch(output_dir=str(tmp_path / "run"), stop_at=5)).directory
    shutil.rmtree(start)
    other = configuration.replace(configuration.of_run(RunDirectory(config.model.path)), sft__steps=3)
    run(other, Launch(output_dir=str(start)))
    with pytest.raises(RunError, match="the model that the run started from has other weights now"):
        run(moved, Launch(output_dir=str(tmp_path / "run")))
    shutil.rmtree(start)
    shutil.copytree(config.model.path, start)
    assert run(moved, Launch(output_dir=str(tmp_path / "run"))).done
    assert digests(directory) == digests(expected)


def test_checkpoints_that_cannot_be_written_are_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints"
    with (
        pytest.raises(RunError, match=r"could not be written to .*: there is none yet"),
        Checkpoints(path, keep=1) as saving,
    ):
        saving.save(0, {"x": np.ones(3)}, {"ledger": float("nan")})
    with pytest.raises(UsageError, match="no finished checkpoint"):
        load_arrays(path)
