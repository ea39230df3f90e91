"""What the README shows works: its code is run, its commands and those of docs/ parse, its map is true."""

import dataclasses
import importlib
import pathlib
import re
import shlex
import sys

import pytest

from experiments.algorithms import AlgorithmsOptions
from experiments.quickstart import SETTINGS, QuickstartOptions
from experiments.simulate_selection import SimulationOptions
from experiments.sweep import SweepOptions
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options
from lilo_jax.curriculum import CURRICULA
from lilo_jax.rl import ALGORITHMS
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.run import run

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n# (mine/\w+\.py) +(--[^\n]+)\n(.*?)```", README, flags=re.DOTALL)
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
COMMANDS = {
    page: [
        line.replace("\\\n", " ").split("#")[0].strip()
        for line in re.findall(r"^python -m experiments(?:\\\n|[^\n])*", text, re.MULTILINE)
    ]
    for page, text in PAGES.items()
}
OF_MODULE = {
    "algorithms": AlgorithmsOptions(),
    "quickstart": QuickstartOptions(),
    "simulate_selection": SimulationOptions(),
    "sweep": SweepOptions(),
    "train": Options(),
}


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The README's example modules, importable as mine.*."""
    for path, _, code in EXAMPLES + OWN:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


DOCS = PAGES["curricula.md"]
OWN = re.findall(r"```python\n# (mine/\w+\.py) +(--[^\n]+)\n(.*?)```", DOCS, flags=re.DOTALL)
OPTIONS = re.findall(r"^\| `(--[^`]+)` \|", README, re.MULTILINE)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_options_of_the_table_parse_and_change_something(options):
    found = configuration.parse(Options(), shlex.split(options), prog="", description="")
    assert found != Options() or options in ("--update.chunk 1024", "--model.attention auto")


def test_the_table_of_options_was_found():
    assert len(OPTIONS) >= 10


def test_there_are_three_examples_of_few_lines():
    assert [path for path, _, _ in EXAMPLES] == ["mine/hardest.py", "mine/reinforce.py", "mine/sums.py"]
    curriculum = EXAMPLES[0][2]
    assert sum(bool(line.strip()) for line in curriculum.splitlines()) <= 15


@pytest.mark.slow
@pytest.mark.parametrize("options", [e[1] for e in EXAMPLES + OWN], ids=[e[0] for e in EXAMPLES + OWN])
def test_an_example_trains(options, examples):
    small = configuration.replace(
        Config(), num_steps=2, task=Chain(pool=32, validation=8, test=8, longer=4, demonstrations=64),
        model__num_layers=1, model__embed_dim=16, model__mlp_dim=16, sft__steps=2, rollout__questions=2,
        rollout__samples=4, algorithm=configuration.settings_class("algorithm", "rloo")(),
    )  # fmt: skip
    args = shlex.split(options)
    config = configuration.parse(Options(config=small), args, prog="", description="").config
    result = run(config, Launch(output_dir=str(examples / "run")))
    assert result.done
    assert [record["step"] for record in result.directory.read("metrics")] == [0, 1]


def test_the_hardest_example_admits_the_rarest_successes(examples):
    import jax
    import jax.numpy as jnp

    from lilo_jax.curriculum.features import no_facts
    from lilo_jax.types import GroupStatistics

    hardest = importlib.import_module("mine.hardest").Hardest().build(pool_size=64, questions=2, samples=8)
    successes = jnp.array([0.0, 8.0, 3.0, 1.0, 5.0, 0.0, 2.0, 7.0])
    ones = jnp.ones(8)
    collected = GroupStatistics(jnp.arange(8), jnp.zeros(8, int), 8 * ones, successes, successes, ones, 8 * ones)
    admission = hardest.admit(hardest.init(no_facts(64)), collected, jax.random.key(0))
    assert set(admission.indices.tolist()) == {3, 6}
    assert admission.mask.all()


@pytest.mark.parametrize("command", dict.fromkeys(command for own in COMMANDS.values() for command in own))
def test_every_command_parses(command):
    _, _, module, *args = shlex.split(command)
    options = OF_MODULE[module.removeprefix("experiments.")]
    parse = configuration.parse if hasattr(options, "config") else configuration.command_line
    if "--help" in args:
        with pytest.raises(SystemExit) as caught:
            parse(options, args, prog=module, description="")
        assert caught.value.code == 0
    else:
        parsed = parse(options, args, prog=module, description="")
        assert (parsed == options) == (not args)


def test_the_commands_of_every_page_were_found():
    assert {page for page, found in COMMANDS.items() if found} == {*PAGES} - {"architecture.md", "grading.md"}
    assert any(command.endswith("--output-dir runs/tune") for command in COMMANDS["quickstart.md"])  # of two lines


def test_the_map_names_what_exists():
    block = re.search(r"## Map of the code\n\n```\n(.*?)```", README, re.DOTALL)[1]
    names = re.findall(r"\b[\w/]+\.py\b|\b[a-z_/]+/", block)
    assert len(names) > 15
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "lilo_jax" / name).exists(), name


def test_links_to_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_docs_list_every_algorithm_and_options_that_exist():
    text = PAGES["algorithms.md"]
    table = text[: text.index("## PPO")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ALGORITHMS) == set(SETTINGS)
    commands = re.findall(r"^python -m experiments.train ([^\n]*)", text, re.MULTILINE)
    configs = [configuration.parse(Options(), shlex.split(c), prog="", description="").config for c in commands]
    assert [c.update.epochs * c.update.minibatches for c in configs] == [16, 1, 8]
    assert [c.rollout.questions * c.rollout.samples for c in configs][::2] == [512, 1024]
    options = re.findall(r"^\| `(--[^`]+)` \|", text, re.MULTILINE)
    assert len(options) >= 6
    for option in options:
        found = configuration.parse(Options(), ["--algorithm", "ppo", *shlex.split(option)], prog="", description="")
        assert found.config.algorithm != Options().config.algorithm


def test_the_docs_list_every_curriculum_with_its_settings():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", DOCS[: DOCS.index("## Parts")], re.MULTILINE)
    assert [name for name, _ in rows] == list(CURRICULA)
    for name, row in rows:
        fields = [field.name.replace("_", "-") for field in dataclasses.fields(CURRICULA[name])]
        assert re.findall(r"`([\w-]+)`", row.split("|")[-1]) == fields, name


def test_the_docs_list_every_part_that_a_rule_uses():
    named = set(re.findall(r"^\| `(\w+\.\w+)` \|", DOCS, re.MULTILINE))
    for part in named:
        module, name = part.split(".")
        assert callable(getattr(importlib.import_module(f"lilo_jax.curriculum.{module}"), name)), part
    for module in ("sources", "rounds", "gates", "values", "allocators"):
        used = [
            f"{module}.{name.strip()}"
            for path in (ROOT / "lilo_jax" / "curriculum").glob("*/*.py")
            for names in re.findall(rf"curriculum\.{module} import ([\w, ]+)", path.read_text(encoding="utf-8"))
            for name in names.split(",")
        ]
        assert set(used) - {"gates.largest_variance"} <= named


def test_a_curriculum_of_ones_own_has_few_lines():
    assert [path for path, _, _ in OWN] == ["mine/third.py"]
    assert sum(bool(line.strip()) for line in OWN[0][2].splitlines()) <= 15
