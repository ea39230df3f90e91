"""Equations of numbers, such as 12 + 30 = 42: whether they hold.

One that holds answers with its last side; one that does not is no answer at all.
"""

import re
from collections.abc import Sequence

from lilo_jax.grading.probing import close

_CURRENCY = re.compile(r"\\(?:dollar|euro|pound|yen)(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TIMES = re.compile(r"(?<=[\d)])\s*x\s*(?=[\d(])")
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_DECIMALS = re.compile(r"\s*-?\d*\.(\d+)\s*")


def holds(sides: Sequence[str]) -> bool:
    """Whether all sides are numbers, and equal; a decimal at the end may be rounded to the digits that it shows."""
    *first, last = map(plain, sides)
    if any(_LETTER.search(side) for side in (*first, last)):
        return False
    decimals = _DECIMALS.fullmatch(last)
    tolerance = 0.5001 * 10.0 ** -len(decimals[1]) if decimals else 0.0
    return all(close(side, last, tolerance=tolerance) for side in first)


def plain(side: str) -> str:
    """A side without the units and words around its numbers."""
    side = _COMMA.sub("", _TIMES.sub(r"\\times ", side))
    side = side.replace(r"\percent", r"\cdot 0.01 ")
    return " ".join(_WORD.sub("", _CURRENCY.sub("", side)).split())
