"""Countdown: combine some numbers, each once, with + - * / to make a target.

The data set of Pan et al. 2025 (TinyZero).  A response is right if its expression is, so there is no one gold answer;
expressions are computed with exact fractions by a reader of our own, never by Python's `eval`.
"""

import collections
import dataclasses
import fractions
import re
from typing import ClassVar

from lilo_jax.bounds import Count
from lilo_jax.errors import UsageError
from lilo_jax.grading.extraction import extract
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.tasks.published import Published, a_tenth, check_names, hold_out
from lilo_jax.tasks.rows import Row, Source, split_names

LONGEST = 200
"""Characters of an expression that is read."""
_TOKEN = re.compile(r"\s*(\d+|[-+*/()])")


@dataclasses.dataclass(frozen=True)
class Countdown(Published):
    """Arithmetic puzzles of three or four numbers."""

    template: str = "qwen_math"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    validation: Count = 500
    """training questions held out for validation, at most a tenth of them"""
    test: Count = 1000
    """the same for the test, where the rows come without a test split"""

    SOURCE: ClassVar[Source] = Source("countdown", "Jiayi-Pan/Countdown-Tasks-3to4")

    def parse(self, row: Row) -> Question:
        """A row of `target` and `nums`."""
        numbers, target = row.first("nums"), row.first("target")
        if not isinstance(numbers, list) or not all(type(n) is int for n in [*numbers, target]):
            raise UsageError(f"{row.where}: 'nums' must be a list of whole numbers and 'target' one")
        shown = ", ".join(map(str, numbers))
        text = (
            f"Using each of the numbers {shown} exactly once, with the operations +, -, *, / and brackets, write an "
            f"expression that equals {target}."
        )
        return Question(prompt="", answer=f"{target} = {shown}", text=text)

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        check_names(self)
        if self.grader != "default":
            raise UsageError("countdown computes expressions and has no other grader: leave out --task.grader")
        if self.shots:
            raise UsageError("countdown has no worked solutions: write examples into a --task.template-file")
        train = self.split("train")
        if "test" in split_names(self.SOURCE, self.path, revision=self.revision):
            test = self.split("test")
        else:
            train, test = hold_out(train, a_tenth(train, self.test))
        train, validation = hold_out(train, a_tenth(train, self.validation))
        splits = self.task({"train": train, "validation": validation, "test": test}).splits
        return Task(splits, [], grade, unique_answers=False)


def grade(question: Question, response: str) -> Verdict:
    """Correct iff the response's expression uses every number once and equals the target."""
    found = extract(response)
    if found is None:
        return Verdict.NO_ANSWER
    target, _, shown = question.answer.partition(" = ")
    expression = found.text.strip("$ ").partition("=")[0].replace("\\times", "*").replace("\\cdot", "*")
    expression = expression.replace("\\div", "/").replace("×", "*").replace("÷", "/").replace("−", "-")
    read = evaluate(expression)
    if read is None:
        return Verdict.WRONG
    value, used = read
    same_numbers = collections.Counter(used) == collections.Counter(map(int, shown.split(", ")))
    return Verdict.CORRECT if same_numbers and value == int(target) else Verdict.WRONG


def evaluate(expression: str) -> tuple[fractions.Fraction, list[int]] | None:
    """The value of an expression of whole numbers, + - * / and brackets, and the numbers in it; None if it is none."""
    if len(expression) > LONGEST:
        return None
    tokens, position = [], 0
    expression = expression.strip()
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        if token is None:
            return None
        tokens.append(token[1])
        position = token.end()
    try:
        value, rest = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return None if rest else (value, [int(token) for token in tokens if token.isdigit()])


def _sum(tokens: list[str]) -> tuple[fractions.Fraction, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        sign, (other, tokens) = tokens[0], _product(tokens[1:])
        value = value + other if sign == "+" else value - other
    return value, tokens


def _product(tokens: list[str]) -> tuple[fractions.Fraction, list[str]]:
    value, tokens = _factor(tokens)
    while tokens and tokens[0] in "*/":
        sign, (other, tokens) = tokens[0], _factor(tokens[1:])
        value = value * other if sign == "*" else value / other
    return value, tokens


def _factor(tokens: list[str]) -> tuple[fractions.Fraction, list[str]]:
    if tokens[0] == "-":
        value, rest = _factor(tokens[1:])
        return -value, rest
    if tokens[0] == "(":
        value, rest = _sum(tokens[1:])
        if rest[0] != ")":
            raise ValueError
        return value, rest[1:]
    return fractions.Fraction(int(tokens[0])), tokens[1:]
