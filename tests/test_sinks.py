"""Records that also go to trackers: each once, whatever fails; and what each tracker's own reader finds."""

import importlib
import json
import pathlib
import sys
import types

import pytest
from directories import opened

from lilo_jax.config import Config, Launch
from lilo_jax.errors import RunError, UsageError
from lilo_jax.processes import hosts
from lilo_jax.sinks import SINKS, chosen_sinks, feed
from lilo_jax.sinks.entries import entries, of_evaluation, of_step
from lilo_jax.sinks.feed import LOGGED, feeding
from lilo_jax.storage.digest import digests
from lilo_jax.training.recorder import Recorder
from lilo_jax.training.run import run

LEDGER = {"train/generated": 40, "rejected/generated": 0, "evaluation/generated": 7}
HISTOGRAM = "curriculum/collected_histogram"


def write_records(directory, steps, first=0):
    """Records of steps, with an evaluation before the first one and after every second one."""
    for step in range(first, steps):
        if step == 0:
            evaluate(directory, 0)
        directory.append(
            "metrics", {"step": step, "policy/entropy": 1.0 + step, "loss/value": None, HISTOGRAM: [2, 0, 1]}
        )
        directory.append("timings", {"step": step, "sample": 0.5})
        directory.append("ledger", {"step": step, **LEDGER})
        if step % 2:
            evaluate(directory, step + 1)


def evaluate(directory, step):
    directory.append("eval", {"step": step, "split": "test", "accuracy": step / 10, "pass@k": {"1": 0.5}})


@pytest.fixture
def directory(tmp_path):
    found = opened(tmp_path / "runs" / "mine", Config())
    write_records(found, 4)
    return found


class Memory:
    """A sink that remembers what it was given, in order; it fails at a step if it is told to."""

    def __init__(self, run="m1", fails_at=None):
        self.run, self.fails_at, self.given, self.closed = run, fails_at, [], []

    def scalars(self, step, values):
        if step == self.fails_at:
            raise ConnectionError("no\nanswer")
        self.given.append((step, dict(values)))

    def histograms(self, step, counts):
        self.given.append((step, {name: list(own) for name, own in counts.items()}))

    def close(self, *, failed):
        self.closed.append(failed)


@pytest.fixture
def planted(monkeypatch):
    """{name: sink} in the place of what the modules open; all packages are there."""
    sinks = {}

    def module_of(name):
        return types.SimpleNamespace(open_sink=lambda directory, run: sinks[name.rpartition(".")[2]])

    monkeypatch.setattr(feed, "importlib", types.SimpleNamespace(import_module=module_of))
    monkeypatch.setattr("lilo_jax.sinks.importlib.util.find_spec", lambda name: types.SimpleNamespace(origin=name))
    return sinks


def given(sink):
    """(step, whether it is an evaluation, a histogram or a step) of what a sink was given."""
    kinds = [
        ("eval" if any(n.startswith("eval/") for n in v) else "bars" if HISTOGRAM in v else "step")
        for _, v in sink.given
    ]
    return list(zip((step for step, _ in sink.given), kinds, strict=True))


# ------------------------------------------------------------------------------------------------------------- entries
def test_a_step_and_an_evaluation_by_hand():
    metrics = {"step": 3, "policy/entropy": 0.5, "loss/value": None, "rollout/note": "x", HISTOGRAM: [1, 0, 4]}
    step = of_step(3, metrics, {"step": 3, "sample": 2.0}, {"step": 3, **LEDGER})
    assert (step.kind, step.step) == ("step", 3)
    assert step.scalars == {
        "policy/entropy": 0.5,
        "seconds/sample": 2.0,
        "ledger/train/generated": 40.0,
        "ledger/evaluation/generated": 7.0,
    }
    assert step.histograms == {HISTOGRAM: [1, 0, 4]}
    records = [
        {"step": 4, "split": "test", "accuracy": 0.25, "wilson": [0.1, 0.4], "pass@k": {"1": 0.25}},
        {"step": 4, "split": "validation", "accuracy": float("nan"), "method": "sampled"},
    ]
    assert of_evaluation(records) == ("evaluation", 4, {"eval/test/accuracy": 0.25, "eval/test/pass@k/1": 0.25}, {})


