"""Runs, checkpoints, models and data in a bucket: one in memory, and a real server of S3 on this machine."""

import json
import os
import pathlib
import subprocess
import sys
import time

import fsspec
import jax
import jax.numpy as jnp
import pytest

from lilo_jax import cli
from lilo_jax.errors import RunError, UsageError
from lilo_jax.grading.journal import Journal
from lilo_jax.grading.judgement import Judgement
from lilo_jax.questions import Verdict
from lilo_jax.storage import hub, locks
from lilo_jax.storage.bucket_checkpoints import checkpoints_in
from lilo_jax.storage.buckets import PART, BucketPath
from lilo_jax.storage.checked_files import CheckedFiles
from lilo_jax.storage.checkpoints import COMMITTED, finished_steps, load_arrays, read_record, set_aside
from lilo_jax.storage.files import append_line, write_whole
from lilo_jax.storage.json_lines import check_new_directory, check_output, read_records, write_records
from lilo_jax.storage.paths import path_of
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks import TASKS

MEMORY = fsspec.filesystem("memory").__class__


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty bucket in memory; copies on this machine lie under `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MEMORY.store.clear()
    yield path_of("memory://bucket/runs")
    MEMORY.store.clear()


@pytest.fixture
def outage(monkeypatch):
    """A switch that makes the bucket unreachable, and reachable again."""
    gone = []

    def unless_gone(whole):
        def method(*args, **kwargs):
            if gone:
                raise RuntimeError("no route to the bucket\nand much more")  # of whatever kind a library has
            return whole(*args, **kwargs)

        return method

    for name in ("info", "ls", "cat_file", "pipe_file", "put_file", "get_file", "rm_file"):
        monkeypatch.setattr(MEMORY, name, unless_gone(getattr(MEMORY, name)))
    return gone


# --------------------------------------------------------------------------------------------------------------- paths
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/a", pathlib.Path("runs/a")),
        (pathlib.Path("/runs/a:b"), pathlib.Path("/runs/a:b")),
        ("file:///runs/a", pathlib.Path("/runs/a")),
        ("memory://bucket/a", BucketPath("memory://bucket/a")),
        (pathlib.Path("memory://bucket/a"), BucketPath("memory://bucket/a")),  # pathlib makes one slash of two
        (BucketPath("memory://bucket/a"), BucketPath("memory://bucket/a")),
    ],
)
def test_the_scheme_of_a_path_says_where_it_is(text, found):
    assert path_of(text) == found
    assert type(path_of(text)) is type(found)


def test_a_path_in_a_bucket_is_written_as_its_address():
    path = path_of("memory://bucket/runs") / "seed_0" / "metrics.jsonl"
    assert str(path) == f"{path}" == "memory://bucket/runs/seed_0/metrics.jsonl"
    assert (path.name, path.stem, path.parent.name) == ("metrics.jsonl", "metrics", "seed_0")
    assert path.relative_to(path_of("memory://bucket/runs")).as_posix() == "seed_0/metrics.jsonl"
    with pytest.raises(TypeError, match="no file of this machine"):
        os.stat(path)


@pytest.mark.parametrize(
    ("address", "package", "says"),
    [
        ("gs://bucket/run", "gcsfs", r'gs://bucket/run needs a package .* pip install "lilo-jax\[gcs\]"$'),
        ("s3://bucket/run", "s3fs", r's3://bucket/run needs a package .* pip install "lilo-jax\[s3\]"$'),
        ("abfs://bucket/run", "adlfs", r"abfs://bucket/run needs a package .* adlfs "),
        ("foo://bucket/run", None, r"foo:// is no scheme that fsspec knows"),
        ("memory://", None, r"names no bucket"),
    ],
)
def test_what_cannot_be_a_bucket_is_refused_in_one_line(address, package, says, monkeypatch, tmp_path, capsys):
    """No directory is made of it, wherever it is given."""
    monkeypatch.chdir(tmp_path)
    if package:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    for look in (RunDirectory, path_of, hub.local_directory):
        with pytest.raises(UsageError, match=says):
            look(address)
    monkeypatch.setattr(sys, "argv", ["lilo", "report", address, "--output", "report.html"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err.strip()
    assert (caught.value.code, len(err.splitlines())) == (2, 1)
    assert not any(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- files
def test_a_file_that_grows_lies_in_parts_and_is_read_as_one(bucket):
    file, whole = bucket / "metrics.jsonl", b""
    assert not file.exists()
    for i in range(50):
        line = f"{i} {'x' * 4000}\n".encode()
        file.append(line)
        whole += line
        assert file.read_bytes() == whole
    parts = sorted(MEMORY.store)
    assert parts[0] == "/bucket/runs/metrics.jsonl/0000000000000000"
    assert [len(MEMORY.store[name].getvalue()) >= PART for name in parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) == 3  # and not fifty
    assert b"".join(MEMORY.store[name].getvalue() for name in parts) == whole
    assert (file.is_file(), file.is_dir(), [str(p) for p in bucket.rglob("*")]) == (True, False, [str(file)])

    for size in (100_000, 70_000, PART, 10, 0):  # in a part, at the end of one, and nothing
        file.write_at(size, b"")
        assert (file.read_bytes() if size else b"") == whole[:size]
    assert not file.exists()


def test_a_part_left_from_a_killed_process_does_not_count(bucket):
    """It was killed after it had cut the first part, before it deleted the second."""
    file = bucket / "metrics.jsonl"
    (file / "0000000000000000").write_bytes(b"one\n")
    (file / "0000000000070000").write_bytes(b"stale\n")
    assert file.read_bytes() == b"one\n"
    file.write_at(4, b"two\n")
    assert file.read_bytes() == b"one\ntwo\n"
    assert len(MEMORY.store) == 1


def test_checked_files_append_rewind_and_find_damage_as_on_a_disk(bucket, tmp_path):
    lines = [f'{{"step": {i}, "text": "{"x" * 30_000}"}}\n'.encode() for i in range(6)]
    (tmp_path / "disk").mkdir()
    for root in (tmp_path / "disk", bucket):
        files = CheckedFiles(root)
        for line in lines[:3]:
            files.append("metrics.jsonl", line)
        state = json.loads(json.dumps(files.state()))
        for line in lines[3:]:
            files.append("metrics.jsonl", line)
        files.write("rollouts/step_000004.jsonl", b"{}\n")
        assert CheckedFiles(root).read("metrics.jsonl") == b"".join(lines)

        files = CheckedFiles(root)  # of the process that goes on
        files.rewind(state)
        assert files.read("metrics.jsonl") == (root / "metrics.jsonl").read_bytes() == b"".join(lines[:3])
        assert not (root / "rollouts" / "step_000004.jsonl").exists()
        files.append("metrics.jsonl", lines[5])
        assert CheckedFiles(root).read("metrics.jsonl") == b"".join(lines[:3] + lines[5:])
    assert (bucket / "checksums.json").read_bytes() == (tmp_path / "disk" / "checksums.json").read_bytes()

    part = bucket / "metrics.jsonl" / "0000000000000000"
    part.write_bytes(part.read_bytes().replace(b"step", b"stop", 1))
    with pytest.raises(RunError, match=r"memory://bucket/runs/metrics\.jsonl is not what was written there"):
        CheckedFiles(bucket).read("metrics.jsonl")


def test_files_of_results_are_written_whole_and_read_back(bucket):
    output = bucket / "out.jsonl"
    check_output(output)
    write_records(output, [{"a": 1}, {"a": 2}])
    assert [record for _, record in read_records(output)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(ZeroDivisionError):
        write_records(output, ({"a": 1 // n} for n in (1, 0)))
    assert output.read_text() == '{"a": 1}\n{"a": 2}\n'
    check_new_directory(bucket / "model")
    with pytest.raises(UsageError, match="exists and is not empty"):
        check_new_directory(bucket)


def test_the_journal_asks_the_bucket_once_a_second(bucket, monkeypatch):
    requests, put = [], MEMORY.pipe_file
    monkeypatch.setattr(MEMORY, "pipe_file", lambda self, path, *args, **kwargs: (
        requests.append(path), put(self, path, *args, **kwargs))[1])  # fmt: skip
    journal = Journal(bucket / "verdicts")
    journal.turn_to(3)
    asked = [journal.ask(f"answer {i}") for i in range(100)]
    for one in asked:
        journal.write(one, Judgement(Verdict.TIMEOUT, extracted="7", rule="slow"))
    assert len(requests) <= 3
    journal.turn_to(4)
    again = Journal(bucket / "verdicts")
    again.turn_to(3)
    assert {again.known(one).verdict for one in asked} == {Verdict.TIMEOUT}
    again.forget_before(4)
    assert not (bucket / "verdicts").exists()


# ---------------------------------------------------------------------------------------------------------------- lock
def test_a_fresh_lock_of_another_is_refused_and_a_stale_one_taken_over(bucket, monkeypatch):
    (bucket / locks.LOCK).write_text("")  # damaged
    held = locks.lock(bucket)
    content = json.loads((bucket / locks.LOCK).read_text())
    held.check()

    def held_by(**changes):
        (bucket / locks.LOCK).write_text(json.dumps(content | {"mark": "other", "machine": "elsewhere"} | changes))

    held_by(owner="process 7 on elsewhere")
    with pytest.raises(UsageError, match=r"process 7 on elsewhere, last seen 0 s ago, writes memory://bucket/runs: "):
        locks.lock(bucket)
    held_by(renewed=time.time() - locks.STALE - 1)
    locks.lock(bucket).release()
    assert not (bucket / locks.LOCK).exists()
    ended = subprocess.Popen(["true"])
    ended.wait()
    held_by(machine=content["machine"], process=ended.pid)  # was killed here a second ago
    locks.lock(bucket).release()
    held.release()


def test_whoever_lost_its_lock_writes_no_more(bucket, monkeypatch):
    """Its machine slept while another one went on with the run."""
    monkeypatch.setattr(locks, "BEAT", 0.01)
    held, files = locks.lock(bucket), CheckedFiles(bucket)
    files.guard = held.check
    files.append("metrics.jsonl", b"{}\n")
    other = json.loads((bucket / locks.LOCK).read_text()) | {"mark": "other", "owner": "process 7 on elsewhere"}
    (bucket / locks.LOCK).write_text(json.dumps(other))
    time.sleep(0.2)
    with pytest.raises(RunError, match="process 7 on elsewhere has taken over memory://bucket/runs"):
        files.append("metrics.jsonl", b"{}\n")
    held.release()
    assert json.loads((bucket / locks.LOCK).read_text()) == other


# --------------------------------------------------------------------------------------------------------- checkpoints
def test_checkpoints_in_a_bucket_come_back_and_old_ones_go(bucket):
    path, state = bucket / "checkpoints", {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.int32(0)}
    with checkpoints_in(path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda x, s=step: x + s, state), {"step": step})
    assert finished_steps(path) == [2, 3]
    assert (read_record(path, 2), read_record(path, 3)) == ({"step": 2}, {"step": 3})
    (path / "4" / "state" / "part").write_bytes(b"cut short")  # by a kill
    assert finished_steps(path) == [2, 3]
    with checkpoints_in(path, keep=2) as checkpoints:
        assert not (path / "4").exists()
        restored = checkpoints.restore(3, state)
        checkpoints.save(3, state, {"step": "again"})  # is there already
    assert restored["w"].tolist() == [[3, 4, 5], [6, 7, 8]]
    step, arrays, record = load_arrays(path, "w")
    assert (step, record, arrays["w"].tolist()) == (3, {"step": 3}, [[3, 4, 5], [6, 7, 8]])


def test_a_damaged_checkpoint_in_a_bucket_is_named_and_moved_aside(bucket):
    path = bucket / "checkpoints"
    with checkpoints_in(path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"w": jnp.arange(1000.0) + step}, {"step": step})
    for file in (path / "2" / "state").rglob("*"):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"the checkpoint memory://bucket/runs/checkpoints/2 is damaged .* previous"):
        load_arrays(path)
    assert set_aside(path) == [2]
    assert finished_steps(path) == [1]
    assert (bucket / "damaged" / "2" / COMMITTED).exists()
    assert load_arrays(path)[1]["w"][0] == 1


# ------------------------------------------------------------------------------------------------------ models and data
def test_data_in_a_bucket_is_read_as_on_a_disk_and_again_when_it_changes(bucket, tmp_path):
    for name, count in (("train", 3), ("test", 2)):
        lines = [json.dumps({"question": f"{name} {i}?", "answer": str(i)}) for i in range(count)]
        for root in (tmp_path / "data", bucket / "data"):
            root.mkdir(parents=True, exist_ok=True)
            write_whole(root / f"{name}.jsonl", "\n".join(lines) + "\n")

    def texts(path):
        task = TASKS["dataset"](path=str(path)).build(0)
        return {split: [question.text for question in questions] for split, questions in task.splits.items()}

    assert texts(bucket / "data") == texts(tmp_path / "data")
    alone = texts(bucket / "data" / "train.jsonl")
    assert alone == texts(tmp_path / "data" / "train.jsonl")
    line = json.dumps({"question": "another?", "answer": "1"})
    write_whole(bucket / "data" / "train.jsonl", (bucket / "data" / "train.jsonl").read_text() + line + "\n")
    assert sum(map(len, texts(bucket / "data" / "train.jsonl").values())) == sum(map(len, alone.values())) + 1
    for number in range(4):  # a file that grew, as `lilo passrates` writes it
        append_line(bucket / "grown.jsonl", json.dumps({"question": f"{number}?", "answer": "1"}))
    assert sum(map(len, texts(bucket / "grown.jsonl").values())) == 4
    with pytest.raises(UsageError, match=r"no dataset in memory://bucket/runs/nothing"):
        texts(bucket / "nothing")


def test_a_bucket_that_cannot_be_reached_is_an_error_and_not_an_empty_one(bucket, outage):
    path = bucket / "checkpoints"
    with checkpoints_in(path, keep=2) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(3)}, {})
        checkpoints.wait()
        outage.append(True)
        for ask in (path.exists, path.is_dir, lambda: list(path.glob("*")), lambda: list(path.rglob("*"))):
            with pytest.raises(OSError, match="no route to the bucket: 'memory://bucket/runs/checkpoints'"):
                ask()
        with pytest.raises(OSError, match="no route"):
            finished_steps(path)
        checkpoints.save(2, {"w": jnp.ones(3)}, {})
        with pytest.raises(
            RunError, match=r"could not be written to memory://.* \(.*no route.*\): what was saved .* in"
        ):
            checkpoints.wait()
        outage.clear()
        assert finished_steps(path) == [1]
