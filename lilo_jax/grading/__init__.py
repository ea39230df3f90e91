"""Grading: from a response to a verdict, alone and during training by the same functions.

extraction.py   the answer within a response, by named rules
notation.py     one spelling for all that mean the same;  units.py  the unit behind a number
sums.py         sums and equations of numbers: worked out or not;  clock.py  times of day
answers.py      what an answer can be: number, time, tuple, set, interval, matrix, words;  reading.py  finding out which
comparison.py   whether two are the same;  rules.py  the graders `default` and `exact` of all this
trees.py        expressions as trees
probing.py      algebra by values at random points;  symbolic.py  by math-verify, for what is left
workers.py      all of it in processes that can be killed

To add a grader: a file with a frozen dataclass that is a `Grader`, its test, and a line in `GRADERS`.
"""

from lilo_jax.errors import unknown_name
from lilo_jax.grading.judgement import Grader, Judgement
from lilo_jax.grading.mathverify import MathVerify
from lilo_jax.grading.paper import Paper
from lilo_jax.grading.rules import Default, Exact

GRADERS: dict[str, Grader] = {
    "default": Default(),
    "exact": Exact(),
    "math_verify": MathVerify(),
    "paper": Paper(),
}


def grader(name: str) -> Grader:
    """The grader of that name; an unknown one is a `UsageError` that lists them."""
    if name not in GRADERS:
        raise unknown_name("grader", name, GRADERS)
    return GRADERS[name]


__all__ = ["GRADERS", "Grader", "Judgement", "grader"]
