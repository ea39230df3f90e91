r"""Equality of two expressions by their values at random points.

Two expressions that differ do so almost everywhere, and functions that agree to 50 digits at several random points are
the same: no rewriting is needed, and the cost is bounded.  What is read is the usual notation: + - * / ^, fractions,
roots, trigonometric and hyperbolic functions with their inverses, logarithms, absolute values, factorials, binomials,
pi, e, i and letters.  Anything else, and whatever depends on a branch or a domain, is left undecided.
"""

import cmath
import fractions
import math
import random
from collections.abc import Callable
from typing import Any

import mpmath

from lilo_jax.grading.trees import Node, UndecidedError, letters_of, parse

DIGITS = 60
AGREED = mpmath.mpf(10) ** -50
"""Relative difference below which two values are the same."""
COARSE = 1e-6
"""Relative difference, in double precision, above which they are not."""
LARGEST = 1e25
"""Values beyond this decide nothing; those below its inverse are computed again, with more digits."""
LARGEST_POWER = 5000
"""Natural logarithm of the largest power that is computed, and of the inverse of the smallest."""
POINTS = 4
TRIES = 12


def probe(gold: str, answer: str) -> bool | None:
    """Whether two expressions in normalised LaTeX are equal as functions of their letters; None if that is open."""
    try:
        wanted, found = parse(gold), parse(answer)
        letters = sorted(letters_of(wanted) | letters_of(found))
        return _agree(wanted, found, letters)
    except (UndecidedError, RecursionError, ArithmeticError, ValueError):  # not a number, or too large for one
        return None


def close(gold: str, answer: str, *, tolerance: float) -> bool:
    """Whether two expressions are equal, or without letters and less than `tolerance` apart."""
    if probe(gold, answer):
        return True
    try:
        values = [complex(_value(parse(text), {}, _DOUBLE)) for text in (gold, answer)]
    except (UndecidedError, KeyError, ZeroDivisionError, OverflowError, ValueError, RecursionError):
        return False
    return abs(values[0] - values[1]) < tolerance


def exact(latex: str) -> fractions.Fraction | None:
    """The value of an expression of numbers that is a fraction without rounding; None of any other."""
    try:
        value = _value(parse(latex), {}, _EXACT)
    except (UndecidedError, KeyError, ArithmeticError, ValueError, RecursionError):  # a letter, or no number
        return None
    return value if isinstance(value, fractions.Fraction) else None


def _agree(wanted: Node, found: Node, letters: list[str]) -> bool | None:
    """Compares values at points of both signs; a difference where a value is not real is a question of domain."""
    rng = random.Random(len(letters))
    agreed, domain = 0, False
    for attempt in range(TRIES):
        sign = (1, -1)[attempt % 2]
        point = {name: sign * rng.uniform(0.3, 1.9) for name in letters}
        try:
            same, real = _same_at(point, wanted, found)
        except ZeroDivisionError:
            continue
        if same:
            agreed += 1
            if agreed == (POINTS if letters else 1):
                return None if domain else True
        elif real or not letters:
            return False
        else:
            domain = True
    return None


def _same_at(point: dict[str, float], wanted: Node, found: Node) -> tuple[bool, bool]:
    """Whether the values at a point agree, and whether both are real."""
    try:
        coarse = [_value(node, point, _DOUBLE) for node in (wanted, found)]
        scale = max(map(abs, coarse))
        real = all(abs(value.imag) <= COARSE * max(abs(value), 1e-9) for value in coarse)
        if 1e-3 < scale < 1e9 and abs(coarse[0] - coarse[1]) > COARSE * scale:
            return False, real
    except (OverflowError, ValueError, ZeroDivisionError):  # beyond double precision, perhaps
        pass
    fine = _values(point, wanted, found, digits=DIGITS)
    scale = max(map(abs, fine))
    if scale > LARGEST or not mpmath.isfinite(scale):
        raise UndecidedError
    if scale * LARGEST < 1:
        again = _values(point, wanted, found, digits=4 * DIGITS)
        fine = [_without_noise(value, more) for value, more in zip(fine, again, strict=True)]
        scale = max(map(abs, fine))
    with mpmath.workdps(DIGITS):
        real = all(abs(value.imag) <= AGREED * max(abs(value), 1) for value in fine)
        return bool(abs(fine[0] - fine[1]) <= AGREED * scale), real


