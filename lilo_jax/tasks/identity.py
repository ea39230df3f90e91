"""Questions from rows, each with its id and its place, and none of them twice: not in a split nor on both sides of one.

Training raises the first error that is found here; `lilo data check` lists them all.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from lilo_jax.errors import UsageError
from lilo_jax.questions import Question
from lilo_jax.storage.json_lines import refuse
from lilo_jax.tasks.formats import Broken
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.tasks.rows import Row, read_rows


class Parses(Protocol):
    """Settings of a task that reads rows."""

    @property
    def template(self) -> str: ...

    def parse(self, row: Row) -> Question:
        """The question of a row; raises `UsageError` if it is none."""


def read_questions(spec: Parses, files: Sequence[pathlib.Path], broken: Broken = refuse) -> list[Question]:
    """The questions of some files, asked in the task's style.

    Args:
        spec: settings of the task.
        files: of one split.
        broken: is given the error of each row that is no question, and one if there are no rows.
    """
    errors: list[UsageError] = []

    def note(error: UsageError) -> None:
        broken(error)
        errors.append(error)

    questions = []
    for row in (row for file in files for row in read_rows(file, note)):
        try:
            questions.append(_identified(spec, row))
        except UsageError as error:
            note(error)
    if not questions and not errors:
        broken(UsageError(f"{', '.join(map(str, files))}: there are no rows"))
    return questions


def _identified(spec: Parses, row: Row) -> Question:
    question = spec.parse(row)
    if not question.answer.strip():
        raise UsageError(f"{row.where}: no gold answer was found")
    prompt = prompt_style(spec.template)(question.text)
    return dataclasses.replace(question, prompt=prompt, id=row.id, where=row.where)


class _Repeat(NamedTuple):
    """A question that was there before.

    Attributes:
        split, other: of the question, and of the one before.
        message: where both stand.
    """

    split: str
    other: str
    message: str


def repeats(splits: Mapping[str, Iterable[Question]]) -> Iterator[_Repeat]:
    """Questions that ask what another one asked, in the same split or in one before."""
    places: dict[str, tuple[str, str]] = {}
    for split, questions in splits.items():
        for number, question in enumerate(questions, start=1):
            place = question.where or f"{split}, question {number}"
            other, before = places.setdefault(question.asked, (split, place))
            if before != place:
                yield _Repeat(split, other, f"{place}: same question as {_beside(place, before)}")


def repeated_ids(questions: Iterable[Question]) -> Iterator[str]:
    """Where ids are given twice within a split."""
    places: dict[str, str] = {}
    for question in questions:
        before = places.setdefault(question.id, question.name)
        if before != question.name:
            yield f"{question.name}: the id {question.id!r} is that of {_beside(question.name, before)} as well"


def _beside(place: str, before: str) -> str:
    """The place before, without the file if it is the same one."""
    file, _, number = before.rpartition(", ")
    return number if file and place.startswith(f"{file}, ") else before


def distinct(questions: Iterable[Question]) -> list[Question]:
    """The questions without those asked before."""
    return list({question.asked: question for question in reversed(list(questions))}.values())[::-1]


def check_ids(questions: Iterable[Question]) -> None:
    """Raises `UsageError` at an id that is given twice."""
    if twice := next(repeated_ids(questions), None):
        raise UsageError(f"{twice}; give every question its own, or rename the column")


def check_splits(splits: Mapping[str, Sequence[Question]]) -> None:
    """Raises `UsageError` at a question that stands on both sides of a split, or is no text; for any task."""
    for name, questions in splits.items():
        for number, question in enumerate(questions, start=1):
            try:
                "".join((question.prompt, question.text, question.answer)).encode()
            except UnicodeEncodeError:
                place = question.where or f"{name}, question {number}"
                raise UsageError(f"{place}: half of a surrogate pair, which is not text") from None
    for repeat in repeats(splits):
        if repeat.split != repeat.other:
            raise UsageError(
                f"{repeat.message}; no question of {repeat.split!r} may be in {repeat.other!r} too: remove one"
            )
