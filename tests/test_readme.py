"""What README and docs/ show works: code is run, commands parse, map, links, options and figures are true."""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from experiments.algorithms import AlgorithmsOptions
from experiments.arms import labelled
from experiments.predict_success import PredictOptions
from experiments.quickstart import BEST, SETTINGS, QuickstartOptions, claims
from experiments.real_model import RealModelOptions
from experiments.recipes import RECIPES, RecipeOptions
from experiments.sceptics import ScepticOptions
from experiments.simulate_selection import SimulationOptions
from experiments.study_runs import StudyOptions
from experiments.sweep import SweepOptions
from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options
from lilo_jax.curriculum import CURRICULA
from lilo_jax.processes import hosts
from lilo_jax.rl import ALGORITHMS
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.run import run

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix().removeprefix("docs/"): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
EXAMPLE = re.compile(r"```python\n# (mine/\w+\.py) +(--[^\n]+)\n(.*?)```", flags=re.DOTALL)
FIRST = EXAMPLE.findall(README)
EXAMPLES = EXAMPLE.findall(PAGES["extending.md"])
COMMANDS = {
    page: [
        line.replace("\\\n", " ").split("#")[0].strip()
        for line in re.findall(r"^python -m experiments(?:\\\n|[^\n])*", text, re.MULTILINE)
    ]
    for page, text in PAGES.items()
}
OF_MODULE = {
    "algorithms": AlgorithmsOptions(),
    "predict_success": PredictOptions(),
    "quickstart": QuickstartOptions(),
    "simulate_selection": SimulationOptions(),
    "paper.grpo": StudyOptions(),
    "real_model": RealModelOptions(),
    "recipes": RecipeOptions(),
    "sceptics": ScepticOptions(),
    "sweep": SweepOptions(),
    "train": Options(),
}
_SPEC = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
TABLES_OF_DOCS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(TABLES_OF_DOCS)


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The README's example modules, importable as mine.*."""
    for path, _, code in FIRST + EXAMPLES + OWN:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


DOCS = PAGES["curricula.md"]
OWN = EXAMPLE.findall(DOCS)
OPTIONS = re.findall(r"^\| `(--[^`]+)` \|", PAGES["runs.md"], re.MULTILINE)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_options_of_the_table_parse_and_change_something(options):
    found = configuration.parse(Options(), shlex.split(options), prog="", description="")
    assert found != Options() or options in ("--update.chunk 1024", "--model.attention auto")


def test_the_table_of_options_was_found():
    assert len(OPTIONS) >= 10


def test_the_examples_are_found_and_have_few_lines():
    assert [path for path, _, _ in FIRST] == ["mine/near.py"]
    assert [path for path, _, _ in EXAMPLES] == [
        "mine/hardest.py",
        "mine/target.py",
        "mine/squared.py",
        "mine/reinforce.py",
        "mine/sums.py",
    ]
    for _, _, curriculum in FIRST + EXAMPLES[:1]:
        assert sum(bool(line.strip()) for line in curriculum.splitlines()) <= 15
        assert "return compose(" in curriculum


@pytest.mark.slow
@pytest.mark.parametrize("options", [e[1] for e in FIRST + EXAMPLES + OWN], ids=[e[0] for e in FIRST + EXAMPLES + OWN])
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
def test_every_command_parses(command, examples):
    _, _, module, *args = shlex.split(command)
    args = hosts.split(args)[1]
    options = OF_MODULE[module.removeprefix("experiments.")]
    parse = configuration.parse if hasattr(options, "config") else configuration.command_line
    if {"--help", "--help-all"} & set(args):
        with pytest.raises(SystemExit) as caught:
            parse(options, args, prog=module, description="")
        assert caught.value.code == 0
    else:
        parsed = parse(options, args, prog=module, description="")
        assert (parsed == options) == (not args)


def test_the_commands_of_every_page_were_found():
    reference = {page for page in PAGES if page.startswith("reference/")}
    unasked = {
        "AGENTS.md",
        "CONTRIBUTING.md",
        "architecture.md",
        "concepts.md",
        "curricula.md",
        "grading.md",
        "index.md",
        "notebooks.md",
    }
    without = unasked | {"grading.md", "options.md", "results/growth.md", "results/speed.md"} | reference
    assert {page for page, found in COMMANDS.items() if found} == {*PAGES} - without
    assert any(command.endswith("--output-dir runs/tune") for command in COMMANDS["results/quickstart.md"])  # two lines


@pytest.mark.parametrize(
    "command", dict.fromkeys(c for text in PAGES.values() for c in re.findall(r"^lilo [^#\n]*", text, re.MULTILINE))
)
def test_every_command_of_lilo_parses(command):
    assert callable(cli.parser().parse_args(shlex.split(command)[1:]).verb)


def test_python_of_every_page_compiles():
    blocks = [block for text in PAGES.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) >= 5
    for block in blocks:
        compile(block, "<page>", "exec")


