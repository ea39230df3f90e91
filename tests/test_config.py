"""Configs: overrides, dump and reload, and what bad input says."""

import dataclasses
import itertools
import json
import random
import re
import subprocess
import sys
import typing

import jax.numpy as jnp
import pytest
from directories import opened

import experiments.quickstart
import experiments.train
from experiments.runner import run_single
from lilo_jax import config as configuration
from lilo_jax.bounds import Whole, annotations, bounds, check
from lilo_jax.config import TABLES, Config, Launch, Options, parse
from lilo_jax.config.options import FIRST, options_of
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import PROTOCOLS, Protocol
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tokenizers.sentence_piece import TokenizerConfig
from lilo_jax.training.checks import check as check_config
from lilo_jax.training.checks import validate
from lilo_jax.training.run import run


@dataclasses.dataclass(frozen=True)
class OwnCurriculum:
    """A user's own settings, found by module:name."""

    knob: float = 0.5

    def build(self, *, pool_size, questions, samples): ...


@dataclasses.dataclass(frozen=True)
class Timid:
    """A user's rule that asks for three questions."""

    may: bool = False

    def build(self, *, pool_size, questions, samples):
        rule = Uniform().build(pool_size=pool_size, questions=questions, samples=samples)

        def propose(state, collected, key):
            proposal = rule.propose(state, collected, key)
            return proposal.replace(mask=jnp.arange(questions) < 3)

        return rule._replace(propose=propose, may_propose_fewer=self.may)


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
    "lambda": (["--algorithm.gae-lambda", "7"], "--algorithm.gae-lambda must be at least 0 and at most 1, got 7.0"),
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
    "temperature": (["--rollout.temperature", "0"], "--rollout.temperature must be above 0, got 0.0"),
    "zero samples": (["--rollout.samples", "0"], "--rollout.samples must be at least 1"),
    "unknown split": (["--evaluation.splits", "tset"], "did you mean 'test'"),
    "missing data file": (["--task.path", "/nowhere/a.jsonl"], "no data file or directory at '/nowhere/a.jsonl'"),
    "no training questions": (["--task", "amc23", "--task.path", "sample"], "has no training questions"),
    "unknown grader": (["--task", "gsm8k", "--task.path", "sample", "--task.grader", "exat"], "did you mean 'exact'"),
    "noise": (["--noise.coin-flips", "1.5"], "--noise.coin-flips must be at least 0 and at most 1, got 1.5"),
    "length reward": (["--reward.length-free", "11"], "--reward.length-free must be"),
    "evaluation temperature": (["--evaluation.temperature", "-1"], "--evaluation.temperature must be at least 0"),
    "evaluation top-p": (["--evaluation.top-p", "0"], "--evaluation.top-p must be above 0 and at most 1"),
    "evaluation questions": (["--evaluation.max-questions", "-1"], "--evaluation.max-questions must be at least 0"),
    "a split twice": (["--evaluation.splits", "test", "test"], "names a split twice"),
    "format weight": (["--reward.format-weight", "nan"], "--reward.format-weight must be a finite number, got nan"),
    "graders": (["--graders", "-1"], "--graders must be at least 0, got -1"),
    "held out": (["--task", "gsm8k", "--task.path", "sample", "--task.validation", "0"], "--task.validation must be"),
    "unknown protocol": (["--evaluation.protocol", "vinepp"], "did you mean 'vineppo'"),
    "unknown suite": (["--evaluation.suites", "math50"], "did you mean 'math500'"),
    "no such start": (["--model.path", "/nowhere"], "/nowhere"),
    "negative rate": (["--optimizer.learning-rate", "-0.001"], "--optimizer.learning-rate must be above 0, got -0.001"),
    "beta": (["--optimizer.beta2", "1"], "--optimizer.beta2 must be at least 0 and below 1, got 1.0"),
    "infinite rate": (["--optimizer.learning-rate", "inf"], "--optimizer.learning-rate must be a finite number"),
    "too many layers": (["--model.num-layers", "2147483648"], "must be a whole number below 2147483648"),
    "odd heads": (["--model.head-dim", "7"], "--model.head-dim must be at least 4 and a multiple of 2, got 7"),
    "too many tokens": (
        ["--rollout.samples", "100000", "--rollout.max-new-tokens", "100000"],
        "--rollout.questions 8 x --rollout.samples 100000 x --rollout.max-new-tokens 100000 must be below 2147483648",
    ),
    "groups of one": (
        ["--algorithm", "rloo", "--curriculum", "uniform", "--rollout.samples", "1"],
        "--rollout.samples must be at least 2, because the algorithm rloo compares the rollouts of a question, got 1",
    ),
    "no variance": (["--rollout.samples", "1"], "because the curriculum lilo compares the rollouts of a question"),
    "nothing to propose": (
        ["--curriculum", f"{__name__}:Timid"],
        "the curriculum proposes 3 of the 8 questions of the first step",
    ),
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


