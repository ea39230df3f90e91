"""Configs: overrides, dump and reload, and what bad input says."""

import dataclasses
import json
import subprocess
import sys

import pytest
from directories import opened

import experiments.quickstart
import experiments.train
from experiments.runner import run_single
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options, parse
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.endings import exit_with_message
from lilo_jax.errors import UsageError
from lilo_jax.rl.rloo import Rloo
from lilo_jax.tasks.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class OwnCurriculum:
    """A user's own settings, found by module:name."""

    knob: float = 0.5

    def build(self, *, pool_size, questions, samples): ...


def parsed(*args):
    return parse(Options(), list(args), prog="python -m experiments.train", description="")


def test_overrides_reach_every_group():
    config = parsed(
        "--curriculum", "sfl_buffer", "--curriculum.buffer-size", "7", "--algorithm=rloo", "--rollout.samples", "4",
        "--mesh.fsdp", "2", "--optimizer.learning-rate", "1e-3", "--seed", "3",
    ).config  # fmt: skip
    assert config.curriculum == SflBuffer(buffer_size=7)
    assert config.algorithm == Rloo()
    assert (config.rollout.samples, config.mesh.fsdp, config.optimizer.learning_rate, config.seed) == (4, 2, 1e-3, 3)


def test_a_path_alone_means_the_dataset_task():
    assert parsed("--task.path", "mine.jsonl").config.task == Dataset(path="mine.jsonl")


def test_a_users_own_curriculum_by_module_and_name():
    config = parsed("--curriculum", f"{__name__}:OwnCurriculum", "--curriculum.knob", "0.25").config
    assert config.curriculum == OwnCurriculum(knob=0.25)
    assert configuration.from_dict(configuration.to_dict(config)) == config


def test_dump_and_reload_is_the_identity(tmp_path):
    config = configuration.replace(Config(), seed=9, curriculum=SflBuffer(), rollout__top_p=0.9)
    directory = opened(tmp_path / "run", config, "auto")
    assert configuration.load(directory.config_path) == config


def test_an_unknown_field_in_a_stored_config_names_the_nearest():
    values = configuration.to_dict(Config())
    values["rollout"]["sample"] = 3
    with pytest.raises(UsageError, match="did you mean 'samples'"):
        configuration.from_dict(values)


