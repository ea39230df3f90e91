"""Equality of two mathematical expressions, by `math-verify` and sympy.

Nothing here may run outside a process that can be killed: what sympy does with an expression can take for ever.  No
text is ever evaluated as Python: `math-verify` parses LaTeX with a grammar of its own.
"""

import functools
import logging
import re
from typing import Any

LONGEST = 300
"""Characters of an expression that is parsed."""
DEEPEST = 20
"""Brackets within brackets of an expression that is parsed."""

_READABLE = re.compile(r"[A-Za-z0-9\\{}()\[\]+\-*/^_=<>|!.,:;'&\s%]*")
_TOWER = re.compile(
    r"\^\{[^{}]*\^\{[^{}]*\^|\^\w\^"  # three levels of powers, or levels without braces
    r"|\^\{?\d+\^\{?\d{2,}|\^\{?-?\d{5,}"  # huge exponents
    r"|\d{5,}\}?!|\([^()a-z]*\)!|!!|\d{40,}"
)


def readable(expression: str) -> bool:
    """Whether an expression is short and tame enough to be worth parsing; costs little, whatever it is."""
    if len(expression) > LONGEST or "__" in expression or not _READABLE.fullmatch(expression):
        return False
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest <= DEEPEST and depth == 0 and not _TOWER.search(expression)


def equivalent(gold: str, answer: str) -> bool:
    """Whether two LaTeX expressions are equal as functions of their letters; False if one cannot be read.

    Decimals are exact: 1.414 is not the square root of 2.
    """
    if not (readable(gold) and readable(answer)):
        return False
    wanted, found = _parse(gold), _parse(answer)
    if wanted is None or found is None:
        return False
    from math_verify import verify

    return bool(verify(wanted, found, float_rounding=12, timeout_seconds=None))


def close(gold: str, answer: str, *, tolerance: float) -> bool:
    """Whether two LaTeX expressions are equal, or their values differ by less than `tolerance`."""
    if equivalent(gold, answer):
        return True
    if not (readable(gold) and readable(answer)):
        return False
    wanted, found = _parse(gold), _parse(answer)
    try:
        return abs(complex((wanted - found).evalf())) < tolerance
    except (TypeError, ValueError, AttributeError, OverflowError):  # not numbers
        return False


def warm_up() -> None:
    """Loads what the first call of a process would load."""
    equivalent(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")
    equivalent(r"\sin^{2} x", r"1-\cos^{2} x")


@functools.lru_cache(maxsize=4096)
def _parse(expression: str) -> Any:
    """The sympy expression, the letter i being the imaginary unit; None if there is none."""
    import sympy
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own alarms are off
    exact = _DECIMAL.sub(_as_fraction, expression)
    # Units are off: it would take the letters of 2ab for one.
    as_written = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
    )
    found = parse(
        f"${exact}$",
        extraction_config=[LatexExtractionConfig(normalization_config=as_written)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if not found or isinstance(found[0], str):
        return None
    imaginary = {s: sympy.I for s in getattr(found[0], "free_symbols", ()) if s.name == "i"}
    return found[0].subs(imaginary) if imaginary else found[0]


_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")


def _as_fraction(decimal: re.Match[str]) -> str:
    digits = decimal[1] + decimal[2]
    return rf"\frac{{{int(digits)}}}{{{10 ** len(decimal[2])}}}"
