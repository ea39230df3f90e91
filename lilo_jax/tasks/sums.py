"""Sums, differences and products of two numbers, for a language model: 7 + 5, 63 - 8, 127 + 93, 44 * 9.

The numbers grow by level, so that a small model solves the first level mostly, and the last one hardly ever.
"""

import dataclasses
import operator
from collections.abc import Callable

import numpy as np

from lilo_jax.bounds import Generated
from lilo_jax.grading import grader
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.chain import EVALUATION_SEED, distinct
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.tasks.steps import newlines

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
SHARES = {"test": (0.0, 0.2), "validation": (0.2, 0.3), "train": (0.3, 1.0)}
"""Which part of all questions a split draws from."""
LARGEST = (30, 60, 120, 240)
"""The largest number of a question, by level; products have a second number below 10."""


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums, differences and products of two numbers: sizes of the sets, and how they are asked and graded."""

    pool: Generated = 1000
    """training questions, drawn anew for every seed"""
    validation: Generated = 200
    """validation questions, the same for all seeds"""
    test: Generated = 500
    """test questions, the same for all seeds"""
    template: str = "2 + 3 = 5\n9 - 4 = 5\n3 * 6 = 18\n{question} ="
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it; here three worked examples, which a model that is not tuned to chat goes on with"""
    grader: str = "default"
    """default, paper, exact or math_verify"""

    def draw(self, rng: np.random.Generator) -> Question:
        """A random question, of a random operation and level, its prompt still empty."""
        level = int(rng.integers(len(LARGEST)))
        operations = str(rng.choice(["+", "-", "*"]))
        numbers, results = draw_numbers(rng, operations, LARGEST[level])
        text = f"{numbers[0]} {operations} {numbers[1]}"
        answer = str(results[-1])
        return Question("", answer, level, text=text, solution=answer, category=operations)

    def build(self, seed: int) -> Task:
        """Generates the sets: no question occurs twice within or across them."""
        grade, render = grader(self.grader), prompt_style(self.template)
        sizes = {"test": self.test, "validation": self.validation, "train": self.pool}

        def questions(split: str) -> list[Question]:
            rng = np.random.default_rng([EVALUATION_SEED, seed] if split == "train" else EVALUATION_SEED)
            return distinct(sizes[split], rng, lambda rng: self._of_split(split, rng, render), set())

        splits = {split: questions(split) for split in sizes}
        demonstrations = [(question.prompt, f" {question.solution}\n") for question in splits["train"]]
        return Task(splits, demonstrations, grade, unique_answers=False, steps=newlines)

    def _of_split(self, split: str, rng: np.random.Generator, render: Callable[[str], str]) -> Question:
        """A question whose hash lies in the split's share, so that few easy ones are not used up by one split."""
        low, high = SHARES[split]
        while True:
            question = self.draw(rng)
            if low <= int(question.content, 16) / 16 ** len(question.content) < high:
                return dataclasses.replace(question, prompt=render(question.text))


def draw_numbers(rng: np.random.Generator, operations: str, largest: int) -> tuple[list[int], list[int]]:
    """Numbers for a chain of operations, taken from left to right, and the result of each: all are whole and positive.

    Args:
        rng: consumed.
        operations: such as "*-" for a * b - c.
        largest: of the numbers; what is multiplied or divided by is from 2 to 9.
    """
    while True:
        numbers = [int(rng.integers(2, largest + 1))]
        if operations[0] == "/":  # else few would come out even
            numbers[0] *= int(rng.integers(2, 10))
        results: list[int] = []
        for operation in operations:
            before = results[-1] if results else numbers[0]
            numbers.append(int(rng.integers(2, 10 if operation in "*/" else largest + 1)))
            results.append(OPERATIONS[operation](before, numbers[-1]) if _even(before, operation, numbers[-1]) else 0)
        if min(results) > 0:
            return numbers, results


def _even(number: int, operation: str, other: int) -> bool:
    """Whether an operation comes out even."""
    return operation != "/" or number % other == 0
