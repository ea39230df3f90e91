"""The face of the library: every name of `lilo_jax` and its example, and one import line for a rule of one's own."""

import ast
import doctest
import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

import lilo_jax
from lilo_jax import curriculum, types

ROOT = pathlib.Path(__file__).parent.parent


def example_of(name):
    """The example in the docstring of a name of the face."""
    value = getattr(lilo_jax, name)
    found = doctest.DocTestFinder(recurse=False).find(
        value, name, globs=vars(importlib.import_module(value.__module__)).copy()
    )
    (test,) = [test for test in found if test.name == name]
    return test


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `runs/tiny` lies, the run of the example of `run`, which other examples read."""
    folder = tmp_path_factory.mktemp("face")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = doctest.DocTestRunner().run(example_of("run"))
        assert result.failed == 0
    return folder


@pytest.mark.parametrize("name", lilo_jax.__all__)
def test_every_name_has_an_example_that_works(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    test = example_of(name)
    assert test.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_face_is_small_and_whole():
    assert 18 <= len(lilo_jax.__all__) <= 24
    assert sorted(lilo_jax.__all__) == lilo_jax.__all__
    public = {
        name for name, value in vars(lilo_jax).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(lilo_jax.__all__)


def test_a_rule_is_one_import_line():
    """What rules of the package are made of, `lilo_jax.curriculum` exports; but for what one paper alone remembers."""
    folder = pathlib.Path(curriculum.__file__).parent
    used = {}
    for path in folder.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.match(r"lilo_jax\.(curriculum\.\w+|types)$", node.module):
                used |= {alias.name: node.module.split(".")[-1] for alias in node.names}
    own = {"buffers", "controllers", "features", "types"}
    missing = {name for name, module in used.items() if module not in own} - set(curriculum.__all__)
    assert missing == set(), missing
    assert len(set(curriculum.__all__)) == len(curriculum.__all__)
    assert all(hasattr(curriculum, name) for name in curriculum.__all__)


def test_the_glossary_has_at_most_25_words():
    entries = re.findall(r"^    ([a-z][a-z-]*) {2,}(\S.*)$", types.__doc__.split("The axes of arrays")[0], re.MULTILINE)
    assert 20 <= len(entries) <= 25
    assert len(dict(entries)) == len(entries)


def test_a_flax_that_the_jax_is_too_new_for_is_named(tmp_path):
    (tmp_path / "flax").mkdir()
    (tmp_path / "flax" / "__init__.py").write_text("")
    (tmp_path / "flax" / "nnx.py").write_text("import jax\njax.experimental.hijax.MutableHiType")
    (tmp_path / "flax-0.12.8.dist-info").mkdir()
    (tmp_path / "flax-0.12.8.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: flax\nVersion: 0.12.8\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", "import lilo_jax"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = f"ImportError: flax 0.12.8 and jax {jax.__version__} do not go together: pip install --upgrade flax"
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == said