def _values(point: dict[str, float], *nodes: Node, digits: int) -> list[Any]:
    with mpmath.workdps(digits):
        exact = {name: mpmath.mpf(value) for name, value in point.items()}
        return [mpmath.mpc(_value(node, exact, _PRECISE)) for node in nodes]


def _without_noise(value: Any, again: Any) -> Any:
    """A tiny value computed twice: what more digits make vanish, as of sin(pi), is the error of a zero."""
    small = abs(again) < mpmath.mpf(10) ** (-3 * DIGITS)
    return mpmath.mpc(0) if small and (not value or abs(again) < AGREED * abs(value)) else again


class _Field:
    """Arithmetic in one precision."""

    def __init__(self, number: Callable[[str], Any], library: Any, pi: Callable[[], Any], i: Any) -> None:
        self.number, self.library, self.pi, self.i = number, library, pi, i


_DOUBLE = _Field(float, cmath, lambda: cmath.pi, 1j)  # real as long as can be: -(4+0j) has a negative zero
_EXACT = _Field(fractions.Fraction, cmath, lambda: cmath.pi, 1j)  # as long as nothing else comes in
_PRECISE = _Field(mpmath.mpf, mpmath, lambda: +mpmath.pi, mpmath.mpc(0, 1))


def _value(node: Node, point: dict[str, Any], field: _Field) -> Any:
    kind = node[0]
    if kind == "number":
        return field.number(node[1])
    if kind == "letter":
        return point[node[1]]
    if kind == "constant":
        return {"pi": field.pi, "e": lambda: field.library.exp(1), "i": lambda: field.i}[node[1]]()
    values = [_value(child, point, field) for child in node[1:]]
    if kind in _OPERATIONS:
        return _OPERATIONS[kind](*values)
    if kind == "^":
        return _power(values[0], values[1], field)
    if kind == "root":
        degree = values[1]
        if degree == 3 and abs(complex(values[0]).imag) < 1e-30 and complex(values[0]).real < 0:
            return -_power(-values[0], 1 / degree, field)  # the real cube root
        return field.library.sqrt(values[0]) if degree == 2 else _power(values[0], 1 / degree, field)
    if kind in ("!", "binom"):
        return field.number(str(_counted(kind, values)))
    return _function(kind, values[0], field)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "negative": lambda a: -a,
    "abs": abs,
}


def _power(base: Any, exponent: Any, field: _Field) -> Any:
    if not base:
        if not complex(exponent).real > 0:
            raise ZeroDivisionError
        return base
    size = abs(complex(exponent)) * abs(math.log(abs(complex(base)) or 1.0))
    if size > LARGEST_POWER:
        raise UndecidedError
    if (
        abs(complex(base).imag) < 1e-30
        and complex(base).real < 0
        and complex(exponent) != round(complex(exponent).real)
    ):
        raise UndecidedError  # a matter of branches
    whole = complex(exponent)
    if whole.imag == 0 and whole.real == round(whole.real):
        return base ** int(whole.real)
    return base**exponent


def _counted(kind: str, values: list[Any]) -> int:
    """Factorials and binomials of small whole numbers."""
    whole = [complex(value) for value in values]
    if any(v.imag or v.real != round(v.real) or not 0 <= v.real <= 60 for v in whole):
        raise UndecidedError
    numbers = [int(v.real) for v in whole]
    return math.factorial(numbers[0]) if kind == "!" else math.comb(*numbers)


def _function(name: str, x: Any, field: _Field) -> Any:
    library = field.library
    if name in ("cot", "sec", "csc"):
        return 1 / getattr(library, {"cot": "tan", "sec": "cos", "csc": "sin"}[name])(x)
    if name in ("ln", "log"):
        if not x:
            raise ZeroDivisionError
        return library.log(x)
    if abs(complex(x)) > 500 and name in ("exp", "sinh", "cosh"):
        raise UndecidedError
    return getattr(library, name.replace("arc", "a"))(x)
