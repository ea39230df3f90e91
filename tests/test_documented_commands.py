"""The commands of README and docs that take less than a minute run as they stand there, in a user's directory."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import datasets
import pytest

from lilo_jax import cli

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:lilo|python -m experiments\.train) .*$", re.MULTILINE)
LONG = re.compile(r"experiments\.train (?!--num-steps 10 |--help|--print)")
"""Training of more than a minute."""
FROM_THE_HUB = re.compile(r"math500,|--suite gsm8k")
OF_ANOTHER_TEST = re.compile(r"lilo import gguf FILE |lilo plan |lilo compare |lilo report runs/quickstart ")
"""test_gguf.py writes the files that it imports, test_planning.py needs a compiler, test_paired.py several runs."""
USERS_TURNS = "{% for turn in messages if turn.role == 'user' %}{{ turn.content }}{% endfor %}"
"""A chat template."""
SUMS = [(f"{a}+{b}=", str(a + b)) for a in range(8) for b in range(5)]


def commands():
    """Each command once, README's first: later ones read what earlier ones wrote."""
    blocks = [block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    found = [line.split("  #")[0].strip() for block in blocks for line in COMMAND.findall(block.replace("\\\n", " "))]
    left_out = (LONG, FROM_THE_HUB, OF_ANOTHER_TEST)
    return [line for line in dict.fromkeys(found) if not any(kind.search(line) for kind in left_out)]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def home(tiny_run, tmp_path, monkeypatch):
    """A directory with the runs, the model and the files that the documents speak of."""
    (tmp_path / "runs").mkdir()
    for name in ("runs/mine", "runs/gsm8k", "RUN"):
        shutil.copytree(tiny_run[1].path, tmp_path / name)
    write_lines(tmp_path / "questions.jsonl", [{"question": text, "answer": answer} for text, answer in SUMS])
    rows = {"problem": [text for text, _ in SUMS], "answer": [answer for _, answer in SUMS]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "questions.parquet")
    write_lines(tmp_path / "answers.jsonl", [{"gold": "5", "response": "so it is \\boxed{5}"}])
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": "12"}, {"prompt": "345"}])
    write_lines(tmp_path / "tokens.jsonl", [{"tokens": [1, 2, 3]}])
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "lilo export RUN --output MODEL") == 0
    (tmp_path / "MODEL" / "chat_template.jinja").write_text(USERS_TURNS)
    return tmp_path


def run(monkeypatch, command):
    """Its exit status; `lilo` runs in this process, which has loaded everything."""
    words = shlex.split(command)
    if words[0] != "lilo":
        return subprocess.call([sys.executable, *words[1:]], env=os.environ | {"PYTHONPATH": str(ROOT)})
    monkeypatch.setattr(sys, "argv", words)
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_commands_are_found():
    assert len(commands()) >= 18
    assert "lilo data check questions.jsonl" in commands()


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_every_short_command_of_the_documents_runs(monkeypatch):
    for command in commands():
        assert run(monkeypatch, command) == 0, command
