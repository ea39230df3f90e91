"""Opening a run's directory: one writer, the same config and questions, nothing begun again in silence."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from directories import opened

from lilo_jax import config as configuration
from lilo_jax.config import Launch, SftConfig
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.digest import digest_lines, digests
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.training.opening import LOCK, differing, open_run
from lilo_jax.training.run import run

HOLDER = """
import pathlib, sys, time
from lilo_jax.config import Config
from lilo_jax.training.opening import open_run

with open_run(sys.argv[1], Config(), "auto", {}):
    print("locked", flush=True)
    time.sleep(600)
"""


def holder(path):
    """A process that holds the lock of a run's directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.fixture
def copy(tiny_run, tmp_path):
    """(config, directory) of a copy of a finished run."""
    config, directory = tiny_run
    return config, RunDirectory(shutil.copytree(directory.path, tmp_path / "copy"))


def files_of(directory):
    return {p: p.read_bytes() for p in sorted(directory.path.rglob("*")) if p.is_file() and p.name != LOCK}


# ------------------------------------------------------------------------------------------------------------- lock
@pytest.mark.slow
def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path):
    first = holder(tmp_path / "run")
    try:
        for _ in range(2):
            with pytest.raises(UsageError, match=rf"process {first.pid} on .* \(since .*\) writes .*: wait for it"):
                opened(tmp_path / "run", configuration.Config())
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with open_run(tmp_path / "run", configuration.Config(), "auto", {}) as directory:
        assert str(os.getpid()) in (directory.path / LOCK).read_text()
        with pytest.raises(UsageError, match=f"process {os.getpid()} on"):
            opened(tmp_path / "run", configuration.Config())
    opened(tmp_path / "run", configuration.Config())