def test_entries_come_in_order_each_evaluation_before_the_step_that_follows_it(directory):
    assert [(e.kind[0], e.step) for e in entries(directory)] == [
        ("e", 0), ("s", 0), ("s", 1), ("e", 2), ("s", 2), ("s", 3), ("e", 4),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize("name", SINKS)
def test_a_missing_package_is_refused_with_the_line_that_installs_it(name, monkeypatch, tmp_path):
    monkeypatch.setattr("lilo_jax.sinks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=rf'--log {name} needs the package {name}: pip install "lilo-jax\[{name}\]"'):
        run(Config(), Launch(output_dir=str(tmp_path / "run"), log=name))
    assert not (tmp_path / "run").exists()


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match=r"unknown sink of --log 'wandbb': did you mean 'wandb'\? known are mlflow, "):
        chosen_sinks("wandbb")
    assert chosen_sinks(" ,") == []


def test_a_folder_of_that_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "trackio").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    if "trackio" in sys.modules:
        monkeypatch.delitem(sys.modules, "trackio")
    with pytest.raises(UsageError, match="needs the package trackio"):
        chosen_sinks("trackio")


def test_every_sink_is_an_extra():
    setup = (pathlib.Path(__file__).parent.parent / "setup.py").read_text()
    assert all(f'"{name}": ["{name}>=' in setup for name in SINKS)


def test_a_sink_that_cannot_begin_is_refused_and_those_before_it_are_closed(directory, planted):
    planted["wandb"] = Memory()
    trouble = pytest.raises(UsageError, match="--log trackio cannot begin: 'trackio'; mend that, or leave trackio out")
    with trouble, feeding(["wandb", "trackio"], directory, steps=4):
        pass
    assert planted["wandb"].closed == [True]


# ---------------------------------------------------------------------------------------------------------------- once
def test_a_new_sink_gets_all_records_and_a_resumed_one_what_is_new(directory, planted):
    planted["wandb"] = Memory()
    with feeding(["wandb"], directory, steps=9) as fed:
        fed.catch_up(print)
        fed.step(4, {"policy/entropy": 5.0}, {}, {})
    whole = [(0, "eval"), (0, "step"), (0, "bars"), (1, "step"), (1, "bars"), (2, "eval")]
    assert given(planted["wandb"])[:6] == whole
    assert given(planted["wandb"])[-2:] == [(4, "eval"), (4, "step")]
    kept = json.loads((directory.path / LOGGED).read_text())
    assert kept == {"wandb": {"evaluation": 4, "step": 4, "run": "m1"}}

    planted["wandb"], planted["mlflow"] = Memory(), Memory("m2")
    with feeding(["wandb", "mlflow"], directory, steps=9) as fed:
        fed.catch_up(print)  # step 4 was not saved, and is taken again
        fed.step(4, {"policy/entropy": 5.0}, {}, {})
        fed.step(5, {"policy/entropy": 6.0}, {}, {})
        fed.evaluation([{"step": 6, "split": "test", "accuracy": 1.0}])
    assert given(planted["wandb"]) == [(5, "step"), (6, "eval")]
    assert given(planted["mlflow"])[:6] == whole
    assert given(planted["mlflow"])[-3:] == [(4, "step"), (5, "step"), (6, "eval")]
    assert planted["wandb"].closed == planted["mlflow"].closed == [False]


def test_one_that_fails_is_told_once_and_the_others_go_on(directory, planted):
    planted["wandb"], planted["mlflow"], said = Memory(fails_at=2), Memory(), []
    with feeding(["wandb", "mlflow"], directory, steps=9) as fed:
        fed.catch_up(said.append)
        fed.step(4, {}, {}, {})
    assert said == ["--log wandb failed, and the run goes on without it: no answer"]
    assert [step for step, _ in given(planted["wandb"])] == [0, 0, 0, 1, 1]
    assert given(planted["mlflow"])[-1] == (4, "step")
    assert (directory.path / "log.txt").read_text().count("wandb failed") == 1
    assert planted["wandb"].closed == []


