"""A run's directory: its config, its records, and whether it is finished.

config.json        reloadable          environment.json   versions, devices, commit, command
metrics.jsonl      one line a step, deterministic fields only
timings.jsonl      one line a step     eval.jsonl         one line per evaluation and split
ledger.jsonl       one line a step     rollouts/          full rollouts of some steps
grading.jsonl      one line a step     generations/       responses of sampled evaluations
checkpoints/       tokenizer/          log.txt            report.html        DONE or FAILED

What a curriculum had to be told of the questions before the first step has a line of step -1 in timings, ledger and
grading.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.json_lines import to_json, write_records
from lilo_jax.redaction import redacted

RECORDS = ("metrics", "timings", "eval", "ledger", "grading", "suspects")
BEFORE = -1
"""The step whose records are of what was paid before the first one."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


class RunDirectory:
    """Reads and writes one run's files."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path).absolute()

    @property
    def config_path(self) -> pathlib.Path:
        """Where the resolved config is."""
        return self.path / "config.json"

    @property
    def tokenizer_path(self) -> pathlib.Path:
        """Where the tokenizer is."""
        return self.path / "tokenizer"

    @property
    def checkpoints_path(self) -> pathlib.Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    def is_done(self) -> bool:
        """Whether the run reached its last step."""
        return (self.path / "DONE").exists()

    def mark(self, outcome: str, message: str) -> None:
        """Writes DONE or FAILED, and removes the other."""
        for name in ("DONE", "FAILED"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / outcome).write_text(message + "\n", encoding="utf-8")

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds a line to one of the `RECORDS`."""
        with open(self.path / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")

    def read(self, name: str) -> list[dict[str, Any]]:
        """All lines of one of the `RECORDS`; none if there is no such file."""
        return list(_lines(self.path / f"{name}.jsonl"))

    def write_rollouts(self, step: int, records: list[dict[str, Any]]) -> None:
        """Writes the rollouts of a step."""
        path = self.path / "rollouts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(to_json(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")

    def rollouts(self) -> dict[int, list[dict[str, Any]]]:
        """Recorded rollouts by step."""
        files = sorted((self.path / "rollouts").glob("step_*.jsonl"))
        return {int(file.stem.removeprefix("step_")): list(_lines(file)) for file in files}

    def write_generations(self, step: int, split: str, records: Iterable[dict[str, Any]], *, only: bool) -> None:
        """Writes the responses of an evaluation; with `only`, those of earlier steps are dropped."""
        path = self.path / "generations" / f"step_{step:06d}_{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_records(path, records)
        for older in path.parent.glob("step_*.jsonl"):
            if only and older != path and older.stem.split("_", 2)[2] == split:
                older.unlink()

    def forget_after(self, step: int) -> None:
        """Drops the records of steps that a resumed run will take again: those beyond the checkpoint at `step`.

        A step's own records carry its number before the step is counted; an evaluation carries the number of steps
        taken, and the one at `step` belongs to the checkpoint.
        """
        for name in RECORDS:
            path = self.path / f"{name}.jsonl"
            kept = [r for r in _lines(path) if r["step"] < step or (name in ("eval", "suspects") and r["step"] == step)]
            if path.exists():
                _replace(path, "".join(to_json(r) + "\n" for r in kept))
        for taken in (self.path / "rollouts").glob("step_*.jsonl"):
            if int(taken.stem.removeprefix("step_")) >= step:
                taken.unlink()
        for taken in (self.path / "generations").glob("step_*.jsonl"):
            if int(taken.stem.split("_")[1]) > step:
                taken.unlink()

    def log(self, message: str) -> None:
        """Adds a dated line to log.txt."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{now} {message}\n")


def open_run(path: pathlib.Path | str, config: Config, resume: str) -> RunDirectory:
    """The directory of a run, new or to be gone on with; refuses one that holds something else.

    Args:
        path: of the directory.
        config: of the run.  It may differ from a stored one in `mesh` only.
        resume: as in `Launch.resume`.
    """
    directory = RunDirectory(path)
    if directory.path.is_file():
        raise UsageError(f"{path} is a file; pass another --output-dir")
    if not directory.config_path.exists():
        if directory.path.exists() and any(directory.path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no run; pass another --output-dir")
        if resume == "must":
            raise UsageError(f"--resume must, but there is no run in {path}")
        directory.path.mkdir(parents=True, exist_ok=True)
        _replace(directory.path / "environment.json", to_json(_environment(), indent=2) + "\n")
        _replace(directory.config_path, to_json(configuration.to_dict(config), indent=2) + "\n")
        return directory
    if resume == "never":
        raise UsageError(f"{path} already holds a run; pass another --output-dir, or --resume auto to go on with it")
    differences = _differences(
        configuration.to_dict(configuration.load(directory.config_path)), configuration.to_dict(config)
    )
    if differences:
        raise UsageError(
            f"{path} holds a run of another config ({'; '.join(differences[:4])}); pass another --output-dir, "
            f"or the config of that run to go on with it"
        )
    (directory.path / "FAILED").unlink(missing_ok=True)
    return directory


def _differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name in sorted(stored.keys() | asked.keys()):
        before, now = stored.get(name), asked.get(name)
        if prefix + name == "mesh" or before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} is {before!r} there and {now!r} here")
    return found


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a JSON-lines file; a last line cut short by a crash is left out."""
    if path.exists():
        *whole, _ = path.read_text(encoding="utf-8").split("\n")  # a response may hold other line separators
        yield from map(json.loads, whole)


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a crash leaves the old one or the new one."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _environment() -> dict[str, Any]:
    git = shutil.which("git")
    commit = ""
    if git:
        command = [git, "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "commit": commit,
        "command": redacted(sys.argv),
    }