@pytest.mark.parametrize("args", [["--curriculum.oversample=" + "x" * 60_000], ["--num-steps", "7" * 5_000]])
def test_of_a_long_argument_the_beginning_is_shown(args, monkeypatch, capsys, tmp_path):
    code, err = failure(train_main, [*args, "--output-dir", str(tmp_path / "run")], monkeypatch, capsys)
    assert code == 2
    assert args[0][:20] in err
    assert len(err) < 1_000


def test_a_long_value_is_taken_whole():
    template = "Q: 1 + 1\nA: 2\n" * 100 + "Q: {question}\nA:"
    args = ["--task", "sums", "--task.template", template]
    found = configuration.parse(configuration.Options(), args, prog="", description="").config
    assert found.task.template == template


@pytest.mark.slow
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
        (["--arms", "uniform,lilo", "--curriculum", "lilo"], "two arms would be called lilo"),
        (["--arms", "uniform@8x4", "--rollout.samples", "16"], "--rollout.samples would be ignored"),
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


def settings_classes():
    """Every class of settings that the package owns, by walking from those that a run, a launch or a protocol has."""
    found, left = set(), [Config, Launch, Protocol, *(spec for table in TABLES.values() for spec in table.values())]
    while left:
        cls = left.pop()
        if cls not in found:
            found.add(cls)
            left += [kind for kind in annotations(cls).values() if dataclasses.is_dataclass(kind)]
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def numbers_without_bounds(kind):
    """Whether an annotation, or a part of it, is a number of which no bound is declared."""
    if kind in (int, float):
        return True
    if typing.get_origin(kind) is typing.Annotated:
        return not list(bounds(kind)) and numbers_without_bounds(typing.get_args(kind)[0])
    return any(numbers_without_bounds(part) for part in typing.get_args(kind) if not isinstance(part, int | float))


@pytest.mark.parametrize("cls", settings_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_number_of_every_setting_has_a_bound(cls):
    assert not [name for name, kind in annotations(cls).items() if numbers_without_bounds(kind)]


def test_the_walk_finds_what_has_no_bound():
    names = {cls.__qualname__ for cls in settings_classes()}
    assert {"Rope", "OptimizerConfig", "MeshConfig", "Launch", "Frontier", "VinePpo", "Chain", "Gsm8k"} <= names
    assert numbers_without_bounds(float)
    assert numbers_without_bounds(tuple[int, ...])
    assert not numbers_without_bounds(tuple[Whole, ...])
    assert not numbers_without_bounds(typing.Literal[1, 2])


def test_the_defaults_are_within_their_bounds():
    for cls in settings_classes():
        if cls is not Protocol:
            check(cls())
    for each in PROTOCOLS.values():
        check(each)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(rollout=RolloutConfig(questions="8")), "--rollout.questions must be a whole number, got '8'"),
        (Config(rollout=RolloutConfig(questions=True)), "--rollout.questions must be a whole number, got True"),
        (Config(rollout=None), "--rollout must be settings with the fields of RolloutConfig, got None"),
        (Config(task=None), "--task must be settings with a build method, got None"),
        (Config(rollout=RolloutConfig(stop=["a"])), "--rollout.stop must be a tuple, got ['a']"),
        (Config(tokenizer=TokenizerConfig(kind="x")), "--tokenizer.kind must be one of 'auto', 'char', 'bpe', got 'x'"),
        (Config(seed=10**5000), "--seed must be a whole number below 2147483648, got a number of too many digits"),
        (Config(curriculum=OwnCurriculum(knob=float("nan"))), "--curriculum.knob must be a finite number, got nan"),
    ],
)
def test_a_config_made_in_python_is_held_to_the_same(config, says, tmp_path):
    with pytest.raises(UsageError, match=re.escape(says)):
        run(config, Launch(output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_rule_may_declare_that_it_proposes_fewer():
    validated = configuration.replace(Config(), curriculum=Timid(may=True), sft__steps=0)
    check_config(validated)


# ------------------------------------------------------------------------------------------------ stored configs
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"rollout": {"questions": "8"}}', "rollout.questions must be a whole number, got '8'"),
        ('{"rollout": {"questions": true}}', "rollout.questions must be a whole number, got True"),
        ('{"optimizer": {"learning_rate": NaN}}', "optimizer.learning_rate must be a finite number, got nan"),
        ('{"optimizer": {"learning_rate": 1e999}}', "optimizer.learning_rate must be a finite number, got inf"),
        ('{"optimizer": {"schedule": "foo"}}', "optimizer.schedule must be one of 'constant', 'linear', 'cosine'"),
        ('{"model": {"windows": [1, "2"]}}', "model.windows must be a tuple, each a whole number, got (1, '2')"),
        ('{"sft": 3}', "sft must be settings with the fields of SftConfig, got 3"),
        ('{"task": {"pool": 3}}', "task must be an object with the name of a task"),
        ('{"task": {"name": "chain", "pool": -3}}', "task.pool must be at least 1 and at most 1000000, got -3"),
        ('{"task": {"name": ":"}}', "cannot load task ':'"),
        ("[]", "must be an object, got []"),
        ("7", "must be an object, got 7"),
        ('{"seed": ' + "9" * 5000 + "}", "is not a config"),
        ('{"seed": ' + "[" * 100_000, "is not a config"),
        ('{"rollout": {"stop": ["\\ud800"]}}', "rollout.stop must be a tuple, each text without NUL or half"),
        ("{", "is not a config"),
    ],
)
def test_a_stored_config_names_the_field_and_what_it_must_be(text, says, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(says)) as refusal:
        configuration.load(path)
    assert str(path) in str(refusal.value) or "cannot load" in str(refusal.value)


