"""A run that was interrupted, in whatever way, ends bit for bit as one that was not."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from directories import load_arrays

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.checkpoints import finished_steps
from lilo_jax.storage.digest import digests
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.run import learning_curve, run

DETERMINISTIC = ("metrics", "eval", "ledger")

KILLED_RUN = """
import os, signal, sys
from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.training.run import run
from lilo_jax.training.recorder import Recorder
import pathlib

config, output, at = configuration.load(pathlib.Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
write_step = Recorder.write_step

def write_step_or_die(self, step, *args):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)
    write_step(self, step, *args)

Recorder.write_step = write_step_or_die
run(config, Launch(output_dir=output))
"""


def assert_same_run(directory: RunDirectory, expected: RunDirectory) -> None:
    found, wanted = digests(directory), digests(expected)
    assert found == wanted
    assert load_arrays(directory.checkpoints_path)[0] == 20
    assert len(found) > 20
    for name in DETERMINISTIC:
        assert (directory.path / f"{name}.jsonl").read_text() == (expected.path / f"{name}.jsonl").read_text()
    assert directory.rollouts() == expected.rollouts()
    assert directory.is_done()


def stopped(config, path: pathlib.Path, at: int) -> RunDirectory:
    result = run(config, Launch(output_dir=str(path), stop_at=at))
    assert not result.done
    assert int(result.state.step) == at
    assert not result.directory.is_done()
    return result.directory


@pytest.fixture(scope="module")
def stopped_run(tiny_run, tmp_path_factory):
    """A run stopped after 10 steps; copy it before going on."""
    return stopped(tiny_run[0], tmp_path_factory.mktemp("stopped") / "run", at=10)


@pytest.fixture
def interrupted(stopped_run, tmp_path):
    return RunDirectory(shutil.copytree(stopped_run.path, tmp_path / "run"))


def test_the_run_has_something_to_compare(tiny_run):
    """Losses move, checkpoints hold weights, optimiser, critic and curriculum."""
    _, directory = tiny_run
    for name in ("loss/value", "policy/gradient_norm"):
        assert len({record[name] for record in directory.read("metrics")}) == 20
    assert any(record["curriculum/collected_success_mean"] > 0 for record in directory.read("metrics"))
    assert [r["step"] for r in directory.read("metrics")] == list(range(20))
    assert [r["step"] for r in directory.read("ledger")] == list(range(20))
    assert [(r["step"], r["split"]) for r in directory.read("eval")] == [
        (step, split) for step in (0, 5, 10, 15, 20) for split in ("validation", "test")
    ]
    names = set(digests(directory))
    assert {
        "step",
        "record",
        "policy/params/head",
        "critic/params/head",
        "curriculum/visits",
    } <= names
    assert any(name.startswith("policy/optimizer/") for name in names)


@pytest.mark.slow
def test_stopped_and_resumed_run_equals_the_uninterrupted_one(tiny_run, interrupted):
    config, expected = tiny_run
    assert load_arrays(interrupted.checkpoints_path)[0] == 10
    assert len(interrupted.read("metrics")) == 10
    assert run(config, Launch(output_dir=str(interrupted.path), resume="must")).done
    assert_same_run(interrupted, expected)


@pytest.mark.slow
def test_stopping_between_checkpoints_and_evaluations_changes_nothing(tiny_run, tmp_path):
    config, expected = tiny_run
    directory = stopped(config, tmp_path / "run", at=7)
    assert load_arrays(directory.checkpoints_path)[0] == 7
    stopped(config, tmp_path / "run", at=13)
    run(config, Launch(output_dir=str(directory.path)))
    assert_same_run(directory, expected)


@pytest.mark.slow
def test_damage_that_a_crash_leaves_is_repaired(tiny_run, interrupted):
    """Records beyond the checkpoint, a last line cut short, a checkpoint that was never finished, a stale rollout."""
    config, expected = tiny_run
    steps_after = [json.dumps(r) + "\n" for r in expected.read("metrics")[10:12]]
    with open(interrupted.path / "metrics.jsonl", "a") as file:
        file.write("".join(steps_after) + steps_after[0][:37])
    with open(interrupted.path / "eval.jsonl", "a") as file:
        file.write('{"step": 10, "spl')
    (interrupted.path / "rollouts" / "step_000011.jsonl").write_text('{"question": 1}\n')
    unfinished = interrupted.checkpoints_path / "15.orbax-checkpoint-tmp-1700000000000000"
    shutil.copytree(interrupted.checkpoints_path / "10" / "state", unfinished / "state")
    assert len(interrupted.read("metrics")) == 10  # what has no checksum is not believed
    assert load_arrays(interrupted.checkpoints_path)[0] == 10
    run(config, Launch(output_dir=str(interrupted.path)))
    assert_same_run(interrupted, expected)


@pytest.fixture(scope="module")
def killed_run(tiny_run, tmp_path_factory):
    """A run in a process of its own that was killed with SIGKILL in step 12, the last checkpoint being of step 9."""
    config = configuration.replace(tiny_run[0], storage__save_every=3)
    root = tmp_path_factory.mktemp("killed")
    (root / "config.json").write_text(json.dumps(configuration.to_dict(config)))
    command = [sys.executable, "-c", KILLED_RUN, str(root / "config.json"), str(root / "run"), "11"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    return config, RunDirectory(root / "run")


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_end(tiny_run, killed_run):
    config, directory = killed_run
    assert not directory.is_done()
    assert 9 <= len(directory.read("metrics")) <= 11
    assert any((directory.checkpoints_path / step).is_dir() for step in ("6", "9"))
    run(config, Launch(output_dir=str(directory.path)))
    assert_same_run(directory, tiny_run[1])


def test_a_finished_run_is_left_alone(tiny_run):
    config, directory = tiny_run
    before = {p: p.stat().st_mtime_ns for p in sorted(directory.path.rglob("*")) if p.is_file()}
    result = run(config, Launch(output_dir=str(directory.path)))
    assert result.done
    assert result.state is None
    assert {p: p.stat().st_mtime_ns for p in sorted(directory.path.rglob("*")) if p.is_file()} == before


def test_stopping_before_the_step_reached_is_refused(tiny_run, interrupted):
    with pytest.raises(UsageError, match="already at step 10, beyond --stop-at 5"):
        run(tiny_run[0], Launch(output_dir=str(interrupted.path), stop_at=5))


@pytest.mark.slow
def test_fine_tuning_in_the_run_directory_gives_the_same_as_before_it(tiny_config, tiny_run, tmp_path):
    """`model.path` names the start and changes no number; `--resume never` allows a new directory."""
    config, expected = tiny_run
    own = run(tiny_config, Launch(output_dir=str(tmp_path / "run"), resume="never")).directory
    assert_same_run(own, expected)
    assert (own.path / "sft" / "DONE").exists()
    assert digests(RunDirectory(own.path / "sft")) == digests(RunDirectory(config.model.path))


@pytest.mark.slow
def test_another_seed_is_another_run(tiny_run, tmp_path):
    config, expected = tiny_run
    other = run(configuration.replace(config, seed=1), Launch(output_dir=str(tmp_path / "run"))).directory
    ours, theirs = digests(other), digests(expected)
    assert ours["policy/params/head"] != theirs["policy/params/head"]
    assert digests(expected) == theirs
    assert other.read("metrics")[0] != expected.read("metrics")[0]


# ------------------------------------------------------------------------------------------------------ learning curve
def test_learning_curve_is_read_from_the_records(tiny_run):
    _, directory = tiny_run
    curve = learning_curve(directory, "test")
    assert curve["steps"].tolist() == [0, 5, 10, 15, 20]
    assert curve["accuracy"].tolist() == [r["accuracy"] for r in directory.read("eval") if r["split"] == "test"]
    ledger, timings = directory.read("ledger"), directory.read("timings")
    for step, tokens, seconds in zip(curve["steps"], curve["generated_tokens"], curve["seconds"], strict=True):
        rollouts = [r for s, records in directory.rollouts().items() if s < step for r in records]
        assert tokens == sum(r["tokens"] for r in rollouts)
        assert tokens == (ledger[step - 1]["train/generated"] + ledger[step - 1]["rejected/generated"] if step else 0)
        spent = [v for r in timings[:step] for phase, v in r.items() if phase not in ("step", "compile", "workers")]
        assert seconds == pytest.approx(sum(spent))
        if step:
            flops = sum(n for name, n in ledger[step - 1].items() if name in ("train/flops", "rejected/flops"))
            assert curve["flops"][curve["steps"] == step] == flops > 0
            trained = ledger[step - 1]["train/trained"]
            assert curve["trained_tokens"][curve["steps"] == step] == trained > 0
    graded = [r["seconds"] for r in directory.read("grading")]
    assert curve["grader_seconds"] == pytest.approx([sum(graded[:step]) for step in curve["steps"]])
    assert set(curve) == {*BUDGETS, "accuracy"}
    assert np.all(np.diff(curve["generated_tokens"]) > 0)
    assert np.all(np.diff(curve["seconds"]) > 0)
    with pytest.raises(RunError, match="no evaluation on 'longer'"):
        learning_curve(directory, "longer")


def test_learning_curve_of_a_stopped_run_ends_where_it_stopped(stopped_run, tiny_run):
    curve, whole = learning_curve(stopped_run, "validation"), learning_curve(tiny_run[1], "validation")
    assert curve["steps"].tolist() == [0, 5, 10]
    for name in ("generated_tokens", "accuracy"):
        assert curve[name].tolist() == whole[name][:3].tolist()


@pytest.mark.slow
def test_steps_that_take_long_are_saved_by_the_clock(tiny_run, tmp_path):
    config = configuration.replace(
        tiny_run[0], num_steps=3, storage__save_every=1000, storage__save_every_seconds=1e-6, storage__keep=9
    )
    assert run(config, Launch(output_dir=str(tmp_path / "run"))).done
    assert finished_steps(tmp_path / "run" / "checkpoints") == [0, 1, 2, 3]
    config = configuration.replace(config, storage__save_every_seconds=1e6)
    assert run(config, Launch(output_dir=str(tmp_path / "other"))).done
    assert finished_steps(tmp_path / "other" / "checkpoints") == [0, 3]
