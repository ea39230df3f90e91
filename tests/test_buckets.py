"""Runs, checkpoints, models and data in a bucket: one in memory, and a real server of S3 on this machine."""

import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import fsspec
import jax
import jax.numpy as jnp
import pytest
from directories import load_arrays
from test_resume import KILLED_RUN, assert_same_run

from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import RunError, UsageError
from lilo_jax.grading.journal import Journal
from lilo_jax.grading.judgement import Judgement
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.questions import Verdict
from lilo_jax.storage import hub, locks
from lilo_jax.storage.bucket_checkpoints import checkpoints_in
from lilo_jax.storage.buckets import PART, BucketPath
from lilo_jax.storage.checked_files import CheckedFiles
from lilo_jax.storage.checkpoints import COMMITTED, finished_steps, read_record, set_aside
from lilo_jax.storage.digest import digest_lines
from lilo_jax.storage.files import append_line, write_whole
from lilo_jax.storage.json_lines import check_new_directory, check_output, read_records, write_records
from lilo_jax.storage.paths import path_of
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks import TASKS
from lilo_jax.training.recorder import Recorder
from lilo_jax.training.run import run

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


# ------------------------------------------------------------------------------------------------------ a server of S3
@pytest.fixture
def server(tmp_path, monkeypatch):
    """Starts and stops a server of S3 on this machine, which keeps what it holds; it has a bucket `bucket`."""
    s3fs = pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    moto = pytest.importorskip("moto.server", reason="the server of S3 is moto")
    pytest.importorskip("flask_cors", reason="the server of S3 is moto with flask and flask-cors")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # an outage should not take a minute to be noticed
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    servers, ports = [], [0]

    def start():
        servers.append(moto.ThreadedMotoServer(ip_address="127.0.0.1", port=ports[0], verbose=False))
        servers[-1].start()
        ports[0] = servers[-1].get_host_and_port()[1]

    def stop():
        servers.pop().stop()

    start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{ports[0]}")
    S3FileSystem = s3fs.S3FileSystem
    S3FileSystem.clear_instance_cache()
    S3FileSystem().mkdir("bucket")
    yield SimpleNamespace(start=start, stop=stop)
    while servers:
        stop()
    S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_run_in_s3_that_is_killed_and_cut_off_ends_as_one_on_disk(tiny_run, server, tmp_path, monkeypatch, capsys):
    """Killed with SIGKILL in step 12, it goes on until the server is away in step 15, and then to its end."""
    config, expected = tiny_run
    start = path_of("s3://bucket/start")
    start.put(pathlib.Path(config.model.path))
    append_line(path_of("s3://bucket/start/log.txt"), "in parts")
    config = configuration.replace(config, model__path=str(start), storage__save_every=3)
    (tmp_path / "config.json").write_text(json.dumps(configuration.to_dict(config)))
    command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "config.json"), "s3://bucket/run", "11"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    directory = RunDirectory("s3://bucket/run")
    assert 9 <= len(directory.read("metrics")) <= 11
    assert finished_steps(directory.checkpoints_path)[-1] in (6, 9)

    write_step = Recorder.write_step

    def write_step_without_server(self, step, *args):
        if step == 14:
            server.stop()
        write_step(self, step, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "write_step", write_step_without_server)
        patched.setattr(sys, "argv", ["run"])
        with pytest.raises(SystemExit) as caught:
            exit_with_message(lambda: run(config, Launch(output_dir="s3://bucket/run")))
    assert caught.value.code == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert re.match(r"error: s3://bucket/run/\S+ cannot be written \(.*\): .* and the same command goes on", last)

    server.start()
    assert run(config, Launch(output_dir="s3://bucket/run")).done
    assert_same_run(directory, expected)
    assert digest_lines(directory.path) == digest_lines(expected.path)
    assert not (directory.path / locks.LOCK).exists()
    assert not list(tmp_path.glob("s3*"))

    monkeypatch.setattr(sys, "argv", ["lilo", "report", "s3://bucket/run", "--output", "s3://bucket/report.html"])
    cli.main()
    assert "<svg" in path_of("s3://bucket/report.html").read_text()