@pytest.mark.slow
def test_a_finished_run_needs_no_lock_and_no_right_to_write(copy):
    config, directory = copy
    before = files_of(directory)
    for path in (directory.path, *directory.path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert run(config, Launch(output_dir=str(directory.path))).done
        assert digest_lines(directory.path)
    finally:
        for path in (directory.path, *directory.path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert files_of(directory) == before


# ----------------------------------------------------------------------------------------------------------- places
def test_places_that_cannot_be_used_are_one_sentence(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a link to nothing"):
        opened(tmp_path / "dangling", configuration.Config())
    with pytest.raises(UsageError, match=r"cannot be used \(File name too long\): pass another --output-dir"):
        opened(tmp_path / ("x" * 300), configuration.Config())
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be used \(Not a directory\)"):
        opened(tmp_path / "file" / "run", configuration.Config())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="symbolic links"):
        opened(tmp_path / "run", configuration.Config())
    assert (tmp_path / "precious").read_text() == "years of work"


# --------------------------------------------------------------------------------------------- configs and questions
def test_what_was_chosen_is_named_before_the_fields(tiny_config):
    other = configuration.replace(
        tiny_config, curriculum=Uniform(), algorithm=Rloo(), optimizer__learning_rate=1.0, model__embed_dim=64, seed=4
    )
    found = differing(configuration.to_dict(tiny_config), configuration.to_dict(other))
    assert list(found.items()) == [
        ("algorithm", ("ppo", "rloo")),
        ("curriculum", ("lilo", "uniform")),
        ("model.embed_dim", (32, 64)),
        ("optimizer.learning_rate", (5e-4, 1.0)),
        ("seed", (0, 4)),
    ]
    moved = configuration.replace(tiny_config, mesh__data=4)
    assert differing(configuration.to_dict(tiny_config), configuration.to_dict(moved)) == {}


@pytest.mark.slow
def test_a_run_goes_on_to_more_steps_as_if_it_had_been_told_at_once(tiny_run, tmp_path):
    config, expected = tiny_run
    path = str(tmp_path / "run")
    short = run(configuration.replace(config, num_steps=10), Launch(output_dir=path)).directory
    assert short.done_steps() == 10
    assert run(config, Launch(output_dir=path)).done
    assert configuration.of_run(short) == config
    assert digests(short) == digests(expected)
    assert short.read("metrics") == expected.read("metrics")
    with pytest.raises(UsageError, match="num_steps is 20 there and 10 here"):
        run(configuration.replace(config, num_steps=10), Launch(output_dir=path))


def test_a_schedule_that_ends_with_the_run_cannot_go_on(tiny_config, tmp_path):
    config = configuration.replace(tiny_config, optimizer__schedule="cosine")
    opened(tmp_path / "run", config)
    with pytest.raises(UsageError, match="num_steps is 20 there and 40 here"):
        opened(tmp_path / "run", configuration.replace(config, num_steps=40))


# ---------------------------------------------------------------------------------------------- what was lost or cut
def test_checkpoints_lost_beside_done_or_beside_records_are_not_begun_again(copy):
    config, directory = copy
    shutil.rmtree(directory.checkpoints_path)
    before = files_of(directory)
    with pytest.raises(UsageError, match="no finished checkpoint"):
        run(config, Launch(output_dir=str(directory.path)))
    (directory.path / "DONE").unlink()
    with pytest.raises(RunError, match="records of steps and no finished checkpoint"):
        run(config, Launch(output_dir=str(directory.path)))
    (directory.path / "FAILED").unlink()
    shutil.rmtree(directory.checkpoints_path)
    del before[directory.path / "DONE"]
    after = files_of(directory)
    log = directory.path / "log.txt"
    assert {p: c for p, c in after.items() if p != log} == {p: c for p, c in before.items() if p != log}


@pytest.mark.slow
def test_the_newest_checkpoint_lost_beside_done_is_refused_by_every_reader(copy):
    config, directory = copy
    shutil.rmtree(directory.checkpoints_path / "20")
    for read in (
        lambda: run(config, Launch(output_dir=str(directory.path))),
        lambda: digest_lines(directory.path),
    ):
        with pytest.raises(RunError, match="done after 20 steps and its newest checkpoint is of step 15"):
            read()
    (directory.path / "DONE").unlink()
    expected = digests(RunDirectory(shutil.copytree(directory.path, directory.path.with_name("whole"))))
    run(config, Launch(output_dir=str(directory.path)))
    assert digests(directory) != expected  # of step 20 again, and no longer of 15


def test_a_changed_done_is_no_done(copy):
    config, directory = copy
    (directory.path / "DONE").write_text("2\x00 steps\n")
    with pytest.raises(RunError, match="DONE is damaged: delete it and go on"):
        run(config, Launch(output_dir=str(directory.path)))


def test_a_run_of_an_earlier_format_is_refused(copy):
    _, directory = copy
    (directory.path / "checksums.json").unlink()
    with pytest.raises(RunError, match=r"has no checksums\.json"):
        digest_lines(directory.path)


def test_lost_checksums_are_written_again_by_going_on(tiny_run, copy):
    config, directory = copy
    for name in ("checksums.json", "DONE"):
        (directory.path / name).unlink()
    assert run(config, Launch(output_dir=str(directory.path))).done
    assert digest_lines(directory.path) == digest_lines(tiny_run[1].path)


def test_killed_before_there_is_a_config_begins_again(tiny_config, tmp_path):
    directory = opened(tmp_path / "run", tiny_config)
    whole = files_of(directory)
    assert set(directory.files.state()) == {"config.json", "environment.json", "questions.jsonl"}
    directory.files.remove(["config.json"])
    again = opened(tmp_path / "run", tiny_config)
    assert set(files_of(again)) == set(whole)
    assert configuration.of_run(again) == tiny_config
    again.config_path.unlink()
    with pytest.raises(RunError, match=r"config\.json is missing"):
        opened(tmp_path / "run", tiny_config)


# -------------------------------------------------------------------------------------------------- other questions
QUESTIONS = [{"question": f"What is {i} plus {j}?", "answer": i + j} for i in range(6) for j in range(6)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """(config, directory) of a run over questions of a file, stopped after its first step."""
    root = tmp_path_factory.mktemp("asked")
    (root / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    config = configuration.Config(
        num_steps=3,
        task=Dataset(path=str(root / "q.jsonl")),
        sft=SftConfig(steps=2, batch=8),
        rollout=RolloutConfig(questions=2, samples=8, max_new_tokens=4),
        evaluation=EvaluationConfig(every=3, rows=16, samples=1),
    )
    return config, run(config, Launch(output_dir=str(root / "run"), stop_at=1)).directory


CHANGES = {
    "shuffled": (lambda rows: rows[::-1], "the order of "),
    "added": (lambda rows: [*rows, {"question": "What is 9 plus 9?", "answer": 18}], "1 question was added, `"),
    "removed": (lambda rows: rows[1:], "1 question is missing, `"),
    "replaced": (lambda rows: [{"question": "What is 0 plus 0?", "answer": 1}, *rows[1:]], "1 question was added, `"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_other_questions_are_refused_by_name(asked, tmp_path, change):
    """Held-out questions are drawn by hash, so a question more or less may move some: what came and went is named."""
    config, directory = asked
    changed, says = CHANGES[change]
    copy = shutil.copytree(directory.path, tmp_path / "run")
    before = files_of(RunDirectory(copy))
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed(QUESTIONS)))
    moved = configuration.replace(config, task__path=str(tmp_path / "q.jsonl"))
    with pytest.raises(UsageError, match="the questions are not those of the run") as refused:
        run(moved, Launch(output_dir=str(copy)))
    assert says in str(refused.value)
    assert files_of(RunDirectory(copy)) == before


@pytest.mark.slow
def test_the_same_questions_in_a_moved_file_go_on(asked, tmp_path):
    config, directory = asked
    ends = {}
    for name, path in {"there": config.task.path, "moved": tmp_path / "moved.csv"}.items():
        if name == "moved":
            lines = [f"{row['question']},{row['answer']}\n" for row in QUESTIONS]
            path.write_text("question,answer\n" + "".join(lines))
        copy = shutil.copytree(directory.path, tmp_path / name)
        assert run(configuration.replace(config, task__path=str(path)), Launch(output_dir=str(copy))).done
        ends[name] = digests(RunDirectory(copy))
    assert ends["there"] == ends["moved"]
    assert configuration.of_run(RunDirectory(tmp_path / "moved")).task.path == str(tmp_path / "moved.csv")
