r"""Finding out what an answer is, of its text."""

import fractions
import functools
import itertools
import re

from lilo_jax.grading.answers import (
    INFINITY,
    MINUS_INFINITY,
    Answer,
    Expression,
    Interval,
    Matrix,
    Named,
    Number,
    Set,
    Time,
    Tuple,
    Union,
    Words,
)
from lilo_jax.grading.clock import time_of_day
from lilo_jax.grading.notation import LONGEST, normalise
from lilo_jax.grading.probing import exact
from lilo_jax.grading.sums import TURNED, contradicts, holds, plain, unevaluated, without_remarks
from lilo_jax.grading.units import split_unit

MOST_ITEMS = 40
"""Items of a list that is compared item by item."""
DEEPEST = 8
"""Structures within structures that are read."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_SIGNED = re.compile(rf"([-+]*)({_DIGITS})")
_FRACTION = re.compile(r"([-+]*)\\frac\{([-+]?\d+(?:\.\d+)?)\}\{([-+]?\d+(?:\.\d+)?)\}")
_SLASH = re.compile(rf"([-+]*)\(?({_DIGITS})\)?\s?/\s?\(?(-?(?:{_DIGITS}))\)?")
_MIXED = re.compile(r"([-+]*)(\d+)\s?(?:and)?\s?\\frac\{(\d+)\}\{(\d+)\}|([-+]*)(\d+) (\d+)/(\d+)")
_SCIENTIFIC = re.compile(
    rf"([-+]*)({_DIGITS})\s?(?:[eE]|(?:\\times|\\cdot|x|\*)\s?10\s?\^)\s?\{{?\(?([-+]?\d{{1,3}})\)?\}}?"
)
_POWER_OF_TEN = re.compile(r"([-+]*)10\s?\^\s?\{?([-+]?\d{1,3})\}?")
_LEFT_SIDE = re.compile(
    r"(?:\\?[A-Za-z]+(?:_\w+|')?(?:\s?\([A-Za-z0-9, ]*\))?|\\angle\s?[A-Z]+|\|?[A-Z]{1,3}\|?"
    r"|[A-Za-z]+(?: [A-Za-z]+){1,4}|\([a-z](?:, ?[a-z])+\))"
)
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_ANY_CHOICE = re.compile(r"\(?([A-Za-z])\)?")
_LETTERED = re.compile(r"\(([A-Z])\)|([A-Z])[).:](?=\s|$)")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-.,][^\W\d_]*)*", re.UNICODE)
_ENVIRONMENT = re.compile(
    r"\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\s*\{\1\}", re.DOTALL
)
_EQUALS = re.compile(r"(?<![<>!:])=")
_NEXT_STEP = re.compile(r",(?!\d{3}(?!\d))|;|\band\b|\bthen\b")
_COMPARISON = re.compile(r"\s*(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|<|>)\s*")
_EMPTY = re.compile(r"\\emptyset|no (?:real )?solutions?|\\\{\s*\\\}", re.IGNORECASE)
_ANGLE_OF = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc).*\\degree", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\\degree")
_ANSWER = re.compile(
    r"(?:the )?(?:(?:final|correct|right) )*(?:answer|option|choice)\b\s*(?:is|:|=)?\s*(?=[-\\\d(]|[A-Z](?![A-Za-z ]))",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"((?:[A-Za-z][\w'-]* )*[A-Za-z][\w'-]+)\s?:\s*(.+)|((?:[A-Za-z][\w'-]* )*[A-Za-z][\w'-]*) "
    r"(?:is|are|was|were|equals?|gets?|has|have|makes?|gives?|leaves?|costs?|at) (.+)",
    re.DOTALL,
)
_UNEQUAL = re.compile(r"(\\?[A-Za-z]+)\s?\\ne\s+(.+)")
_WITHOUT = re.compile(r"\\reals\s*(?:\\setminus|\\backslash|-)\s*\\\{(.+)\\\}")
_APPLIED = re.compile(r"[f-hp-rF-HP-R]\s?\([a-z]\)")
_OPENING, _CLOSING = "([{", ")]}"


@functools.lru_cache(maxsize=16384)
def read(text: str) -> Answer:
    """What an answer is, of its text as extracted."""
    return _read(_spoken(text), 0)


def chosen_letter(text: str) -> str | None:
    """The letter of an answer such as "(B)", "B." or "B) 7"."""
    text = _spoken(text)
    found = _ANY_CHOICE.fullmatch(text) or _LETTERED.match(text)
    return next(filter(None, found.groups())) if found else None


def _spoken(text: str) -> str:
    """The normalised text without the word "answer" in front."""
    text = normalise(text)
    found = _ANSWER.match(text)
    return text[found.end() :] if found else text


def _read(text: str, depth: int) -> Answer:
    if depth > DEEPEST or len(text) > LONGEST:
        return Expression(text)
    for reader in READERS:
        found = reader(text.strip(), depth + 1)
        if found is not None:
            return found
    if _ANGLE_OF.search(text):
        return Expression(_DEGREES.sub(r"(\\frac{\1\\pi}{180})", text))
    head, unit = split_unit(text)
    return Expression(_THOUSANDS.sub(lambda m: m[0].replace(",", ""), head), unit)


def _time(text: str, depth: int) -> Time | None:
    return time_of_day(text)


def _number(text: str, depth: int) -> Number | None:
    head, percent = re.subn(r"\s?\\percent\s?$", "", text)
    head, unit = split_unit(head) if not percent else (head, "")
    value = _value(head)
    if value is None:
        bare = without_remarks(text)
        return _number(bare, depth) if bare != text else None
    return Number(value / 100 if percent else value, unit, bool(percent))


def _value(text: str) -> fractions.Fraction | None:
    """The value of a numeral, exact."""
    text = re.sub(r"\{[-+]?\d{1,3}(?:,\d{3})+\}", lambda m: m[0].replace(",", ""), text.strip())
    if text.startswith("(") and text.endswith(")") and "," not in text and _SIGNED.fullmatch(text[1:-1]):
        text = text[1:-1]
    if len(text) > 400:
        return None
    if found := _SIGNED.fullmatch(text):
        return _sign(found[1]) * _decimal(found[2])
    if (found := _FRACTION.fullmatch(text) or _SLASH.fullmatch(text)) and _decimal(found[3]):
        return _sign(found[1]) * _decimal(found[2]) / _decimal(found[3])
    if found := _MIXED.fullmatch(text):
        sign, whole, numerator, denominator = (g for g in found.groups() if g is not None)
        if int(denominator):
            return _sign(sign) * (int(whole) + fractions.Fraction(int(numerator), int(denominator)))
    if found := _SCIENTIFIC.fullmatch(text):
        return _sign(found[1]) * _decimal(found[2]) * fractions.Fraction(10) ** int(found[3])
    if found := _POWER_OF_TEN.fullmatch(text):
        return _sign(found[1]) * fractions.Fraction(10) ** int(found[2])
    return None


def _sign(signs: str) -> int:
    return -1 if signs.count("-") % 2 else 1


def _decimal(digits: str) -> fractions.Fraction:
    return fractions.Fraction(digits.replace(",", "").rstrip(".") or "0")


def _matrix(text: str, depth: int) -> Matrix | None:
    found = _ENVIRONMENT.fullmatch(text.strip(" []()|"))
    if not found:
        return None
    rows = [row for row in re.split(r"\\\\|\\cr", found[2]) if row.strip()]
    return Matrix(tuple(tuple(_read(entry.strip(), depth) for entry in row.split("&")) for row in rows))


def _equation(text: str, depth: int) -> Answer | None:
    r"""The right side of "x = 3", "x \in [0, 1)", "x = 1/2 = 0.5" or "12 + 30 = 42"."""
    if member := re.match(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*", text):
        return _read(text[member.end() :], depth)
    sides = _split(text, _EQUALS)
    if len(sides) < 2 or len(_split(text, re.compile(r",(?!\d{3}(?!\d))|;|\bor\b|\band\b"))) > 1:
        return None
    name = sides[0].strip()
    if not all(side.strip() for side in sides):
        return None
    if _LEFT_SIDE.fullmatch(name):
        return Named(name, _read(sides[-1].strip(), depth))
    if holds(sides):
        value = next((side for side in reversed(sides) if not unevaluated(side)), sides[-1])
        others = [plain(side) for side in sides if side is not value]
        return Named("=".join(others), _read(value.strip(), depth))
    if (bare := without_remarks(text)) != text:
        return _equation(bare, depth)
    return _read(sides[-1].strip(), depth) if len(sides) > 2 and not contradicts(sides) else None


def _chain(text: str, depth: int) -> Named | None:
    """Equations of numbers, one after another, answer with the last one: "5 * 6 = 30, 30 - 10 = 20"."""
    steps = [step.strip() for step in _split(text, _NEXT_STEP) if step.strip()]
    sides = [_split(step, _EQUALS) for step in steps]
    if len(steps) < 2 or not all(len(parts) > 1 and all(map(str.strip, parts)) and holds(parts) for parts in sides):
        return None
    last = _equation(steps[-1], depth)
    return last if isinstance(last, Named) else None


def _labelled(text: str, depth: int) -> Named | None:
    """What "Area: 5" or "there are 5 apples" says; a label names mathematics only."""
    found = _LABELLED.fullmatch(text)
    label, rest = (found[1] or found[3], found[2] or found[4]) if found else ("", "")
    if not label or TURNED.search(label) or not re.search(r"\d", rest) or re.search(r"[A-Za-z]\s?:", rest):
        return None
    value = _read(rest.strip(), depth)
    return Named(label, value) if _is_mathematical(value) else None


def _is_mathematical(answer: Answer) -> bool:
    if isinstance(answer, Named):
        return _is_mathematical(answer.value)
    if isinstance(answer, Expression):
        return not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", answer.latex)
    return not isinstance(answer, Words)


def _intervals(text: str, depth: int) -> Answer | None:
    parts = _split(text, re.compile(r"\\cup(?![A-Za-z])|\bU\b"))
    if len(parts) > 1 and all(part.strip() for part in parts):
        return Union(tuple(_read(part.strip(), depth) for part in parts))
    if text == r"\reals":
        return Interval(MINUS_INFINITY, INFINITY, False, False)
    if excluded := _excluded(text, depth):
        return excluded
    if _split(text, re.compile(r",|;|\bor\b|\band\b"))[1:]:
        return _interval(text, depth)
    return _inequality(text, depth) or _interval(text, depth)


def _interval(text: str, depth: int) -> Interval | None:
    """[a, b), (a, b] and [a, b]; round on both sides only where an end is infinite."""
    if len(text) < 5 or text[0] not in "([" or text[-1] not in ")]" or _closing(text) != len(text) - 1:
        return None
    items = _split(text[1:-1], re.compile(r",|;"))
    if len(items) != 2 or not all(item.strip() for item in items):
        return None
    if text[0] == "(" and text[-1] == ")" and r"\infty" not in text:
        return None
    low, high = (_read(item.strip(), depth) for item in items)
    return Interval(low, high, text[0] == "[", text[-1] == "]")


def _excluded(text: str, depth: int) -> Union | None:
    r"""All numbers but some: "x \ne 2", "x \ne 1, 2", "\mathbb{R} \setminus \{1, 2\}"."""
    unequal, without = _UNEQUAL.fullmatch(text), _WITHOUT.fullmatch(text)
    if not (unequal or without):
        return None
    items = _split(unequal[2] if unequal else without[1], re.compile(r",|\band\b"))  # type: ignore[index]
    again = rf"\s*(?:{re.escape(unequal[1])}\s?\\ne\s)?\s*" if unequal else ""
    items = [re.sub(f"^{again}", "", item).strip() for item in items]
    if any(r"\ne" in item for item in items):
        return None
    read_items = [_read(item, depth) for item in items]
    found = [point for item in read_items for point in (item.items if isinstance(item, Set) else (item,))]
    points = {point.value: point for point in found if isinstance(point, Number)}
    if len(points) < len(found) and not (len(found) == 1 and isinstance(found[0], Expression)):
        return None
    found = [points[value] for value in sorted(points)] or found
    ends = [MINUS_INFINITY, *found, INFINITY]
    return Union(tuple(Interval(low, high, False, False) for low, high in itertools.pairwise(ends)))


def _inequality(text: str, depth: int) -> Interval | None:
    parts = _COMPARISON.split(text)
    terms, signs = parts[::2], parts[1::2]
    if len(signs) not in (1, 2) or not all(term.strip() for term in terms):
        return None
    down = [sign in (">", r"\ge") for sign in signs]
    closed = [sign in (r"\le", r"\ge") for sign in signs]
    if len(signs) == 2:
        if down[0] != down[1] or not _is_variable(terms[1]):
            return None
        ends = _read(terms[0].strip(), depth), _read(terms[2].strip(), depth)
        if down[0]:
            return Interval(ends[1], ends[0], closed[1], closed[0])
        return Interval(ends[0], ends[1], closed[0], closed[1])
    if _is_variable(terms[0]):
        bound, above = _read(terms[1].strip(), depth), down[0]
    elif _is_variable(terms[1]):
        bound, above = _read(terms[0].strip(), depth), not down[0]
    else:
        return None
    if above:
        return Interval(bound, INFINITY, closed[0], False)
    return Interval(MINUS_INFINITY, bound, False, closed[0])


def _is_variable(text: str) -> bool:
    text = text.strip()
    return text != r"\infty" and bool(re.fullmatch(r"\\?[A-Za-z]+(?:_\w+)?", text) or _APPLIED.fullmatch(text))


def _split_list(text: str, words: str = "") -> list[str]:
    """Items of a list.  A comma with a space behind it separates; where there is none, every comma does."""
    comma = r",(?!\d{3}(?!\d))|,(?=\s)" if re.search(r",\s", text) else r",(?!0\d\d(?!\d))"
    return _split(text, re.compile(rf"{comma}|;{words}"))


def _bracketed(text: str, depth: int) -> Tuple | Set | None:
    if text.startswith(r"\{") and text.endswith(r"\}"):
        inner = text[2:-2]
    elif text.startswith("{") and text.endswith("}") and _closing(text) == len(text) - 1 and "," in text:
        inner = text[1:-1]
    elif text and text[0] in "([" and text[-1] in ")]" and _closing(text) == len(text) - 1:
        items = _split_list(text[1:-1])
        return Tuple(tuple(_read(item.strip(), depth) for item in items)) if len(items) > 1 else None
    else:
        return None
    items = _split_list(inner)
    return Set(tuple(_read(item.strip(), depth) for item in items if item.strip()))


def _list(text: str, depth: int) -> Answer | None:
    """A bare list: "1, 2", "1 and 2", "x = 1 or x = 2"; of intervals, their union."""
    if _EMPTY.fullmatch(text):
        return Set(())
    if both := _both(text, depth):
        return both
    items = [t.strip() for t in _split_list(text, r"|\bor\b|\band\b|&")]
    items = [re.sub(r"^(?:or|and)\b\s*", "", item) for item in items if item.strip()]
    if len(items) < 2 or len(items) > MOST_ITEMS or _words(text, depth):
        return None
    if all(_WORDS.fullmatch(item) and len(item) > 1 for item in items):
        return Set(tuple(Words(_folded(item)) for item in items))
    found = tuple(_read(item, depth) for item in items)
    return Union(found) if all(isinstance(item, Interval) for item in found) else Set(found)


def _both(text: str, depth: int) -> Interval | None:
    """Two half-lines joined by "and": what they have in common."""
    parts = _split(text, re.compile(r"\band\b"))
    ends = [_inequality(part.strip(), depth) for part in parts] if len(parts) == 2 else []
    for low, high in (ends, ends[::-1]) if all(ends) and ends else ():
        if low and high and low.high == INFINITY and high.low == MINUS_INFINITY:
            return Interval(low.low, high.high, low.low_closed, high.high_closed)
    return None


def _plus_minus(text: str, depth: int) -> Set | None:
    if len(re.findall(r"\\[pm][mp](?![a-z])", text)) != 1:
        return None
    signs = ("+", "-") if r"\pm" in text else ("-", "+")
    both = (re.sub(r"\\(?:pm|mp)\s*", lambda m, sign=sign: sign, text).removeprefix("+") for sign in signs)  # type: ignore[misc]
    values = ((exact(one), one) for one in both)
    return Set(tuple(_read(one, depth) if value is None else Number(value) for value, one in values))


def _words(text: str, depth: int) -> Words | None:
    """Letters alone, two or more of them; one capital is a choice."""
    if _CHOICE.fullmatch(text):
        return Words(text.strip("()"))
    if not _WORDS.fullmatch(text) or not re.search(r"[^\W\d_]{2}", text) or "\\" in text:
        return None
    if re.search(r"\b(?:and|or)\b|,", text):
        return None
    # Two or three letters side by side may be a product of variables, "xy"; a word has a vowel or a capital.
    if len(text) <= 3 and text.islower() and text not in ("yes", "no", "odd", "red", "one", "two", "six", "ten"):
        return None
    return Words(_folded(text))


def _folded(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", text).casefold().split()
    return " ".join(word for word in words if word not in ("a", "an", "the")) or text.casefold()


def _closing(text: str) -> int:
    """Where the bracket that opens a text is closed; half-open intervals pair any brackets.  -1 if never."""
    depth = 0
    for i, character in enumerate(text):
        if i and text[i - 1] == "\\":
            continue
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return i
    return -1


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Parts between separators that stand in no brackets."""
    parts, start, depth, skip = [], 0, 0, 0
    cuts = {m.start(): m.end() for m in separator.finditer(text)}
    for i, character in enumerate(text):
        if i < skip:
            continue
        if depth == 0 and i in cuts:
            parts.append(text[start:i])
            start = skip = cuts[i]
            continue
        depth = max(depth + (character in _OPENING) - (character in _CLOSING), 0)
    return [*parts, text[start:]]


READERS = (
    _time, _number, _matrix, _equation, _chain, _intervals, _labelled, _bracketed, _list, _plus_minus, _words,
)  # fmt: skip
"""What is tried in this order."""
