"""Arithmetic word problems in plain English, of one and two steps, for a language model.

"Mia has 14 pens and buys 23 more. How many pens does Mia have now?"

The numbers grow by level; problems of two steps have the levels above.  The category is the operations: "+", "*-".
"""

import dataclasses

import numpy as np

from lilo_jax.questions import Question
from lilo_jax.tasks.sums import Sums, draw_numbers

NAMES = (
    "Mia", "Tom", "Ana", "Ben", "Zoe", "Sam", "Lena", "Omar", "Ruth", "Ivan", "Nora", "Hugo", "Emma", "Raj", "Kim",
    "Lucy", "Paul", "Rosa", "Finn", "Aya",
)  # fmt: skip
THINGS = (
    "pens", "books", "apples", "stamps", "coins", "cards", "marbles", "shells", "eggs", "cookies", "stickers", "balls",
    "oranges", "flowers", "candles", "tickets", "buttons", "pears", "cups", "keys",
)  # fmt: skip
LARGEST = (9, 20, 50, 100)
"""The largest number of a question, by level; what is multiplied or divided by is below 10."""
STORIES = {
    "+": (
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table and {b} {things} in a box. How many {things} are there in all?",
        "{name} finds {a} {things} in the morning and {b} {things} in the evening. How many {things} are found?",
        "{name} has {a} {things}. {other} has {b} more than {name}. How many {things} does {other} have?",
        "After {other} gave {b} {things} away, {a} {things} were left. How many {things} were there before?",
    ),
    "-": (
        "{name} has {a} {things} and gives {b} of them to {other}. How many {things} are left?",
        "There were {a} {things} in a shop, and {b} were sold. How many {things} are still there?",
        "{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have than {other}?",
        "{name} needs {a} {things} and has {b} already. How many {things} are missing?",
        "{name} and {other} have {a} {things} together. {other} has {b} of them. How many {things} does {name} have?",
    ),
    "*": (
        "There are {a} boxes with {b} {things} in each. How many {things} are there in all?",
        "{name} buys {b} {things} every day for {a} days. How many {things} does {name} buy?",
        "Each of {a} children has {b} {things}. How many {things} do they have together?",
        "{name} has {a} {things}. {other} has {b} times as many. How many {things} does {other} have?",
    ),
    "/": (
        "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
        "{a} {things} are put into {b} bags, the same number in each. How many {things} are in one bag?",
        "{name} packs {a} {things} in boxes of {b}. How many boxes does {name} fill?",
        "{name} has {a} {things}, {b} times as many as {other}. How many {things} does {other} have?",
    ),
    "+-": (
        "{name} has {a} {things}, buys {b} more and then gives {c} to {other}. How many {things} are left?",
        "A bus has {a} people in it. {b} people get on and {c} get off. How many people are in the bus now?",
        "{name} has {a} {things} and {other} has {b}. They lose {c} of them. How many {things} do they have together?",
    ),
    "--": (
        "{name} has {a} {things}, gives {b} to {other} and loses {c}. How many {things} are left?",
        "There were {a} {things} in a shop. {b} were sold on Monday and {c} on Tuesday. How many {things} are left?",
    ),
    "*+": (
        "{name} buys {a} bags with {b} {things} each, and {c} single {things}. How many {things} does {name} buy?",
        "There are {a} rows of {b} chairs, and {c} chairs more at the wall. How many chairs are there?",
    ),
    "*-": (
        "{name} buys {a} boxes with {b} {things} each and gives {c} {things} away. How many {things} are left?",
        "A book has {a} chapters of {b} pages each. {name} has read {c} pages. How many pages are left to read?",
    ),
    "+/": (
        "{name} has {a} {things} and {other} has {b}. They share all of them equally among {c} children. How many "
        "{things} does each child get?",
        "{a} red and {b} blue {things} are put into bags of {c}. How many bags are filled?",
    ),
    "-/": (
        "{name} has {a} {things}, keeps {b} and shares the rest equally among {c} friends. How many {things} does each "
        "friend get?",
        "Of {a} {things}, {b} are broken. The others are packed in boxes of {c}. How many boxes are filled?",
    ),
}
"""By the operations that solve them, from left to right."""


TEMPLATE = """\
Q: Leo has 4 plums and picks 3 more. How many plums does Leo have?
A: 4 + 3 = 7

Q: There are 5 jars with 6 nuts in each. Eva eats 10 of the nuts. How many nuts are left?
A: 5 * 6 = 30, 30 - 10 = 20

Q: Leo puts 12 plums into 3 bowls, the same number in each. How many plums are in one bowl?
A: 12 / 3 = 4

Q: {question}
A:"""
"""Worked examples, which no task has among its questions, and the question."""


@dataclasses.dataclass(frozen=True)
class Stories(Sums):
    """Word problems of one and two steps; sizes, splits and grading are those of `Sums`."""

    template: str = TEMPLATE
    """as of every task; three worked examples, which a model that is not tuned to chat goes on with"""

    def draw(self, rng: np.random.Generator) -> Question:
        """Of one or two steps, a random kind and level."""
        steps, level = int(rng.integers(1, 3)), int(rng.integers(len(LARGEST)))
        operations = str(rng.choice([kind for kind in STORIES if len(kind) == steps]))
        numbers, results = draw_numbers(rng, operations, LARGEST[level])
        name, other = rng.choice(NAMES, size=2, replace=False)
        words = {"name": name, "other": other, "things": rng.choice(THINGS)}
        text = str(rng.choice(STORIES[operations])).format(**words, **dict(zip("abc", numbers, strict=False)))
        return Question(
            prompt="",
            answer=str(results[-1]),
            difficulty=level + len(LARGEST) * (steps - 1),
            text=text,
            solution=worked(operations, numbers, results),
            category=operations,
        )


def worked(operations: str, numbers: list[int], results: list[int]) -> str:
    """The steps in one line: "5 * 6 = 30, 30 - 10 = 20"."""
    before = [numbers[0], *results]
    steps = zip(before, operations, numbers[1:], results, strict=False)
    return ", ".join(f"{first} {operation} {second} = {result}" for first, operation, second, result in steps)