def test_print_config_prints_what_reloads(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--seed", "5", "--print-config"])
    run_single(Config(), module="experiments.train", description="")
    assert configuration.from_dict(json.loads(capsys.readouterr().out)) == configuration.replace(Config(), seed=5)


BAD_TRAIN = {
    "misspelt option": (["--rollout.sample", "3"], "did you mean --rollout.samples"),
    "unknown option": (["--qqq", "3"], "--qqq"),
    "bad value": (["--seed", "x"], "--seed"),
    "bad choice": (["--optimizer.schedule", "foo"], "'constant', 'linear', 'cosine'"),
    "unknown algorithm": (["--algorithm", "poo"], "did you mean 'ppo'"),
    "unknown curriculum": (["--curriculum", "lillo"], "did you mean 'lilo'"),
    "unknown task": (["--task", "chian"], "did you mean 'chain'"),
    "no such module": (["--curriculum", "nowhere:Thing"], "package.module:ClassName"),
    "name missing": (["--curriculum"], "--curriculum needs a name"),
    "mesh does not divide": (["--mesh.fsdp", "3"], "choose sizes whose product is"),
    "batch does not divide": (["--update.minibatches", "3"], "64 rows does not divide into 3 minibatches"),
    "whitening none": (["--algorithm.whiten-rows", "0"], "--algorithm.whiten-rows must be at least 1, got 0"),
    "kl target": (["--algorithm.kl-target", "0"], "--algorithm.kl-target must be above 0"),
    "kl horizon": (["--algorithm.kl-horizon", "0"], "--algorithm.kl-horizon must be at least 1"),
    "lambda": (["--algorithm.gae-lambda", "7"], "--algorithm.gae-lambda must be from 0 to 1"),
    "entropy": (["--algorithm.entropy-coefficient", "nan"], "--algorithm.entropy-coefficient must be a finite number"),
    "dual clip": (
        ["--algorithm.surrogate", "dual_clipped", "--algorithm.dual-clip", "1.1"],
        "--algorithm.dual-clip must be above 1 + --algorithm.clip-epsilon",
    ),
    "ratio": (["--update.max-ratio", "-1"], "--update.max-ratio must be above 1"),
    "whitening block": (["--algorithm.whiten-rows", "48"], "does not divide the batch of 64 rows"),
    "too many candidates": (["--curriculum.pool-ratio", "999"], "--curriculum.pool-ratio"),
    "too many questions": (["--curriculum", "uniform", "--rollout.questions", "4000"], "more than the 2000"),
    "heads": (["--model.num-kv-heads", "3"], "--model.num-kv-heads must divide"),
    "temperature": (["--rollout.temperature", "0"], "--rollout.temperature must be positive"),
    "zero samples": (["--rollout.samples", "0"], "--rollout.samples must be at least 1"),
    "unknown split": (["--evaluation.splits", "tset"], "did you mean 'test'"),
    "missing data file": (["--task.path", "/nowhere/a.jsonl"], "no data file or directory at '/nowhere/a.jsonl'"),
    "no training questions": (["--task", "amc23", "--task.path", "sample"], "has no training questions"),
    "unknown grader": (["--task", "gsm8k", "--task.path", "sample", "--task.grader", "exat"], "did you mean 'exact'"),
    "noise": (["--noise.coin-flips", "1.5"], "--noise.coin-flips must be between 0 and 1"),
    "length reward": (["--reward.length-free", "11"], "--reward.length-free must be"),
    "evaluation temperature": (["--evaluation.temperature", "-1"], "--evaluation.temperature must be at least 0"),
    "evaluation top-p": (["--evaluation.top-p", "0"], "--evaluation.top-p in (0, 1]"),
    "evaluation questions": (["--evaluation.max-questions", "-1"], "must not be negative"),
    "a split twice": (["--evaluation.splits", "test", "test"], "names a split twice"),
    "format weight": (["--reward.format-weight", "nan"], "must be numbers of at least 0"),
    "graders": (["--graders", "-1"], "--graders must not be negative"),
    "held out": (["--task", "gsm8k", "--task.path", "sample", "--task.validation", "0"], "--task.validation must be"),
    "unknown protocol": (["--evaluation.protocol", "vinepp"], "did you mean 'vineppo'"),
    "unknown suite": (["--evaluation.suites", "math50"], "did you mean 'math500'"),
    "no such start": (["--model.path", "/nowhere"], "/nowhere"),
    "nothing to resume": (["--resume", "must"], "there is no run in"),
}


def failure(main, args, monkeypatch, capsys):
    """Exit code and stderr of an entry point given these arguments."""
    monkeypatch.setattr(sys, "argv", ["prog", *args])
    with pytest.raises(SystemExit) as caught:
        exit_with_message(main)
    return caught.value.code, capsys.readouterr().err


def train_main():
    run_single(experiments.train.config(), module="experiments.train", description="")


@pytest.mark.parametrize("case", BAD_TRAIN)
def test_bad_input_is_one_line_with_the_cure(case, monkeypatch, capsys, tmp_path):
    args, says = BAD_TRAIN[case]
    output = tmp_path / "run"
    code, err = failure(train_main, [*args, "--output-dir", str(output)], monkeypatch, capsys)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not output.exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--arms", "uniform,lillo"], "did you mean 'lilo'"),
        (["--seeds", "0"], "--seeds and --num-steps must be at least 1"),
        (["--algorithm", "grppo"], "did you mean 'grpo'"),
        (["--frist-seed", "3"], "did you mean --first-seed"),
        (["--seed", "3"], "choose them with --first-seed"),
        (["--arms", "uniform,dump"], "chooses between categories"),
        (["--arms", "uniform,a:Rule,b:Rule"], "two arms would be called Rule"),
        (["--curriculum", "lilo"], "two arms would be called lilo"),
        (["--arms", "uniform_fours", "--rollout.samples", "16"], "--rollout.samples would be ignored"),
    ],
)
def test_the_quickstart_refuses_bad_input(args, says, monkeypatch, capsys, tmp_path):
    output = tmp_path / "run"
    code, err = failure(experiments.quickstart.main, [*args, "--output-dir", str(output)], monkeypatch, capsys)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"question": "1+1", "answer": 2}', '{"question": "1+2", "answer"'], "line 2: not valid JSON"),
        (['{"question": "1+1", "answer": 2}', "", '{"prompt": "1+2", "answer": 3}'], "line 3: no column 'question'"),
        (['{"question": "1+1", "answer": [2]}'], "line 1"),
    ],
)
def test_a_bad_line_of_a_data_file_is_named(lines, says, monkeypatch, capsys, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(lines) + "\n")
    args = ["--task.path", str(data), "--output-dir", str(tmp_path / "run")]
    code, err = failure(train_main, args, monkeypatch, capsys)
    assert code == 2
    assert says in err
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_config_is_refused_and_kept(monkeypatch, capsys, tmp_path):
    opened(tmp_path / "run", Config(), "auto")
    before = (tmp_path / "run" / "config.json").read_text()
    code, err = failure(train_main, ["--seed", "1", "--output-dir", str(tmp_path / "run")], monkeypatch, capsys)
    assert code == 2
    assert "seed is 0 there and 1 here" in err
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_start_of_another_shape_is_refused(monkeypatch, capsys, tmp_path):
    opened(tmp_path / "start", configuration.replace(Config(), model__num_layers=4), "auto")
    args = ["--model.path", str(tmp_path / "start"), "--model.num-layers", "3", "--output-dir", str(tmp_path / "run")]
    code, err = failure(train_main, args, monkeypatch, capsys)
    assert code == 2
    assert "--model.num-layers is 3, but" in err
    assert "fixes it as 4: leave it out" in err
    assert not (tmp_path / "run").exists()


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        opened(tmp_path, Config(), "auto")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_the_process_itself_exits_with_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "experiments.train", "--seeed", "1", "--output-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--seed", "x", "--debug"])
    with pytest.raises(UsageError):
        exit_with_message(train_main)


def test_launch_is_not_part_of_the_config():
    assert not {f.name for f in dataclasses.fields(Launch)} & {f.name for f in dataclasses.fields(Config)}
