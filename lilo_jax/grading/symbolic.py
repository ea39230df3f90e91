"""Equality of two mathematical expressions, by `math-verify` and sympy.

Nothing here may run outside a process that can be killed: what sympy does with an expression can take for ever.  No
text is ever evaluated as Python: `math-verify` parses LaTeX with a grammar of its own.
"""

import collections
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
    if len(expression) > LONGEST or "__" in expression or "dot{" in expression or not _READABLE.fullmatch(expression):
        return False
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest <= DEEPEST and depth == 0 and not _TOWER.search(expression)


def equivalent(gold: str, answer: str) -> bool:
    """Whether two LaTeX expressions are equal as functions of their letters; False if one cannot be read.

    Equations are equal if their two sides differ by the same up to a constant factor; an equation equals no
    expression.  Decimals are exact: 1.414 is not the square root of 2.
    """
    if not (readable(gold) and readable(answer)) or _marks(gold) != _marks(answer):
        return False
    equations = sides(gold), sides(answer)
    if max(map(len, equations)) > 1:
        return _same_equation(*equations)
    wanted, found = _parse(gold), _parse(answer)
    if wanted is None or found is None:
        return False
    from math_verify import verify

    return bool(verify(wanted, found, float_rounding=12, timeout_seconds=None)) and not _tiny_but_apart(wanted, found)


def sides(expression: str) -> list[str]:
    """The sides of an equation; one for an expression.  A sign within braces, as under a sum, makes no equation."""
    parts, depth = [""], 0
    for character in expression:
        depth += (character == "{") - (character == "}")
        if character == "=" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _marks(expression: str) -> collections.Counter[str]:
    """Derivatives and applied functions, which a parser takes for products of letters."""
    return collections.Counter(re.findall(r"'|[A-Za-z]\([A-Za-z]\)|\\frac\{d[^}]*\}\{d[^}]*\}", expression))


def _same_equation(gold: list[str], answer: list[str]) -> bool:
    import sympy

    sides = [_parse(side) for side in (*gold, *answer)]
    if len(gold) != 2 or len(answer) != 2 or any(not isinstance(side, sympy.Expr) for side in sides):
        return False
    difference, other = sides[0] - sides[1], sides[2] - sides[3]
    if not other:
        return not difference
    ratio = sympy.simplify(difference / other)
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)


def _tiny_but_apart(one: Any, other: Any) -> bool:
    """Whether two values are different and so small that their difference is rounded to zero by `math-verify`."""
    import sympy

    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return False
    letters = sorted(one.free_symbols | other.free_symbols, key=str)
    point = {letter: sympy.Rational(7 + i, 5) for i, letter in enumerate(letters)}
    values = [each.subs(point).doit().evalf(30) for each in (one, other)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    scale = max(map(abs, values))
    return bool(scale < 1e-10 and abs(values[0] - values[1]) > 1e-10 * scale)


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
    # The parser takes gamma for a function and makes capital letters small.
    exact = re.sub(r"\\gamma(?![a-zA-Z])", r"\\xi", exact)
    exact = _CAPITAL.sub(lambda m: f"{m[1].lower()}_{{9{ord(m[1])}{m[2] or m[3] or ''}}}", exact)
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
    if not hasattr(found[0], "subs") or found[0].has(sympy.zoo, sympy.nan):
        return found[0] if hasattr(found[0], "shape") else None
    # Letters without assumptions, so that they are the same in both expressions; i is the imaginary unit.
    plain = {s: sympy.I if s.name == "i" else sympy.Symbol(s.name) for s in found[0].free_symbols}
    return found[0].subs(plain, simultaneous=True)


_CAPITAL = re.compile(r"(?<![\\A-Za-z])([A-Z])(?:_(?:\{(\w+)\}|(\w)))?")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")


def _as_fraction(decimal: re.Match[str]) -> str:
    digits = decimal[1] + decimal[2]
    return rf"\frac{{{int(digits)}}}{{{10 ** len(decimal[2])}}}"
