"""A run's directory: its config, its records, and whether it is finished.

config.json        reloadable          environment.json   versions, devices, commit, command
metrics.jsonl      one line a step, deterministic fields only
timings.jsonl      one line a step     eval.jsonl         one line per evaluation and split
ledger.jsonl       one line a step     rollouts/          full rollouts of some steps
groups.jsonl       one line a step     log.txt
grading.jsonl      one line a step     generations/       responses of sampled evaluations
checkpoints/       tokenizer/          report.html        DONE or FAILED

What a curriculum had to be told of the questions before the first step has a line of step -1 in timings, ledger and
grading.
"""

import collections
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.checked_files import CheckedFiles, Entry
from lilo_jax.storage.checkpoints import newest
from lilo_jax.storage.files import append_line, write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.redaction import redacted

CONFIG, ENVIRONMENT, QUESTIONS = "config.json", "environment.json", "questions.jsonl"
DESCRIPTION = (ENVIRONMENT, QUESTIONS, CONFIG)
"""What is written before anything is computed."""
TOKENIZER = "tokenizer"
RECORDS = ("metrics", "timings", "eval", "ledger", "groups", "grading", "suspects")
BEFORE = -1
"""The step whose records are of what was paid before the first one."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


class RunDirectory:
    """Reads and writes one run's files.  Reading changes nothing; who writes holds the lock (see `open_run`)."""

    def __init__(self, path: AnyPath | str) -> None:
        self.path: AnyPath = path_of(path).absolute()
        self.files = CheckedFiles(self.path)

    @property
    def config_path(self) -> AnyPath:
        """Where the resolved config is."""
        return self.path / CONFIG

    @property
    def tokenizer_path(self) -> AnyPath:
        """Where the tokenizer is; raises `UsageError` if there is none yet, `RunError` if it is damaged."""
        if not self.files.check_folder(TOKENIZER):
            raise UsageError(f"{self.path} holds no tokenizer: the run has not got as far as its first checkpoint")
        return self.path / TOKENIZER

    @property
    def checkpoints_path(self) -> AnyPath:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    def must_exist(self) -> None:
        """Raises `UsageError` if there is no run."""
        if not self.config_path.exists():
            raise UsageError(f"no run in {self.path}")

    def config_values(self) -> dict[str, Any]:
        """What stands in `config.json`, as it was written."""
        return json.loads(self._described(CONFIG))

    def config_text(self) -> bytes:
        """What stands in `config.json`; raises `UsageError` if there is none."""
        return self._described(CONFIG)

    def environment(self) -> dict[str, Any]:
        """What stands in `environment.json`."""
        return json.loads(self._described(ENVIRONMENT))

    def questions(self) -> list[dict[str, Any]]:
        """`split`, `id`, `content` and `where` of every question that the run depends on, in order; none if unknown."""
        return self._lines(QUESTIONS)

    def done_steps(self) -> int | None:
        """The steps after which the run was done; None if it is not."""
        try:
            text = (self.path / "DONE").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        found = re.fullmatch(r"(\d+) steps\n", text)
        if not found:
            raise RunError(f"{self.path / 'DONE'} is damaged: delete it and go on with the run, which writes it again")
        return int(found[1])

    def is_done(self) -> bool:
        """Whether the run reached its last step."""
        return self.done_steps() is not None

    def newest_step(self) -> int:
        """The step of the newest checkpoint; of a finished run its last one, or `RunError`."""
        step, done = newest(self.checkpoints_path), self.done_steps()
        if done not in (None, step):
            raise RunError(
                f"{self.path} was done after {done} steps and its newest checkpoint is of step {step}: put the "
                f"missing one back, or delete DONE and go on with the run"
            )
        return step

    def mark(self, outcome: str, message: str) -> None:
        """Writes DONE or FAILED, and removes the other."""
        for name in ("DONE", "FAILED"):
            (self.path / name).unlink(missing_ok=True)
        write_whole(self.path / outcome, message + "\n")

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds a line to one of the `RECORDS`."""
        self.files.append(f"{name}.jsonl", (to_json(record) + "\n").encode())

    def read(self, name: str) -> list[dict[str, Any]]:
        """All lines of one of the `RECORDS`; none if nothing was recorded."""
        return self._lines(f"{name}.jsonl")

    def write_rollouts(self, step: int, records: Iterable[dict[str, Any]]) -> None:
        """Writes the rollouts of a step."""
        self._write_lines(f"rollouts/step_{step:06d}.jsonl", records)

    def rollouts(self) -> dict[int, list[dict[str, Any]]]:
        """Recorded rollouts by step."""
        return {_step_of(name): self._lines(name) for name in self.files.names("rollouts")}

    def write_generations(self, step: int, split: str, records: Iterable[dict[str, Any]], *, only: bool) -> None:
        """Writes the responses of an evaluation; with `only`, those of earlier steps are dropped."""
        new = f"generations/step_{step:06d}_{split}.jsonl"
        self._write_lines(new, records)
        of_split = [name for name in self.files.names("generations") if name.split("_", 2)[2] == f"{split}.jsonl"]
        if only:
            self.files.remove(name for name in of_split if name != new)

    def generations(self, step: int, split: str) -> list[dict[str, Any]]:
        """The responses of an evaluation; none if they were not kept."""
        return self._lines(f"generations/step_{step:06d}_{split}.jsonl")

    def written(self) -> dict[str, Entry]:
        """What has been recorded so far, JSON-ready: where `rewind` goes back to."""
        return {name: entry for name, entry in self.files.state().items() if name not in DESCRIPTION}

    def rewind(self, written: Mapping[str, Entry] | None) -> None:
        """Goes back to what had been recorded at a checkpoint; None: to nothing.

        Raises:
            RunError: there are records of steps but no checkpoint, or a file is not what it was then.
        """
        if written is None and (self.path / "metrics.jsonl").exists():
            raise RunError(
                f"{self.path} has records of steps and no finished checkpoint: put {self.checkpoints_path.name}/ back, "
                f"or pass another --output-dir"
            )
        description = {name: entry for name, entry in self.files.state().items() if name in DESCRIPTION}
        kept = {name: entry for name, entry in (written or {}).items() if not self._was_replaced(name)}
        self.files.rewind({**kept, **description})

    def _was_replaced(self, name: str) -> bool:
        """Whether a file is of responses that those of a later evaluation, which is taken again, had replaced."""
        return name.startswith("generations/") and not (self.path / name).exists()

    def log(self, message: str) -> None:
        """Adds a dated line to log.txt."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append_line(self.path / "log.txt", f"{now} {message}")

    def describe(self, config: Mapping[str, Any], questions: bytes) -> None:
        """Writes what the run is, before anything is computed; the config is a JSON-ready dictionary."""
        self.files.write(ENVIRONMENT, _json(_environment()))
        self.files.write(QUESTIONS, questions)
        self.store_config(config)

    def store_config(self, config: Mapping[str, Any]) -> None:
        """Writes the config, in place of an earlier one."""
        self.files.write(CONFIG, _json(config))

    def write_tokenizer(self, save: Callable[[AnyPath], None]) -> None:
        """Has a tokenizer saved where it belongs."""
        save(self.path / TOKENIZER)
        self.files.adopt(TOKENIZER)

    def _described(self, name: str) -> bytes:
        content = self.files.read(name)
        if content is None:
            raise UsageError(f"no {name} in {self.path}: is it a run directory?")
        return content

    def _lines(self, name: str) -> list[dict[str, Any]]:
        *whole, _ = (self.files.read(name) or b"").decode().split("\n")  # a response may hold other line separators
        return [json.loads(line) for line in whole]

    def _write_lines(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        lines = (to_json(record, ensure_ascii=False) + "\n" for record in records)
        self.files.write(name, "".join(lines).encode())


class SilentRunDirectory(RunDirectory):
    """A run's directory for a process that is not the first of the run: it reads what that one writes, no more."""

    def mark(self, outcome: str, message: str) -> None: ...

    def append(self, name: str, record: dict[str, Any]) -> None: ...

    def write_rollouts(self, step: int, records: Iterable[dict[str, Any]]) -> None: ...

    def write_generations(self, step: int, split: str, records: Iterable[dict[str, Any]], *, only: bool) -> None: ...

    def rewind(self, written: Mapping[str, Entry] | None) -> None: ...

    def log(self, message: str) -> None: ...

    def describe(self, config: Mapping[str, Any], questions: bytes) -> None: ...

    def store_config(self, config: Mapping[str, Any]) -> None: ...

    def write_tokenizer(self, save: Callable[[AnyPath], None]) -> None: ...

    def written(self) -> dict[str, Entry]:
        """Nothing: what is saved of it is the first process's."""
        return {}


def _step_of(name: str) -> int:
    """Of `folder/step_000020...`."""
    return int(name.partition("/step_")[2][:6])


def _json(values: Any) -> bytes:
    return (to_json(values, indent=2) + "\n").encode()


@functools.cache
def current_commit() -> str:
    """The commit of the sources, with -dirty where they differ from it; "" if they are in no repository.

    It is that of the first call: what a process writes into its sources later was not what it ran.
    """
    git = shutil.which("git")
    if not git:
        return ""
    command = [git, "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "device_kinds": dict(collections.Counter(device.device_kind for device in jax.devices())),
        "cores": os.cpu_count(),
        "processes": jax.process_count(),
        "commit": current_commit(),
        "command": redacted(sys.argv),
    }
