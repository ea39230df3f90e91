"""Verdicts of grading processes, step by step, so that a step that is taken again does not depend on the clock.

An answer that is graded in a process may run into its deadline, and would not do so again.  What a process found in a
step is therefore written down when it is known, and believed when a run that was cut short takes the step once more.
(Verdicts that are remembered from earlier steps are written down too: the run that goes on no longer remembers them.)
"""

import collections
import dataclasses
import json
import threading
import time
from typing import Any

from lilo_jax.grading.judgement import Judgement
from lilo_jax.processes import hosts
from lilo_jax.questions import Verdict
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.checked_files import hash_of
from lilo_jax.storage.files import append_line, write_at
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath

PAUSE = 1.0
"""Seconds between two requests to a bucket; what a killed process has found since its last one is graded again."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """One answer that was to be graded: in which step, which, and for the how-many-th time in it."""

    step: int
    answer: str
    time: int


class Journal:
    """The verdicts of the steps since the last checkpoint but one, a file for each and for each process."""

    def __init__(self, folder: AnyPath) -> None:
        self._folder, self._step = folder, 0
        self._pause = PAUSE if isinstance(folder, BucketPath) else 0.0
        self._waiting: dict[int, list[str]] = {}
        self._written_at = -PAUSE
        self._times: collections.Counter[str] = collections.Counter()
        self._known: dict[Asked, Judgement] = {}
        self._lock = threading.Lock()  # verdicts arrive in threads of their own

    def turn_to(self, step: int) -> None:
        """Begins a step, or takes it again."""
        with self._lock:
            self._write_waiting()
            self._step, self._known = step, {}
            files: list[AnyPath] = sorted(self._folder.glob(f"{_name(step)}*.jsonl"))
            for file in files:
                self._known |= _read(file, step)
            self._times.clear()

    def ask(self, answer: str) -> Asked:
        """Notes that an answer, named by a hash, is to be graded."""
        with self._lock:
            self._times[answer] += 1
            return Asked(self._step, answer, self._times[answer])

    def known(self, asked: Asked) -> Judgement | None:
        """What was found when the step was taken before."""
        return self._known.get(asked)

    def write(self, asked: Asked, found: Judgement) -> None:
        """Writes down what was found."""
        line = {"answer": asked.answer, "time": asked.time, **found._asdict(), "verdict": found.verdict.value}
        with self._lock:
            self._waiting.setdefault(asked.step, []).append(to_json({**line, "checksum": hash_of(line)}))
            if time.monotonic() - self._written_at >= self._pause:
                self._write_waiting()

    def forget_before(self, step: int) -> None:
        """Deletes the files of steps that no checkpoint can bring back."""
        for file in self._folder.glob("step_*.jsonl"):
            if int(file.stem.split("_")[1]) < step:
                file.unlink(missing_ok=True)  # the other processes tidy up too

    def _write_waiting(self) -> None:
        while self._waiting:
            step, lines = self._waiting.popitem()
            self._folder.mkdir(exist_ok=True)
            append_line(self._file(step), "\n".join(lines))
        self._written_at = time.monotonic()

    def _file(self, step: int) -> AnyPath:
        host = f"_{hosts.index()}" if hosts.index() else ""
        return self._folder / f"{_name(step)}{host}.jsonl"


def _name(step: int) -> str:
    return f"step_{step:06d}"


def _read(file: AnyPath, step: int) -> dict[Asked, Judgement]:
    """What stands in a file; a line that was changed is as if it were not there, and one that was cut is taken off."""
    found: dict[Asked, Judgement] = {}
    if not file.exists():
        return found
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_at(file, len(whole), b"")
    for line in whole.splitlines():
        try:
            record: dict[str, Any] = json.loads(line)
            if record.pop("checksum") != hash_of(record):
                continue
            asked = Asked(step, record.pop("answer"), record.pop("time"))
            found[asked] = Judgement(**{**record, "verdict": Verdict(record["verdict"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
