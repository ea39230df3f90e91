"""A second generated task: difficulty lies in neighbouring letters, and neither length nor any letter tells it.

A prompt is 7 letters and "="; the answer is 6 digits, one for each pair of neighbours, looked up in a fixed table.
The pair (x, y) has level (3x + y) mod 10, so that every letter stands in exactly one pair of each level, on either
side, and all prompts and answers are equally long.

Demonstrations err as in the chain task: pairs of level 0-3 are always shown right, one of level k >= 4 with
probability `RELIABILITY[k]`, and else with one wrong digit.  A question of level j contains a pair of that level and
pairs below it.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from lilo_jax.bounds import Generated
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.chain import (
    EASY_SHARE,
    EVALUATION_SEED,
    FIRST_HARD_VERB,
    RELIABILITY,
    WRONG_SHIFTS,
    distinct,
    grade,
)
from lilo_jax.tasks.steps import every_character

LETTERS = "abcdefghij"
LEVELS = len(LETTERS)
STEPS = 6
TABLE = np.random.default_rng(EVALUATION_SEED).integers(10, size=(LEVELS, LEVELS))
"""Digit of the pair (first letter, second letter)."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Sizes of the generated sets."""

    pool: Generated = 2000
    """training questions, drawn anew for every seed"""
    validation: Generated = 512
    """validation questions, the same for all seeds"""
    test: Generated = 1024
    """test questions, the same for all seeds"""
    demonstrations: Generated = 20_000
    """noisy examples for supervised fine-tuning, drawn anew for every seed"""

    def build(self, seed: int) -> Task:
        """Generates the sets: no prompt occurs twice within or across them."""
        return self.generated(seed, _question, _demonstration)

    def generated(
        self,
        seed: int,
        question: Callable[[np.random.Generator], Question],
        demonstration: Callable[[np.random.Generator], tuple[str, str]],
    ) -> Task:
        """The sets, of such questions and demonstrations."""
        taken: set[str] = set()
        shared, own = np.random.default_rng(EVALUATION_SEED), np.random.default_rng([EVALUATION_SEED, seed])
        splits = {
            "test": distinct(self.test, shared, question, taken),
            "validation": distinct(self.validation, shared, question, taken),
            "train": distinct(self.pool, own, question, taken),
        }
        demonstrations = [demonstration(own) for _ in range(self.demonstrations)]
        return Task(splits, demonstrations, grade, unique_answers=True, steps=every_character)


def level(first: int, second: int) -> int:
    """The level of a pair of letters."""
    return (3 * first + second) % LEVELS


def walk(start: int, levels: list[int]) -> list[int]:
    """The letters, from the first on, whose neighbours have these levels: there is one way to go on."""
    letters = [start]
    for wanted in levels:
        letters.append((wanted - 3 * letters[-1]) % LEVELS)
    return letters


def render(letters: list[int]) -> str:
    """The prompt."""
    return "".join(LETTERS[letter] for letter in letters) + "="


def solve(letters: list[int]) -> list[int]:
    """The digits of the neighbours."""
    return [int(TABLE[pair]) for pair in itertools.pairwise(letters)]


def levels_of_question(rng: np.random.Generator) -> list[int]:
    """45% easy (levels 0-3), 55% of a level uniform in 4..9, which 1 to 6 of the steps have, the others below it."""
    if rng.random() < EASY_SHARE:
        return rng.integers(FIRST_HARD_VERB, size=STEPS).tolist()
    hardest = int(rng.integers(FIRST_HARD_VERB, LEVELS))
    levels = rng.integers(hardest, size=STEPS)
    levels[rng.choice(STEPS, size=rng.integers(1, STEPS + 1), replace=False)] = hardest
    return levels.tolist()


def _question(rng: np.random.Generator) -> Question:
    levels = levels_of_question(rng)
    letters = walk(int(rng.integers(LEVELS)), levels)
    difficulty = max(*levels, FIRST_HARD_VERB - 1)
    return Question(render(letters), "".join(map(str, solve(letters))), difficulty)


def _demonstration(rng: np.random.Generator) -> tuple[str, str]:
    """A prompt (30% of them easy) with an answer that errs as the reliabilities say."""
    levels = levels_of_demonstration(rng)
    letters = walk(int(rng.integers(LEVELS)), levels)
    return render(letters), demonstrated(solve(letters), levels, rng)


def levels_of_demonstration(rng: np.random.Generator) -> list[int]:
    """30% easy (levels 0-3), the others of any levels."""
    return rng.integers(FIRST_HARD_VERB if rng.random() < 0.3 else LEVELS, size=STEPS).tolist()


def demonstrated(digits: list[int], levels: list[int], rng: np.random.Generator) -> str:
    """The answer, with each digit as right as the reliability of its level."""
    shown = []
    for digit, difficulty in zip(digits, levels, strict=True):
        right = difficulty < FIRST_HARD_VERB or rng.random() < RELIABILITY[difficulty]
        shown.append(digit if right else (digit + WRONG_SHIFTS[difficulty]) % 10)
    return "".join(map(str, shown))
