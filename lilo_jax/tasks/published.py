"""What tasks on published data sets have in common: settings, splits, and questions from rows.

A data set's own file says where it is published, which columns hold what, and which splits it makes.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from lilo_jax.errors import UsageError
from lilo_jax.grading import grader
from lilo_jax.grading.extraction import gold_answer
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.tasks.rows import Row, Source, rows, split_names
from lilo_jax.tasks.steps import latex


@dataclasses.dataclass(frozen=True)
class Published:
    """Where the rows are and how questions are asked and graded."""

    path: str = ""
    """empty: the data set's hub repository, or its copy in the cache; sample: rows of our own in its schema, which
    ship with the package; else a file, a directory with files named after their split, or a hub id"""
    revision: str = ""
    """branch, tag or commit of a hub repository"""
    template: str = "qwen_math"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    grader: str = "default"
    """default, paper, exact or math_verify"""

    SOURCE: ClassVar[Source]

    def parse(self, row: Row) -> Question:
        """The question of a row, its prompt still empty; most data sets are read so."""
        solution = row.values.get("solution") or ""
        if isinstance(solution, list):
            solution = "\n".join(map(str, solution))
        answer = row.text("answer", "final_answer") if {"answer", "final_answer"} & row.values.keys() else ""
        text = row.text("problem", "question")
        return Question(prompt="", answer=answer or gold_answer(str(solution)), text=text, solution=str(solution))

    def steps(self, response: str) -> list[int]:
        """Where the reasoning steps of a response begin."""
        return latex(response)

    def split(self, name: str) -> list[Question]:
        """The questions of a split, asked in the task's style; repeated ones are left out."""
        found = rows(self.SOURCE, self.path, name, revision=self.revision)
        questions = [self.checked(row) for row in found]
        if not questions:
            raise UsageError(f"the split {name!r} of {self.path or self.SOURCE.repository} is empty")
        return distinct(questions)

    def task(self, splits: Mapping[str, Sequence[Question]]) -> Task:
        """The task with these splits, whose demonstrations are the worked solutions of the training questions.

        A question stays in the first of test, validation and train that has it: published copies repeat a few.
        """
        seen: set[str] = set()
        kept: dict[str, list[Question]] = {}
        for name in (n for n in ("test", "validation", "train") if n in splits):
            kept[name] = [q for q in splits[name] if q.text not in seen]
            seen |= {q.text for q in kept[name]}
        if "train" in kept and not kept["train"]:
            raise UsageError(
                f"all training questions of {self.path} are held out as well: give a directory whose files are named "
                f"after their split (train.jsonl, test.jsonl)"
            )
        demonstrations = [(q.prompt, q.solution or q.answer) for q in kept.get("train", ())]
        return Task(
            {n: kept[n] for n in splits}, demonstrations, grader(self.grader), unique_answers=False, steps=self.steps
        )

    def checked(self, row: Row) -> Question:
        """The question of a row, asked in the task's style; raises `UsageError` if it has no gold answer."""
        question = self.parse(row)
        if not question.answer:
            raise UsageError(f"{row.where}: no gold answer was found")
        return dataclasses.replace(question, prompt=prompt_style(self.template)(question.text))


@dataclasses.dataclass(frozen=True)
class TestSet(Published):
    """A data set to be evaluated on, not to be trained on."""

    def build(self, seed: int) -> Task:
        """Its one split, `test`, by whatever name it is published."""
        check_names(self)
        names = split_names(self.SOURCE, self.path, revision=self.revision)
        published = next((name for name in ("test", "validation", "train") if name in names), "test")
        return self.task({"test": self.split(published)})


def check_names(spec: Published) -> None:
    """Raises `UsageError` at an unknown grader or style before any data is read."""
    grader(spec.grader)
    prompt_style(spec.template)


def a_tenth(questions: Sequence[Question], count: int) -> int:
    """`count`, but at most a tenth of the questions, and at least one."""
    return min(count, max(len(questions) // 10, 1))


def distinct(questions: Iterable[Question]) -> list[Question]:
    """The questions without those asked before."""
    return list({question.text: question for question in reversed(list(questions))}.values())[::-1]


def hold_out(questions: Sequence[Question], count: int) -> tuple[list[Question], list[Question]]:
    """The rest, and `count` questions held out: the same ones for every seed and order of rows.

    Those whose text has the smallest hash are taken.
    """
    ranked = sorted(questions, key=lambda q: hashlib.sha256(q.text.encode()).digest())
    held = {q.text for q in ranked[:count]}
    return [q for q in questions if q.text not in held], [q for q in questions if q.text in held]