def test_the_map_names_what_exists():
    block = re.search(r"## Map of the code\n\n```\n(.*?)```", README, re.DOTALL)[1]
    names = re.findall(r"\b[\w/]+\.py\b|\b[a-z_/]+/", block)
    assert len(names) > 15
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "lilo_jax" / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_and_headings_exist(page):
    folder = (ROOT if (ROOT / page).exists() else ROOT / "docs") / pathlib.Path(page).parent
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        path = folder / target if target else folder / pathlib.Path(page).name
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}


def test_every_page_is_on_the_site():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    on_site = re.findall(r": ([\w/]+\.md)$", site, re.MULTILINE)
    assert sorted(on_site) == sorted({*PAGES} - {"README.md", "CONTRIBUTING.md", "AGENTS.md"})


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "reference" / "curriculum" / "index.html").stat().st_size > 50_000


def test_the_tables_of_the_site_hold_what_the_code_has():
    made = {mark for text in PAGES.values() for mark in TABLES_OF_DOCS.MARK.findall(text)}
    assert made == set(TABLES_OF_DOCS.TABLE)
    options = TABLES_OF_DOCS.options()
    for name in ("rollout.questions", "output-dir", "curriculum.refresh-every", "sft.optimizer.learning-rate"):
        assert f"`--{name}`" in options
    assert TABLES_OF_DOCS.glossary().count("\n| **") == 25
    for table in (TABLES_OF_DOCS.parts(), TABLES_OF_DOCS.face()):
        assert all(len(line.split(" | ")[1].strip(" |")) > 10 for line in table.splitlines()[2:])


def test_the_readme_is_short_and_claims_what_was_measured():
    assert len(README.encode()) <= 9_000
    blocks = re.findall(r"<!-- claims: of (\S+\.json), .*? -->\n(.*?)\n<!-- end of claims -->", README, re.DOTALL)
    assert [path for path, _ in blocks] == ["docs/results/quickstart.json", "docs/results/rloo.json"]
    for path, claimed in blocks:
        measured = json.loads((ROOT / path).read_text(encoding="utf-8"))
        assert claimed == claims(measured)
        assert measured["commit"]
        options = shlex.split(measured["command"])[3:]
        parsed = configuration.parse(QuickstartOptions(), options, prog="quickstart", description="")
        arms = labelled((parsed.arms or BEST[configuration.option_value(options, "--algorithm") or "ppo"]).split(","))
        assert set(measured["speedup"]) == set(arms) - {measured["baseline"]}
    for page, text in PAGES.items():
        assert not re.search(r"speed-ups? of 0\.", text), page


@pytest.mark.parametrize(
    ("mean", "says"), [(0.5, "2.00 times more steps [1.25, 4.00]"), (2.0, "2.00 times fewer steps"), (1.0, "as many")]
)
def test_a_claim_is_a_factor_of_at_least_one(mean, says):
    low, high = (0.25, 0.8) if mean == 0.5 else (None, None)
    ratio = {"mean": mean, "low": low, "high": high, "reached": 5, "of": 5, "by_seed": dict.fromkeys("01234", mean)}
    final = {arm: {"mean": 0.5} for arm in ("a", "b")}
    results = {"baseline": "a", "final": final, "speedup": {"b": {"steps": ratio, "generated_tokens": ratio}}}
    assert says in " ".join(claims(results).split())
    missed = ratio | {"of": 6, "median": 1.3, "median_low": 0.9, "median_high": 1.6}
    results["speedup"]["b"] = {"steps": missed, "generated_tokens": missed}
    said = " ".join(claims(results).split())
    assert "(5 of 6 seeds; speed-up of the median seed 1.30 [0.90, 1.60] and 1.30 [0.90, 1.60])" in said


def test_the_docs_list_every_algorithm_and_options_that_exist():
    text = PAGES["algorithms.md"]
    table = text[: text.index("## PPO")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ALGORITHMS) == set(SETTINGS)
    origins = text[text.index("## The settings of their origins") :]
    commands = re.findall(r"^python -m experiments.train ([^\n]*)", origins, re.MULTILINE)
    configs = [configuration.parse(Options(), shlex.split(c), prog="", description="").config for c in commands]
    assert [c.sft.steps for c in configs] == [222]
    recipes = [RECIPES[name] for name in re.findall(r"--recipe (\w+)", origins)]
    assert [c.update.epochs * c.update.minibatches for c in recipes] == [16, 8]
    assert [c.rollout.questions * c.rollout.samples for c in recipes] == [512, 1024]
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
    assert "<!-- table: parts -->" in DOCS
    named = set(re.findall(r"^\| `(\w+\.\w+)` \|", TABLES_OF_DOCS.parts(), re.MULTILINE))
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


def test_contributing_names_what_exists():
    for page in ("CONTRIBUTING.md", "AGENTS.md"):
        names = set(re.findall(r"`((?:lilo_jax|tests|docs|experiments|\.ci)/[\w./*-]+)`", PAGES[page]))
        assert len(names) > 3
        for name in names:
            if "NAME" not in name:
                assert list(ROOT.glob(name)), name