def test_a_stored_config_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="is not a config"):
        configuration.load(tmp_path / "config.json")
    with pytest.raises(UsageError, match="is not a config"):
        configuration.load(tmp_path)


def test_a_whole_number_serves_as_a_number_with_a_fraction():
    assert configuration.from_dict({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate == 1


ODD_VALUES = [
    None, True, 0, -1, 1, 2**31, 2**63, -(2**40), 10**40, 0.5, -0.5, 1e-300, 1e39, float("nan"), float("inf"),
    -float("inf"), "", "8", "nan", "\0", "\ud800", [], [1], ["a", 2], [[]], {}, {"name": "chain"}, {"a": {"b": []}},
]  # fmt: skip


def mutated(values, rng):
    """A config with one value replaced, dropped, added or put elsewhere."""
    values = json.loads(json.dumps(values))
    node, name = values, rng.choice(list(values))
    while isinstance(node[name], dict) and node[name] and rng.random() < 0.85:
        node = node[name]
        name = rng.choice(list(node))
    action = rng.random()
    if action < 0.8:
        node[name] = rng.choice(ODD_VALUES)
    elif action < 0.9:
        del node[name]
    else:
        node[rng.choice([name + "s", "", "name", "SOURCE"])] = node[name]
    return values


def test_mutated_configs_are_refused_in_one_sentence_or_accepted(tmp_path):
    rng, path, refusals = random.Random(0), tmp_path / "config.json", []
    starts = [
        configuration.to_dict(Config(task=task(), curriculum=curriculum(), algorithm=algorithm()))
        for task, curriculum, algorithm in zip(
            itertools.cycle(TABLES["task"].values()),
            TABLES["curriculum"].values(),
            itertools.cycle(TABLES["algorithm"].values()),
            strict=False,
        )
    ]
    for i in range(400):
        path.write_text(json.dumps(mutated(starts[i % len(starts)], rng)))
        try:
            validate(configuration.load(path))
        except UsageError as error:
            refusals.append(str(error))
    assert 200 < len(refusals) < 400
    assert not [refusal for refusal in refusals if "\n" in refusal]


def test_launch_is_not_part_of_the_config():
    assert not {f.name for f in dataclasses.fields(Launch)} & {f.name for f in dataclasses.fields(Config)}


def helped(args, capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(*args)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_ten_that_matter_and_what_was_named(capsys):
    short = helped(["--help"], capsys)
    assert re.findall(r"^  --([\w.-]+)", short, re.MULTILINE) == list(FIRST)
    assert len(FIRST) == 10
    assert max(map(len, short.splitlines())) <= 120
    named = helped(["--curriculum", "frontier", "-h"], capsys)
    assert "--curriculum.refresh-every" in named
    assert "--curriculum.refresh-every" not in short
    assert "The curriculum uniform has no options" in helped(["--curriculum", "uniform", "--help"], capsys)


def test_help_all_shows_every_option_that_the_groups_hold(capsys):
    every = helped(["--help-all"], capsys)
    options = options_of(Options())
    assert len({option.name for option in options}) == len(options) > 100
    for option in options:
        if option.name not in TABLES:  # taken before the rest is read
            assert f"--{option.name}" in every, option.name
