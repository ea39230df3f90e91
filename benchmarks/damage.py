"""Damaged copies of a run, and what each verb makes of them: the trials of `benchmarks/faults.py` that need no process.

A bit is flipped, a file is cut or a file is deleted, anywhere below a finished run or one that was stopped half-way.
Whatever then reads the copy must refuse it in one sentence, or find exactly what is in the undamaged one.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from lilo_jax.cli import measuring
from lilo_jax.config import Config, Launch
from lilo_jax.pretrained.export import export
from lilo_jax.processes.endings import FAULT, message
from lilo_jax.report.html import report_runs
from lilo_jax.storage.digest import digest_lines
from lilo_jax.training.opening import LOCK
from lilo_jax.training.run import run

HARMS = ("flip", "cut", "delete")
VERBS = ("resume", "export", "eval", "report", "digest")


class Damage:
    """Copies of the two runs, and what the verbs make of them when they are whole."""

    def __init__(self, config: Config, copies: dict[str, pathlib.Path], root: pathlib.Path) -> None:
        """`copies`: the runs by name; one of them is finished."""
        self._config, self._copies, self._root = config, copies, root
        self._whole: dict[tuple[str, str], Any] = {}

    def trial(self, harm: str, seed: int) -> tuple[str, str]:
        """Does harm to a copy and lets a verb read it: an outcome of `faults.OUTCOMES`, and what was done."""
        rng = random.Random(f"{harm} {seed}")
        name, verb = rng.choice(sorted(self._copies)), rng.choice(VERBS)
        with tempfile.TemporaryDirectory(dir=self._root) as place:
            copy = pathlib.Path(shutil.copytree(self._copies[name], pathlib.Path(place) / "run"))
            file = rng.choice(sorted(p for p in copy.rglob("*") if p.is_file()))
            done = _harm(file, harm, rng)
            what = f"{name}: {harm} {file.relative_to(copy)} {done}, then {verb}"
            before = _files(copy)
            kind, found = self.read(verb, copy, copy.parent)
            if verb != "resume" and _files(copy) != before:
                return "different", f"{what}: reading has changed a file"
        if kind:
            return kind, f"{what}: {found}"
        return ("equal" if found == self._expected(name, verb) else "different"), what

    def _expected(self, name: str, verb: str) -> Any:
        """What a verb makes of the whole run."""
        if (name, verb) not in self._whole:
            with tempfile.TemporaryDirectory(dir=self._root) as place:
                copy = pathlib.Path(shutil.copytree(self._copies[name], pathlib.Path(place) / "run"))
                kind, found = self.read(verb, copy, copy.parent)
                assert not kind, found
                self._whole[name, verb] = found
        return self._whole[name, verb]

    def read(self, verb: str, copy: pathlib.Path, place: pathlib.Path) -> tuple[str, Any]:
        """What a verb finds in a run, after an empty text, or how it ends; `place` is for what it writes."""
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                return "", getattr(self, f"_{verb}")(copy, place)
        except Exception as error:
            said = message(error)
            return ("traceback" if FAULT in said or "\n" in said else "refused"), said

    def _resume(self, copy: pathlib.Path, place: pathlib.Path) -> Any:
        run(self._config, Launch(output_dir=str(copy)), bar=False)
        return digest_lines(copy)

    def _digest(self, copy: pathlib.Path, place: pathlib.Path) -> Any:
        return digest_lines(copy)

    def _export(self, copy: pathlib.Path, place: pathlib.Path) -> Any:
        export(str(copy), place / "exported")
        return _files(place / "exported")

    def _eval(self, copy: pathlib.Path, place: pathlib.Path) -> Any:
        output = place / "evaluated"
        measuring.evaluate(
            str(copy), "task", "greedy", output, None, "", stop=(), shots=0, template="", template_file=None,
            chat=False, system="", dtype="float32", max_questions=8, workers=0,
        )  # fmt: skip
        (responses,) = [p for p in output.rglob("*.jsonl") if p.is_file()]
        records = [json.loads(line) for line in responses.read_text(encoding="utf-8").splitlines()]
        return [record["responses"] for record in records]

    def _report(self, copy: pathlib.Path, place: pathlib.Path) -> Any:
        page = report_runs([copy], place / "report.html").read_text(encoding="utf-8")
        return page.replace(str(copy.parent), "")


def _harm(file: pathlib.Path, harm: str, rng: random.Random) -> str:
    content = file.read_bytes()
    if harm == "delete":
        file.unlink()
        return ""
    if harm == "cut" or not content:
        size = rng.randrange(max(len(content), 1))
        file.write_bytes(content[:size])
        return f"to {size} of {len(content)} bytes"
    bit = rng.randrange(8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    return f"bit {bit}"


def _files(directory: pathlib.Path) -> dict[str, str]:
    """Hash of every file by name, but for the lock, which only says who wrote last."""

    def each() -> Iterator[tuple[str, str]]:
        for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != LOCK):
            yield path.relative_to(directory).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()

    return dict(each())
