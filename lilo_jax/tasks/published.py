"""What tasks on published data sets have in common: settings, splits, and questions from rows.

A data set's own file says where it is published, which columns hold what, and which splits it makes.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from lilo_jax.bounds import Count, Whole
from lilo_jax.errors import UsageError
from lilo_jax.grading import grader
from lilo_jax.grading.extraction import gold_answer
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.identity import check_ids, distinct, read_questions
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.tasks.rows import Row, Source, is_plain, split_files, split_names
from lilo_jax.tasks.steps import latex, newlines


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
    longest: Whole = 0
    """tokens of a prompt; questions with longer ones are left out of every split.  0: no bound"""
    shots: Whole = 0
    """worked examples before every question: training questions with their solutions, which are then not trained on;
    turns of the chat where prompts are put into a chat template"""

    SOURCE: ClassVar[Source]
    NEW_TOKENS: ClassVar[int] = 1024
    """what a response may need, from a model that shows its work"""

    def parse(self, row: Row) -> Question:
        """The question of a row, its prompt still empty; most data sets are read so."""
        given = row.values.get("solution") or ""
        parts = given if isinstance(given, list) else [given]
        if not all(map(is_plain, parts)):
            raise UsageError(f"{row.where}: 'solution' must be a text, or a list of texts")
        solution = "\n".join(map(str, parts))
        answer = row.text("answer", "final_answer") if {"answer", "final_answer"} & row.values.keys() else ""
        text = row.text("problem", "question")
        return Question(prompt="", answer=answer or gold_answer(solution), text=text, solution=solution)

    def steps(self, response: str) -> list[int]:
        """Where the reasoning steps of a response begin."""
        return latex(response)

    def split(self, name: str) -> list[Question]:
        """The questions of a split, asked in the task's style; repeated ones are left out."""
        files = split_files(self.SOURCE, self.path, name, revision=self.revision)
        questions = distinct(read_questions(self, files))
        check_ids(questions)
        return questions

    def task(self, splits: Mapping[str, Sequence[Question]]) -> Task:
        """The task with these splits, whose demonstrations are the worked solutions of the training questions.

        A question stays in the first of test, validation and train that has it: published copies repeat a few.
        """
        seen: set[str] = set()
        kept: dict[str, list[Question]] = {}
        for name in (n for n in ("test", "validation", "train") if n in splits):
            kept[name] = [q for q in splits[name] if q.asked not in seen]
            seen |= {q.asked for q in kept[name]}
        if "train" in kept and not kept["train"]:
            raise UsageError(
                f"all training questions of {self.path} are held out as well: give a directory whose files are named "
                f"after their split (train.jsonl, test.jsonl)"
            )
        shots: Sequence[tuple[str, str]] = ()
        if self.shots:
            kept["train"], shots = worked(kept.get("train", ()), self.shots)
        demonstrations = [(q.prompt, q.solution or q.answer) for q in kept.get("train", ())]
        return Task(
            {n: kept[n] for n in splits}, demonstrations, grader(self.grader), unique_answers=False, steps=self.steps,
            shots=shots,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TestSet(Published):
    """A data set to be evaluated on, not to be trained on."""

    def build(self, seed: int) -> Task:
        """Its one split, `test`, by whatever name it is published."""
        check_names(self)
        names = split_names(self.SOURCE, self.path, revision=self.revision)
        published = next((name for name in ("test", "validation", "train") if name in names), "test")
        return self.task({"test": self.split(published)})


@dataclasses.dataclass(frozen=True)
class WordProblems(Published):
    """A data set of short word problems, whose test is as published, or held out where its files name no test."""

    test: Count = 300
    """questions held out for the test where the files name no splits"""
    validation: Count = 70
    """training questions held out for validation, at most a tenth of them"""

    NEW_TOKENS: ClassVar[int] = 128

    def steps(self, response: str) -> list[int]:
        """A line is a step."""
        return newlines(response)

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        check_names(self)
        names = split_names(self.SOURCE, self.path, revision=self.revision)
        if {"train", "test"} <= names:
            train, test = self.split("train"), self.split("test")
        else:
            questions = distinct([question for name in sorted(names) or ["train"] for question in self.split(name)])
            train, test = hold_out(questions, min(self.test, len(questions) // 2))
        train, validation = hold_out(train, a_tenth(train, self.validation))
        return self.task({"train": train, "validation": validation, "test": test})


def check_names(spec: Published) -> None:
    """Raises `UsageError` at an unknown grader or style before any data is read."""
    grader(spec.grader)
    prompt_style(spec.template)


def a_tenth(questions: Sequence[Question], count: int) -> int:
    """`count`, but at most a tenth of the questions, and at least one."""
    return min(count, max(len(questions) // 10, 1))


def hold_out(questions: Sequence[Question], count: int) -> tuple[list[Question], list[Question]]:
    """The rest, and `count` questions held out: the same ones for every seed and order of rows.

    Those whose text has the smallest hash are taken.
    """
    ranked = sorted(questions, key=lambda q: hashlib.sha256(q.text.encode()).digest())
    held = {q.asked for q in ranked[:count]}
    return [q for q in questions if q.asked not in held], [q for q in questions if q.asked in held]


def worked(train: Sequence[Question], count: int) -> tuple[list[Question], tuple[tuple[str, str], ...]]:
    """The rest of the training questions, and `count` of them as prompts with their solutions: the same for every seed.

    Raises:
        UsageError: there are not more questions than that.
    """
    if len(train) <= count:
        raise UsageError(f"--task.shots {count} leaves none of the {len(train)} training questions: lower it")
    rest, taken = hold_out(train, count)
    return rest, tuple((question.prompt, question.solution or question.answer) for question in taken)