@pytest.mark.parametrize(("error", "failed"), [(RunError("x"), True), (feed.Stopped("x", 143), False)])
def test_sinks_are_told_how_the_run_ended(error, failed, directory, planted):
    planted["wandb"] = Memory()
    with pytest.raises(type(error)), feeding(["wandb"], directory, steps=9):
        raise error
    assert planted["wandb"].closed == [failed]


def test_only_the_first_process_has_sinks_and_all_hear_of_trouble(directory, planted, monkeypatch):
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    with feeding(["wandb"], directory, steps=9) as fed:  # nothing is planted: opening it would raise
        fed.step(4, {}, {}, {})
    assert not (directory.path / LOGGED).exists()
    monkeypatch.setattr(hosts, "gathered", lambda own: ["no login", own])
    with pytest.raises(UsageError, match="no login"), feeding(["wandb"], directory, steps=9):
        pass


def test_a_damaged_file_of_what_was_logged_is_refused(directory, planted):
    (directory.path / LOGGED).write_text("{")
    with pytest.raises(UsageError, match=r"logged\.json is damaged: delete it"), feeding(["wandb"], directory, steps=9):
        pass


@pytest.mark.slow
def test_a_run_that_breaks_off_logs_every_step_once_and_a_failing_sink_changes_no_number(
    tiny_run, planted, tmp_path, monkeypatch
):
    config, expected = tiny_run
    planted["wandb"], planted["mlflow"] = Memory(), Memory(fails_at=3)
    launch, write_step = Launch(output_dir=str(tmp_path / "run"), log="wandb,mlflow"), Recorder.write_step

    def break_off(recorder, step, *rest):
        if step == 8:
            raise RunError("power cut")
        write_step(recorder, step, *rest)

    monkeypatch.setattr(Recorder, "write_step", break_off)
    with pytest.raises(RunError, match="power cut"):
        run(config, launch)
    monkeypatch.setattr(Recorder, "write_step", write_step)
    result = run(config, launch)
    logged = given(planted["wandb"])
    assert [step for step, kind in logged if kind == "step"] == list(range(20))
    assert [step for step, kind in logged if kind == "eval"] == [0, 5, 10, 15, 20]
    assert [step for step, kind in logged if kind == "bars"] == list(range(20))
    assert digests(result.directory) == digests(expected)
    values = {name: value for step, v in planted["wandb"].given if step == 12 for name, value in v.items()}
    record = expected.read("metrics")[12]
    assert values["policy/entropy"] == pytest.approx(record["policy/entropy"], abs=0)
    assert values[HISTOGRAM] == record[HISTOGRAM]
    assert values["ledger/train/generated"] == expected.read("ledger")[12]["train/generated"]


# ------------------------------------------------------------------------------------------------------- real trackers
def log_in_two_runs(name, directory):
    """The records of six steps, in two runs of which the second takes steps 2 and 3 again."""
    with feeding([name], directory, steps=9) as fed:
        fed.catch_up(print)
    first = json.loads((directory.path / LOGGED).read_text())[name]["run"]
    with feeding([name], directory, steps=9) as fed:
        fed.catch_up(print)
        for step in (2, 3, 4, 5):
            metrics = {"policy/entropy": 1.0 + step, HISTOGRAM: [2, 0, 1]}
            fed.step(step, metrics, {"sample": 0.5}, LEDGER)
        fed.evaluation([{"step": 6, "split": "test", "accuracy": 0.6, "pass@k": {"1": 0.5}}])
    kept = json.loads((directory.path / LOGGED).read_text())[name]
    assert kept == {"evaluation": 6, "step": 5, "run": first}
    return first


