"""The experiment on a real model, run whole on a small random one; its tables by hand."""

import json
import shlex
import sys

import pytest
from pretrained_models import write_qwen2

from experiments import real_model
from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.tasks import TASKS

TINY = shlex.split("""--num-steps 2 --task.pool 12 --task.validation 4 --task.test 6 --rollout.questions 2
    --rollout.samples 2 --rollout.max-new-tokens 4 --evaluation.every 1 --audit.questions 4 --audit.samples 2
    --storage.rollouts-every 1""")


class Recorded:
    """A run of which only the metrics are there."""

    def __init__(self, *metrics):
        self._metrics = metrics

    def read(self, name):
        assert name == "metrics"
        return list(self._metrics)


ARMS = real_model.RealModelOptions().arms.split(",")


def test_the_first_and_the_last_values_of_a_metric_by_hand():
    runs = [Recorded({"x": 1.0}, {"x": 2.0}, {"x": None}, {"x": 6.0}), Recorded({"x": 3.0}, {}, {"x": 0.0})]
    assert real_model.first_and_last(runs, "x", 1) == "2.00 -> 3.00"
    assert real_model.first_and_last(runs, "x", 2) == "1.50 -> 2.75"
    assert real_model.first_and_last([*runs, Recorded({})], "x", 1) == "2.00 -> 3.00"
    assert real_model.first_and_last(runs, "y", 1) == "-"


@pytest.mark.parametrize("preset", real_model.PRESETS)
@pytest.mark.parametrize("task", TASKS)
def test_every_preset_has_a_config_for_every_task(preset, task):
    config = real_model.config(preset, task)
    assert isinstance(config, Config)
    assert isinstance(config.task, TASKS[task])
    assert (config.sft.steps > 0) == (task == "gsm8k")
    assert config.rollout.stop == (() if task not in real_model.TASK_SETTINGS or task == "gsm8k" else ("\n",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--preset", "tpu"], "unknown preset 'tpu'"),
        (["--task", "sum"], "did you mean 'sums'"),
        (["--arms", "uniform,fronteer"], "did you mean 'frontier'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--split", "tset"], "did you mean 'test'"),
        (["--evaluation.splits", "validation"], "--evaluation.splits would be ignored"),
        (["--seed", "3"], "--first-seed"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_read(args, says, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["real_model", *args])
    with pytest.raises(UsageError, match=says):
        real_model.main()


@pytest.mark.slow
def test_all_arms_run_and_are_told_apart(monkeypatch, tmp_path, capsys):
    model = write_qwen2(tmp_path / "model")
    monkeypatch.setattr(
        sys, "argv", ["real_model", "--model.path", str(model), "--output-dir", str(tmp_path / "out"), *TINY]
    )
    real_model.main()
    printed = capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.split("\n\n")[1].strip() in printed
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == list(ARMS)
    assert {len(row) for row in rows} == {9}
    assert all(" -> " in cell for row in rows[2:] for cell in row[6:])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["arms"]) == set(ARMS)
    said = (tmp_path / "out" / "completions.md").read_text()
    assert all(f"## {arm}, seed 1, step {step}" in said for arm in ARMS for step in (0, 1))
    assert said.count("\n- ") >= 2 * len(ARMS)
    assert {path.name for path in (tmp_path / "out" / "seed_1").iterdir()} == set(ARMS)  # no fine-tuning
    generations = (tmp_path / "out" / "seed_1" / "uniform" / "generations").glob("*.jsonl")
    texts = [answer["text"] for path in generations for line in path.open() for answer in json.loads(line)["responses"]]
    assert texts
    assert not any("\n" in text for text in texts)
