"""The rules of the architecture, checked on the syntax trees of the sources."""

import ast
import dataclasses
import graphlib
import importlib
import json
import pathlib
import re
import typing

import pytest

import experiments.runner
from lilo_jax import config as configuration
from lilo_jax.config import TABLES, Config
from lilo_jax.curriculum.features import no_facts
from lilo_jax.grading.answers import Answer

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "lilo_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
PURE = [
    "types.py",
    "bounds.py",
    "errors.py",
    "keys.py",
    "models/*.py",
    "sampling/*.py",
    "curriculum/*.py",
    "curriculum/literature/*.py",
    "curriculum/rules/*.py",
    "rl/*.py",
    "simulation/*.py",
]
PURE_IMPORTS = {
    "annotated_types",
    "chex",
    "collections",
    "dataclasses",
    "difflib",
    "enum",
    "flax",
    "functools",
    "itertools",
    "jax",
    "jaxtyping",
    "math",
    "re",
    "numpy",  # tables built on the host
    "optax",
    "types",
    "typing",
    "zlib",
}


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def uses_of_jit(tree):
    """Lines that name jit, pjit or pmap of any module, or import them."""
    names = {"jit", "pjit", "pmap", "filter_jit"}
    for node in ast.walk(tree):
        used = node.attr in names if isinstance(node, ast.Attribute) else False
        imported = any(alias.name in names for alias in node.names) if isinstance(node, ast.ImportFrom) else False
        if used or imported:
            yield node.lineno


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_finder_of_jit_finds_it():
    assert list(uses_of_jit(ast.parse("import jax\nf = jax.jit(g)\n@nnx.jit\ndef h(): ...\nfrom jax import jit"))) != []
    assert list(uses_of_jit(ast.parse("'''jax.jit in a text'''"))) == []


def test_jit_is_in_one_room():
    with_jit = {path.relative_to(ROOT).parent.as_posix() for path in SOURCES if list(uses_of_jit(tree_of(path)))}
    assert with_jit == {"lilo_jax/device"}


def pure_modules():
    return sorted(path for pattern in PURE for path in (ROOT / "lilo_jax").glob(pattern))


@pytest.mark.parametrize("path", pure_modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_pure_modules_import_no_host_module(path):
    pure = {
        "lilo_jax." + p.relative_to(ROOT / "lilo_jax").with_suffix("").as_posix().replace("/", ".")
        for p in pure_modules()
    }
    pure |= {name.removesuffix(".__init__") for name in pure}
    for module in imported_modules(tree_of(path)):
        assert module in pure or module.split(".")[0] in PURE_IMPORTS, f"{path} imports {module}"


def rooms():
    """{room: what the table in docs/architecture.md lets it import}; the loose files are one room, `loose`."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    names = [re.findall(r"`([a-z_]+)(?:/|\.py)`", line[0]) for line in lines]
    return {
        ("loose" if len(name) > 1 else name[0]): set(re.findall(r"`([a-z_]+)`", line[2]))
        for name, line in zip(names, lines, strict=True)
    }


def room_of(module):
    """The room of a dotted name of the package; None is its face, `lilo_jax` itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return "loose" if (ROOT / "lilo_jax" / f"{parts[1]}.py").exists() else parts[1]


def test_rooms_import_what_the_table_says_and_no_arrow_runs_back_up():
    found = {room: set() for room in rooms()}
    for path in (ROOT / "lilo_jax").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if (room := room_of(module)) is None:
            continue
        for node in ast.walk(tree_of(path)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "lilo_jax":
                names = [f"lilo_jax.{alias.name}" for alias in node.names]
            found[room] |= {room_of(name) for name in names if name.split(".")[0] == "lilo_jax"} - {room, "loose"}
    assert found == rooms()
    list(graphlib.TopologicalSorter(found).static_order())  # raises at a circle


def test_few_files_lie_loose():
    assert len(list((ROOT / "lilo_jax").glob("*.py"))) <= 6


def test_the_assembly_stays_in_training():
    users = {
        path.relative_to(ROOT / "lilo_jax").parts[0]
        for path in (ROOT / "lilo_jax").rglob("*.py")
        if "Assembly" in path.read_text(encoding="utf-8")
    }
    assert users == {"training"}


def test_no_function_over_60_lines_and_no_file_over_400():
    for path in SOURCES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno + 1 <= 60, f"{path}: {node.name}"


def is_struct(node):
    decorated = {ast.unparse(d).partition("(")[0] for d in node.decorator_list}
    based = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    return "dataclasses.dataclass" in decorated or based & {"NamedTuple", "PyTreeNode"}


def test_there_are_at_most_126_public_structs_beside_those_that_are_one_of_a_kind_by_design():
    """Besides: settings of each thing that is chosen by name, sections of `Config`, kinds of values that are graded."""
    structs = {
        node.name
        for path in (ROOT / "lilo_jax").rglob("*.py")
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and is_struct(node) and not node.name.startswith("_")
    }
    chosen = {spec.__name__ for table in TABLES.values() for spec in table.values()}
    sections = {type(section).__name__ for section in vars(Config()).values() if dataclasses.is_dataclass(section)}
    values = {value.__name__ for value in typing.get_args(Answer)}
    assert chosen | sections | values <= structs
    assert len(structs - chosen - sections - values) <= 126, sorted(structs - chosen - sections - values)


def test_every_task_entry_constructs():
    for name, spec in TABLES["task"].items():
        settings = spec(**({"path": "x.jsonl"} if name == "jsonl" else {}))
        assert dataclasses.is_dataclass(settings)
        assert callable(settings.build)


def test_every_curriculum_entry_constructs():
    for spec in TABLES["curriculum"].values():
        curriculum = spec().build(pool_size=5000, questions=64, samples=8)
        assert curriculum.train_rows == 512  # allocations move rollouts between questions, none adds any
        assert curriculum.max_samples <= 512
        assert curriculum.init(no_facts(5000, curriculum.wants)).attempts.shape == (5000,)


def test_every_algorithm_entry_constructs():
    for spec in TABLES["algorithm"].values():
        algorithm = spec().build()
        assert algorithm.needs_values == (algorithm.value_loss is not None)


@pytest.mark.parametrize("name", experiments.runner.experiments())
def test_every_experiment_config_builds_prints_and_reloads(name):
    module = importlib.import_module(f"experiments.{name}")
    config = module.config()
    assert isinstance(config, Config)
    printed = json.dumps(configuration.to_dict(config))
    assert configuration.from_dict(json.loads(printed)) == config
    assert f"python -m experiments.{name}" in module.__doc__
