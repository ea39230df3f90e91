"""A third generated task: difficulty lies in where a letter stands, and no letter, pair or length tells it.

A prompt is 6 letters and "="; the answer is 6 digits, one for each letter, looked up in a table of its own for every
column.  The letter x in column c has level (3x + c) mod 10, so that every column has one letter of each level.

Demonstrations err as in the chain task: levels 0-3 are always shown right, one of level k >= 4 with probability
`RELIABILITY[k]`, and else with one wrong digit.  A question of level j contains a letter of that level and letters
below it.
"""

import dataclasses

import numpy as np

from lilo_jax.questions import Question, Task
from lilo_jax.tasks.chain import EVALUATION_SEED, FIRST_HARD_VERB
from lilo_jax.tasks.pairs import LEVELS, STEPS, Pairs, demonstrated, levels_of_demonstration, levels_of_question, render

TABLE = np.random.default_rng([EVALUATION_SEED, STEPS]).integers(10, size=(STEPS, LEVELS))
"""Digit of a letter in a column."""


@dataclasses.dataclass(frozen=True)
class Columns(Pairs):
    """Sizes of the generated sets."""

    def build(self, seed: int) -> Task:
        """Generates the sets: no prompt occurs twice within or across them."""
        return self.generated(seed, _question, _demonstration)


def level(column: int, letter: int) -> int:
    """The level of a letter in a column."""
    return (3 * letter + column) % LEVELS


def letters_of(levels: list[int]) -> list[int]:
    """The letter of each column that has its level there: 7 is the inverse of 3 modulo 10."""
    return [7 * (wanted - column) % LEVELS for column, wanted in enumerate(levels)]


def solve(letters: list[int]) -> list[int]:
    """The digits of the columns."""
    return [int(TABLE[column, letter]) for column, letter in enumerate(letters)]


def _question(rng: np.random.Generator) -> Question:
    levels = levels_of_question(rng)
    letters = letters_of(levels)
    return Question(render(letters), "".join(map(str, solve(letters))), max(*levels, FIRST_HARD_VERB - 1))


def _demonstration(rng: np.random.Generator) -> tuple[str, str]:
    """A prompt (30% of them easy) with an answer that errs as the reliabilities say."""
    levels = levels_of_demonstration(rng)
    letters = letters_of(levels)
    return render(letters), demonstrated(solve(letters), levels, rng)
