"""What an answer can be: a number, a time, a tuple, a set, intervals, a matrix, words, or else an expression."""

import dataclasses
import fractions

from lilo_jax.grading.notation import compact


@dataclasses.dataclass(frozen=True)
class Number:
    """An exact number.

    Attributes:
        value: of it, a percent sign counted.
        unit: canonical, "" for none.
        percent: whether there was a percent sign.
    """

    value: fractions.Fraction
    unit: str = ""
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Expression:
    """Something that only algebra understands: normalised LaTeX."""

    latex: str
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Time:
    """A time of day.

    Attributes:
        clock: as written, without a.m. or p.m.
        seconds: since midnight.
        marked: whether a.m. or p.m. is said; else the hour counts from 0 to 23, or may be of either half.
    """

    clock: str
    seconds: int
    marked: bool


@dataclasses.dataclass(frozen=True)
class Words:
    """A name, yes or no, or the letter of a choice."""

    text: str


@dataclasses.dataclass(frozen=True)
class Named:
    """The right side of an equation such as x = 3, with what stands on its left."""

    name: str
    value: "Answer"


@dataclasses.dataclass(frozen=True)
class Tuple:
    """An ordered list in brackets; with two items in round ones it may also be an open interval."""

    items: tuple["Answer", ...]


@dataclasses.dataclass(frozen=True)
class Set:
    """Items whose order and repetition mean nothing: in braces, or a bare list."""

    items: tuple["Answer", ...]


@dataclasses.dataclass(frozen=True)
class Interval:
    """All numbers between two ends."""

    low: "Answer"
    high: "Answer"
    low_closed: bool
    high_closed: bool


@dataclasses.dataclass(frozen=True)
class Union:
    """Several intervals or sets together."""

    parts: tuple["Answer", ...]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple["Answer", ...], ...]


Answer = Number | Expression | Time | Words | Named | Tuple | Set | Interval | Union | Matrix
INFINITY = Expression(r"\infty")
MINUS_INFINITY = Expression(r"-\infty")


def shown(answer: Answer) -> str:
    """An answer as text, the same for all that are exactly the same."""
    match answer:
        case Number():
            return f"{answer.value} {answer.unit}".strip()
        case Expression():
            return f"{compact(answer.latex)} {answer.unit}".strip()
        case Time():
            half = ("a.m.", "p.m.")[answer.seconds >= 43200] if answer.marked else ""
            return f"{answer.clock} {half}".strip()
        case Words():
            return answer.text
        case Named():
            return shown(answer.value)
        case Tuple():
            return f"({', '.join(map(shown, answer.items))})"
        case Set():
            return f"{{{', '.join(sorted(set(map(shown, answer.items))))}}}"
        case Interval():
            left, right = "[" if answer.low_closed else "(", "]" if answer.high_closed else ")"
            return f"{left}{shown(answer.low)}, {shown(answer.high)}{right}"
        case Union():
            return " or ".join(sorted(map(shown, answer.parts)))
        case Matrix():
            return "; ".join(", ".join(map(shown, row)) for row in answer.rows)
