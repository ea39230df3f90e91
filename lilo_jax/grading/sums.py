"""Sums and equations of numbers: 12 + 30 = 42 answers with 42, 12 + 30 is no answer.

An equation that holds answers with its last side that is worked out; one that does not hold is no answer at all.
To write down what was to be computed is none either, or a copy of the question would earn.
"""

import itertools
import math
import re
from collections.abc import Sequence

from lilo_jax.grading.notation import compact, normalise
from lilo_jax.grading.probing import close, exact
from lilo_jax.grading.trees import Node, UndecidedError, parse

_CURRENCY = re.compile(r"\\(?:dollar|euro|pound|yen)(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TIMES = re.compile(r"(?<=[\d)])\s*x\s*(?=[\d(])")
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_DECIMALS = re.compile(r"\s*-?\d*\.(\d+)\s*")
_RATIO = re.compile(r"\d{1,9}(?:\s?:\s?\d{1,9})+")
_ARITHMETIC = ("+", "-", "*")
TURNED = re.compile(
    r"\b(?:not|never|no|nor|or|except|without|minus|negative|wrong|incorrect|if|mod|base|less|more|over|under"
    r"|hundreds?|thousands?|millions?|billions?)\b",
    re.IGNORECASE,
)
"""Words that make another value of a label's or a remark's."""
_REMARK = re.compile(r"(?<=[\w}]) \((?=[^()]*[aeiou])([A-Za-z0-9][A-Za-z0-9,' -]*[A-Za-z0-9])\)")


def without_remarks(text: str) -> str:
    """What stands without words in brackets behind a value: 6 (red) + 2 = 8 (1 for each), but not 2 (3 apples)."""
    return _REMARK.sub(lambda found: "" if _is_remark(found[1]) else found[0], text)


def _is_remark(words: str) -> bool:
    """A number and its unit alone are a factor."""
    return len(_WORD.findall(words)) > bool(re.search(r"\d", words)) and not TURNED.search(words)


def holds(sides: Sequence[str]) -> bool:
    """Whether all sides are numbers, and equal; a decimal at the end may be rounded to the digits that it shows."""
    *first, last = map(plain, sides)
    if any(_LETTER.search(side) for side in (*first, last)):
        return False
    decimals = _DECIMALS.fullmatch(last)
    tolerance = 0.5001 * 10.0 ** -len(decimals[1]) if decimals else 0.0
    return all(close(side, last, tolerance=tolerance) for side in first)


def contradicts(sides: Sequence[str]) -> bool:
    """Whether neighbours among the sides are numbers of the same words that differ: 18 cups = 2 cups, not 1 ft = 12 in.

    Such an equation cannot hold, whatever the sides say that are no numbers.
    """
    return any(
        _WORD.findall(one) == _WORD.findall(other)
        and None not in (exact(plain(one)), exact(plain(other)))
        and not holds((one, other))
        for one, other in itertools.pairwise(sides)
    )


def unevaluated(latex: str) -> bool:
    r"""Whether a sum, a difference or a product of numbers is left to be done: 37 + 45, 3(5), \frac{1 + 2}{3}.

    Fractions, powers, roots and factorials alone, and what holds letters, constants or roots as terms (1 + \sqrt{2}),
    are values as they stand.
    """
    try:
        return _leaves_work(parse(plain(latex)))
    except UndecidedError:
        return False


def echoes(answer: str, question: str) -> bool:
    """Whether an answer is a fraction, power or root to be worked out that the question states: 84/7, but not 3/4."""
    try:
        answer = normalise(answer)
        kind, *parts = parse(plain(answer))
    except UndecidedError:
        return False
    terms = [int(part[1]) for part in parts if part[0] == "number" and part[1].isdigit()]
    in_lowest_terms = kind == "/" and len(terms) == 2 and terms[1] != 1 and math.gcd(*terms) == 1
    if kind not in ("/", "^", "root", "!", "binom") or in_lowest_terms:
        return False
    return bool(re.search(rf"(?<![\d.]){re.escape(compact(answer))}(?!\.?\d)", compact(normalise(question))))


def copies_ratio(answer: str, gold: str, question: str) -> bool:
    """Whether an answer is a ratio of numbers of the question, which the gold has in lowest terms: 56:84 for 2:3."""
    given, wanted = (
        [int(term) for term in re.findall(r"\d+", text)] if _RATIO.fullmatch(text) else [] for text in (answer, gold)
    )
    stated = set(re.findall(r"\d+", question))
    return math.gcd(*given) > 1 and math.gcd(*wanted) == 1 and stated.issuperset(map(str, given))


def _leaves_work(node: Node) -> bool:
    parts = [part for part in node[1:] if isinstance(part, tuple)]
    return (node[0] in _ARITHMETIC and all(map(_is_rational, parts))) or any(map(_leaves_work, parts))


def _is_rational(node: Node) -> bool:
    return node[0] == "number" or (node[0] in (*_ARITHMETIC, "/", "^", "negative") and all(map(_is_rational, node[1:])))


def plain(side: str) -> str:
    """A side without the units and words around its numbers."""
    side = _COMMA.sub("", _TIMES.sub(r"\\times ", side))
    side = side.replace(r"\percent", r"\cdot 0.01 ")
    return " ".join(_WORD.sub("", _CURRENCY.sub("", side)).split())