ENTROPY = [(step, 1.0 + step) for step in range(6)]
ACCURACY = [(0, 0.0), (2, 0.2), (4, 0.4), (6, 0.6)]


def test_tensorboard_reads_its_event_files(directory):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_in_two_runs("tensorboard", directory)
    assert len(list((directory.path / "tensorboard").iterdir())) == 2
    read = EventAccumulator(str(directory.path / "tensorboard"), size_guidance={"histograms": 0, "scalars": 0})
    read.Reload()

    def curve(name):
        return [(event.step, pytest.approx(event.value)) for event in read.Scalars(name)]

    assert curve("policy/entropy") == ENTROPY
    assert curve("eval/test/accuracy") == ACCURACY
    assert curve("ledger/train/generated") == [(step, 40.0) for step in range(6)]
    bars = read.Histograms(HISTOGRAM)
    assert [event.step for event in bars] == list(range(6))
    assert list(bars[0].histogram_value.bucket) == [2, 0, 1]
    assert list(bars[0].histogram_value.bucket_limit) == [0.5, 1.5, 2.5]
    assert (bars[0].histogram_value.num, bars[0].histogram_value.sum, bars[0].histogram_value.sum_squares) == (3, 2, 4)


def wandb_rows(folder, record_of):
    """Rows of the history in the transaction logs of offline runs, in order: records in LevelDB's frames."""
    rows = []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # full, last
                record, whole = record_of(whole), b""
                if record.WhichOneof("record_type") == "history":
                    rows.append(
                        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                    )
    return rows


def test_wandb_reads_its_offline_runs(directory, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run_id = log_in_two_runs("wandb", directory)
    wandb.teardown()  # as at the end of a process: its own one writes the rest
    assert {file.stem for file in tmp_path.glob("wandb/offline-run-*/*.wandb")} == {f"run-{run_id}"}
    rows = wandb_rows(tmp_path / "wandb", Record.FromString)
    assert [(row["step"], row["policy/entropy"]) for row in rows if "policy/entropy" in row] == ENTROPY
    assert [(row["step"], row["eval/test/accuracy"]) for row in rows if "eval/test/accuracy" in row] == ACCURACY
    bars = [row for row in rows if any(key.startswith(HISTOGRAM) for key in row)]
    assert [row["step"] for row in bars] == list(range(6))
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})  # rise over both runs
    assert bars[0][f"{HISTOGRAM}/values"] == [2, 0, 1]
    assert bars[0][f"{HISTOGRAM}/bins"] == [-0.5, 0.5, 1.5, 2.5]


def test_mlflow_reads_its_store(directory, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    run_id = log_in_two_runs("mlflow", directory)
    client = MlflowClient()
    kept = client.get_run(run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["rollout.samples"] == "8"
    (experiment,) = [e for e in client.search_experiments() if e.name == "lilo_jax"]
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [run_id]

    def curve(name):
        return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))

    assert curve("policy/entropy") == ENTROPY
    assert curve("eval/test/accuracy") == ACCURACY
    assert curve("eval/test/pass_k/1") == [(step, 0.5) for step, _ in ACCURACY]
    for i, count in enumerate([2, 0, 1]):
        assert curve(f"{HISTOGRAM}/{i}") == [(step, count) for step in range(6)]


def test_trackio_reads_its_own_store(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio.api import Api
    from trackio.sqlite_storage import SQLiteStorage

    name = log_in_two_runs("trackio", directory)
    (kept,) = [run for run in Api().runs("lilo_jax") if run.name == name]
    assert kept.config["rollout"]["samples"] == 8
    rows = SQLiteStorage.get_logs("lilo_jax", name)

    def curve(key):
        return [(row["step"], row[key]) for row in rows if key in row]

    assert curve("policy/entropy") == ENTROPY
    assert curve("eval/test/accuracy") == ACCURACY
    assert [step for step, _ in curve(HISTOGRAM)] == list(range(6))
    assert curve(HISTOGRAM)[0][1]["values"] == [2, 0, 1]
