"""Questions from a JSON-lines file of your own: one object a line with `question` and `answer`.

The answer is a number or a string.  The gold answers are the demonstrations for supervised fine-tuning.  Held-out
splits come from the same file, by a shuffle with the seed, unless files for them are given.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.json_lines import read_records
from lilo_jax.tasks.grading import same_answer
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.types import Question, Task, Verdict


@dataclasses.dataclass(frozen=True)
class Jsonl:
    """Where the questions are."""

    path: str = ""
    """file with one JSON object a line"""
    question: str = "question"
    """name of the field that holds the question"""
    answer: str = "answer"
    """name of the field that holds the answer, a number or a string"""
    template: str = "plain"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    validation: int = 0
    """questions held out for validation; 0 takes a tenth"""
    test: int = 0
    """questions held out for the test; 0 takes a tenth"""

    def build(self, seed: int) -> Task:
        """Reads the file and splits it."""
        questions = read_questions(self)
        tenth = max(len(questions) // 10, 1)
        sizes = (self.validation or tenth, self.test or tenth)
        if sum(sizes) >= len(questions):
            raise UsageError(
                f"{self.path} has {len(questions)} questions, too few to hold out {sizes[0]} for validation and "
                f"{sizes[1]} for the test; give more questions or lower --task.validation and --task.test"
            )
        order = np.random.default_rng(seed).permutation(len(questions))
        parts = np.split(order, np.cumsum(sizes))
        splits = {
            name: [questions[i] for i in part]
            for name, part in zip(("validation", "test", "train"), parts, strict=True)
        }
        return Task(
            splits=splits,
            demonstrations=[(q.prompt, q.answer) for q in splits["train"]],
            grade=grade,
            unique_answers=False,
        )


def grade(question: Question, response: str) -> Verdict:
    """Correct iff the response equals the answer as a number, or as a string up to case and white space."""
    if not response.strip():
        return Verdict.NO_ANSWER
    return Verdict.CORRECT if same_answer(question.answer, response) else Verdict.WRONG


def read_questions(spec: Jsonl) -> list[Question]:
    """All questions of the file, in order; a duplicate prompt is an error, as it could sit on both sides of a split."""
    path = pathlib.Path(spec.path)
    if not path.is_file():
        raise UsageError(f"no data file at {spec.path!r}: pass --task.path FILE with one JSON object a line")
    render = prompt_style(spec.template)
    questions: list[Question] = []
    lines_of: dict[str, int] = {}
    for number, record in read_records(spec.path):
        question = _parse(record, number, spec, render)
        if question.prompt in lines_of:
            raise UsageError(
                f"{spec.path}, line {number}: same question as line {lines_of[question.prompt]}; remove one"
            )
        lines_of[question.prompt] = number
        questions.append(question)
    return questions


def _parse(record: dict[str, Any], number: int, spec: Jsonl, render: Callable[[str], str]) -> Question:
    for field in (spec.question, spec.answer):
        if field not in record:
            raise UsageError(
                f"{spec.path}, line {number}: no field {field!r} (it has {', '.join(sorted(record)) or 'none'}); "
                f"name the right ones with --task.question and --task.answer"
            )
    text, answer = record[spec.question], record[spec.answer]
    if not isinstance(text, str) or isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise UsageError(
            f"{spec.path}, line {number}: {spec.question!r} must be a string and {spec.answer!r} a string or a number"
        )
    if not text.strip() or not str(answer).strip():
        raise UsageError(f"{spec.path}, line {number}: empty {spec.question!r} or {spec.answer!r}")
    return Question(prompt=render(text), answer=str(answer))
