"""A look at a data set before anything is trained on it: rendered prompts, and what is wrong with the rows."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lilo_jax.errors import UsageError
from lilo_jax.grading.answers import Expression
from lilo_jax.grading.reading import read
from lilo_jax.grading.symbolic import equivalent
from lilo_jax.grading.workers import GradingWorkers, judge_all
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks.dataset import NO_SOURCE, Dataset
from lilo_jax.tasks.identity import distinct, read_questions, repeated_ids, repeats
from lilo_jax.tasks.published import Published
from lilo_jax.tasks.rows import SPLITS, split_files, split_names

SHOWN = 3
"""Prompts that are rendered."""
LISTED = 20
"""Findings of a kind that are listed; the others are counted."""
WIDEST = 2000
"""Characters of a prompt or gold that are shown."""
CHARACTERS = 3
"""Of a token of English mathematics, by which tokens are estimated."""

Splits = Mapping[str, Sequence[Question]]


class Finding(NamedTuple):
    """Something wrong: its kind, and where."""

    kind: str
    message: str


class _Look(NamedTuple):
    """What was seen.

    Attributes:
        splits: questions by split.
        findings: what is wrong.
    """

    splits: dict[str, Sequence[Question]]
    findings: list[Finding]


def look(spec: Any) -> _Look:
    """Reads all of a task, past its mistakes, as training reads it.

    Args:
        spec: settings of a task; of one without rows, which is generated, only the splits are compared.

    Raises:
        UsageError: there is nothing to read.
    """
    if not isinstance(spec, Published | Dataset):
        splits = dict(spec.build(0).splits)
        return _Look(splits, list(_repetitions(splits)))
    findings: list[Finding] = []

    def broken(error: UsageError) -> None:
        findings.append(Finding("broken rows", str(error)))

    splits = {split: read_questions(spec, files, broken) for split, files in _files(spec).items()}
    findings += [*_repetitions(splits), *_ambiguous_ids(splits), *_unread_golds(splits)]
    return _Look(splits, findings)


def lines(name: str, seen: _Look, count: Callable[[str], int] | None = None) -> Iterator[str]:
    """The look as text.

    Args:
        name: of what was looked at.
        seen: what was found.
        count: tokens of a prompt; None: they are estimated.
    """
    yield f"{name}: " + ", ".join(f"{len(questions)} {split}" for split, questions in seen.splits.items())
    first = next((questions for questions in seen.splits.values() if questions), [])
    for question in first[:SHOWN]:
        yield f"\n--- {question.name}\n{question.prompt[:WIDEST]}\n--- gold: {question.answer[:WIDEST]}"
    yield from _longest(seen.splits, count)
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


def _longest(splits: Splits, count: Callable[[str], int] | None) -> Iterator[str]:
    """The prompts that cost most: memory and time of sampling go by the longest one."""
    questions = [question for split in splits.values() for question in split]
    if not questions:
        return
    longest = sorted(questions, key=lambda q: count(q.prompt) if count else len(q.prompt), reverse=True)[:SHOWN]
    yield f"\nlongest prompts{'' if count else ' (--model MODEL counts their tokens)'}:"
    for question in longest:
        size = len(question.prompt)
        tokens = f"{count(question.prompt):,} tokens" if count else f"about {-(-size // CHARACTERS):,} tokens"
        yield f"  {question.name}: {size:,} characters, {tokens}"


def _files(spec: Published | Dataset) -> dict[str, list[pathlib.Path]]:
    source = spec.SOURCE if isinstance(spec, Published) else NO_SOURCE
    names = split_names(source, spec.path, revision=spec.revision) or {"train"}
    return {name: split_files(source, spec.path, name, revision=spec.revision) for name in SPLITS if name in names}


def _repetitions(splits: Splits) -> Iterator[Finding]:
    """Questions asked twice, within a split and across splits."""
    for split, other, message in repeats(splits):
        kind = "repeated questions" if other == split else f"questions of {split} that are also in {other}"
        yield Finding(kind, message)


def _ambiguous_ids(splits: Splits) -> Iterator[Finding]:
    for questions in splits.values():
        yield from (Finding("repeated ids", message) for message in repeated_ids(distinct(questions)))


@dataclasses.dataclass(frozen=True)
class _Readable:
    """Grades whether an expression can be parsed."""

    def __call__(self, question: Question, response: str) -> Verdict:
        return Verdict.CORRECT if equivalent(response, response) else Verdict.WRONG


def _unread_golds(splits: Splits) -> Iterator[Finding]:
    """Golds that are compared only as they are spelt: nothing else equal to them will be found correct."""
    asked = []
    for questions in splits.values():
        for question in questions:
            answer = read(question.answer)
            if isinstance(answer, Expression):
                asked.append((question, answer.latex))
    if not asked:
        return
    with GradingWorkers(count=2) as grading:
        judgements = judge_all(grading, _Readable(), asked)
    for (question, _), judgement in zip(asked, judgements, strict=True):
        if judgement.verdict is not Verdict.CORRECT:
            yield Finding("golds that no algebra reads", f"{question.name}: {question.answer[:80]}")
