"""A look at a data set before anything is trained on it: rendered prompts, and what is wrong with the rows."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from lilo_jax.errors import UsageError
from lilo_jax.grading.answers import Expression
from lilo_jax.grading.pool import GradingPool, judge_all
from lilo_jax.grading.reading import read
from lilo_jax.grading.symbolic import equivalent
from lilo_jax.json_lines import parse_record
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks.dataset import NO_SOURCE, Dataset
from lilo_jax.tasks.published import Published
from lilo_jax.tasks.rows import SPLITS, Row, read_rows, split_files, split_names

SHOWN = 3
"""Prompts that are rendered."""
LISTED = 20
"""Findings of a kind that are listed; the others are counted."""


class Finding(NamedTuple):
    """Something wrong: its kind, and where."""

    kind: str
    message: str


@dataclasses.dataclass
class Look:
    """What was seen.

    Attributes:
        splits: questions by split, with the place of each.
        findings: what is wrong.
    """

    splits: dict[str, list[tuple[str, Question]]]
    findings: list[Finding]


def look(spec: Any) -> Look:
    """Reads all of a task, past its mistakes.

    Args:
        spec: settings of a task; of one without rows, which is generated, only the splits are compared.

    Raises:
        UsageError: there is nothing to read.
    """
    seen = Look({}, [])
    if isinstance(spec, Published | Dataset):
        for split, files in _files(spec).items():
            seen.splits[split] = list(_questions(spec, files, seen.findings))
    else:
        task = spec.build(0)
        for split, questions in task.splits.items():
            seen.splits[split] = [(f"{split}, question {i}", q) for i, q in enumerate(questions, start=1)]
    seen.findings += _repetitions(seen)
    if isinstance(spec, Published | Dataset):
        seen.findings += _unread_golds(seen)
    return seen


def lines(name: str, seen: Look) -> Iterator[str]:
    """The look as text."""
    yield f"{name}: " + ", ".join(f"{len(questions)} {split}" for split, questions in seen.splits.items())
    first = next((questions for questions in seen.splits.values() if questions), [])
    for where, question in first[:SHOWN]:
        yield f"\n--- {where}\n{question.prompt}\n--- gold: {question.answer}"
    yield ""
    kinds = dict.fromkeys(finding.kind for finding in seen.findings)
    for kind in kinds:
        found = [finding.message for finding in seen.findings if finding.kind == kind]
        yield f"{kind}: {len(found)}"
        yield from (f"  {message}" for message in found[:LISTED])
        if len(found) > LISTED:
            yield f"  and {len(found) - LISTED} more"
    if not kinds:
        yield "nothing wrong was found"


def _files(spec: Published | Dataset) -> dict[str, list[pathlib.Path]]:
    source = spec.SOURCE if isinstance(spec, Published) else NO_SOURCE
    names = split_names(source, spec.path, revision=spec.revision) or {"train"}
    return {name: split_files(source, spec.path, name, revision=spec.revision) for name in SPLITS if name in names}


def _questions(
    spec: Published | Dataset, files: list[pathlib.Path], findings: list[Finding]
) -> Iterator[tuple[str, Question]]:
    for file in files:
        for row in _rows(file, findings):
            try:
                question = spec.checked(row)
            except UsageError as error:
                findings.append(Finding("broken rows", str(error)))
                continue
            yield row.where, question


def _rows(file: pathlib.Path, findings: list[Finding]) -> Iterator[Row]:
    """The rows of a file; broken JSON lines are noted, not raised."""
    if file.suffix != ".jsonl":
        yield from read_rows(file)
        return
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Row(f"{file}, line {number}", parse_record(file, number, line.decode("utf-8")))
        except UnicodeDecodeError as error:
            findings.append(Finding("broken rows", f"{file}, line {number}: not UTF-8 ({error.reason})"))
        except UsageError as error:
            findings.append(Finding("broken rows", str(error)))


def _repetitions(seen: Look) -> Iterator[Finding]:
    """Questions asked twice, within a split and across splits."""
    places: dict[str, tuple[str, str]] = {}
    for split, questions in seen.splits.items():
        for where, question in questions:
            text = question.text or question.prompt
            if text not in places:
                places[text] = split, where
                continue
            other, before = places[text]
            kind = "repeated questions" if other == split else f"questions of {split} that are also in {other}"
            yield Finding(kind, f"{where}: same question as {before}")


@dataclasses.dataclass(frozen=True)
class _Readable:
    """Grades whether an expression can be parsed."""

    def __call__(self, question: Question, response: str) -> Verdict:
        return Verdict.CORRECT if equivalent(response, response) else Verdict.WRONG


def _unread_golds(seen: Look) -> Iterator[Finding]:
    """Golds that are compared only as they are spelt: nothing else equal to them will be found correct."""
    asked = []
    for questions in seen.splits.values():
        for where, question in questions:
            answer = read(question.answer)
            if isinstance(answer, Expression):
                asked.append((where, question, answer.latex))
    if not asked:
        return
    with GradingPool(workers=2) as pool:
        judgements = judge_all(pool, _Readable(), [(question, latex) for _, question, latex in asked])
    for (where, question, _), judgement in zip(asked, judgements, strict=True):
        if judgement.verdict is not Verdict.CORRECT:
            yield Finding("golds that no algebra reads", f"{where}: {question.answer[:80]}")
