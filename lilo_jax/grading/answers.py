r"""What an answer is: a number, a tuple, a set, intervals, a matrix, words, or else an expression.

`read` finds out, `compare` says whether two are the same: True, False, or None where only algebra can tell.  Numbers
are exact, brackets mean what they mean in mathematics, and what one side leaves out (a unit, "x =") is not held
against it.
"""

import dataclasses
import fractions
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from lilo_jax.grading.notation import compact, normalise
from lilo_jax.grading.units import split_unit

Same = bool | None


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


Answer = Number | Expression | Words | Named | Tuple | Set | Interval | Union | Matrix
INFINITY = Expression(r"\infty")
MINUS_INFINITY = Expression(r"-\infty")
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
_COMPARISON = re.compile(r"\s*(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|<|>)\s*")
_EMPTY = re.compile(r"\\emptyset|no (?:real )?solutions?|\\\{\s*\\\}", re.IGNORECASE)
_ANGLE_OF = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc).*\\degree", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\\degree")
_OPENING, _CLOSING = "([{", ")]}"


@functools.lru_cache(maxsize=16384)
def read(text: str) -> Answer:
    """What an answer is, of its text as extracted."""
    return _read(normalise(text), 0)


def compare(gold: Answer, answer: Answer, algebra: Callable[[str, str], Same]) -> Same:
    """Whether two answers are the same; None if `algebra` gave None where it mattered.

    Args:
        gold, answer: as read.
        algebra: (LaTeX, LaTeX) to whether they are equal, or None if it cannot tell.
    """
    if isinstance(gold, Named) and isinstance(answer, Named) and not _same_name(gold.name, answer.name):
        return False
    gold, answer = (x.value if isinstance(x, Named) else x for x in (gold, answer))
    pair = (gold, answer)
    if any(isinstance(x, Interval | Union) for x in pair):
        return _same_union(_as_union(gold), _as_union(answer), algebra)
    if any(isinstance(x, Matrix | Tuple) for x in pair):
        return _same_sequence(gold, answer, algebra)
    if any(isinstance(x, Set) for x in pair):
        return _same_set(_items(gold), _items(answer), algebra)
    if any(isinstance(x, Words) for x in pair):
        return _same_words(gold, answer)
    if isinstance(gold, Number) and isinstance(answer, Number):
        return gold.value == answer.value and _same_unit(gold.unit, answer.unit)
    assert isinstance(gold, Number | Expression)
    assert isinstance(answer, Number | Expression)
    if not _same_unit(gold.unit, answer.unit):
        return False
    ours, theirs = _latex(gold), _latex(answer)
    return True if compact(ours) == compact(theirs) else algebra(ours, theirs)


def shown(answer: Answer) -> str:
    """An answer as text, the same for all that are exactly the same."""
    match answer:
        case Number():
            return f"{answer.value} {answer.unit}".strip()
        case Expression():
            return f"{compact(answer.latex)} {answer.unit}".strip()
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


def as_percentage(answer: Answer) -> Answer:
    """The answer to a question that asks for a percentage: a bare number means that many percent."""
    if isinstance(answer, Named):
        return as_percentage(answer.value)
    if isinstance(answer, Number) and not answer.percent:
        return Number(answer.value / 100, answer.unit, percent=True)
    return answer


def chosen_letter(text: str) -> str | None:
    """The letter of an answer such as "(B)", "B." or "B) 7"."""
    text = normalise(text)
    found = _ANY_CHOICE.fullmatch(text) or _LETTERED.match(text)
    return next(filter(None, found.groups())) if found else None


# --------------------------------------------------------------------------------------------------------- reading
def _read(text: str, depth: int) -> Answer:
    if depth > DEEPEST or len(text) > 2 * 1000:
        return Expression(text)
    for reader in (_number, _matrix, _equation, _intervals, _bracketed, _list, _plus_minus, _words):
        found = reader(text.strip(), depth + 1)
        if found is not None:
            return found
    if _ANGLE_OF.search(text):
        return Expression(_DEGREES.sub(r"(\\frac{\1\\pi}{180})", text))
    head, unit = split_unit(text)
    return Expression(_THOUSANDS.sub(lambda m: m[0].replace(",", ""), head), unit)


def _number(text: str, depth: int) -> Number | None:
    head, percent = re.subn(r"\s?\\percent\s?$", "", text)
    head, unit = split_unit(head) if not percent else (head, "")
    value = _value(head)
    if value is None:
        return None
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
    r"""The right side of "x = 3", "x \in [0, 1)" or "x = 1/2 = 0.5"."""
    if member := re.match(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*", text):
        return _read(text[member.end() :], depth)
    sides = _split(text, re.compile(r"(?<![<>!:])="))
    if len(sides) < 2 or len(_split(text, re.compile(r",|;|\bor\b|\band\b"))) > 1:
        return None
    name = sides[0].strip()
    if not all(side.strip() for side in sides):
        return None
    if len(sides) == 2 and not _LEFT_SIDE.fullmatch(name):
        return None
    value = _read(sides[-1].strip(), depth)
    return Named(name, value) if _LEFT_SIDE.fullmatch(name) else value


def _intervals(text: str, depth: int) -> Answer | None:
    parts = _split(text, re.compile(r"\\cup(?![A-Za-z])|\bU\b"))
    if len(parts) > 1 and all(part.strip() for part in parts):
        return Union(tuple(_read(part.strip(), depth) for part in parts))
    if text == r"\reals":
        return Interval(MINUS_INFINITY, INFINITY, False, False)
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
    return bool(re.fullmatch(r"\\?[A-Za-z]+(?:_\w+)?", text.strip())) and text.strip() != r"\infty"


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
    both = (re.sub(r"\\(?:pm|mp)\s*", lambda m, sign=sign: sign, text) for sign in signs)  # type: ignore[misc]
    return Set(tuple(_read(one.removeprefix("+"), depth) for one in both))


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


# ------------------------------------------------------------------------------------------------------- comparing
def _all(found: Iterator[Same]) -> Same:
    unknown = False
    for same in found:
        if same is False:
            return False
        unknown |= same is None
    return None if unknown else True


def _same_unit(gold: str, answer: str) -> bool:
    return not gold or not answer or gold == answer


def _latex(answer: Answer) -> str:
    if isinstance(answer, Expression):
        return answer.latex
    assert isinstance(answer, Number)
    value = answer.value
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _same_name(one: str, other: str) -> bool:
    """Whether left sides may mean the same: y and f(x) may, or a word and a letter, but not x and y."""
    letters = [name for name in (one, other) if re.fullmatch(r"\\?[a-z]+|[A-Z]{1,4}", name)]
    return len(letters) < 2 or one == other


def _same_words(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Words) and isinstance(answer, Words)):
        return False
    choice = len(gold.text) > 1 or gold.text in "ABCDEF"  # any other capital is a variable
    return gold.text == answer.text or (choice and gold.text.casefold() == answer.text.casefold())


def _same_sequence(gold: Answer, answer: Answer, algebra: Callable[[str, str], Same]) -> Same:
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        pairs = zip(itertools.chain(*gold.rows), itertools.chain(*answer.rows), strict=True)
    elif isinstance(gold, Tuple) and isinstance(answer, Tuple) and len(gold.items) == len(answer.items):
        pairs = zip(gold.items, answer.items, strict=True)
    else:
        return False
    return _all(compare(one, other, algebra) for one, other in pairs)


def _items(answer: Answer) -> Sequence[Answer]:
    return answer.items if isinstance(answer, Set) else (answer,)


def _same_set(gold: Sequence[Answer], answer: Sequence[Answer], algebra: Callable[[str, str], Same]) -> Same:
    """Every item of each is among the other's."""
    if max(len(gold), len(answer)) > MOST_ITEMS:
        return False
    table = [[compare(one, other, algebra) for other in answer] for one in gold]
    if len(gold) == len(answer) and not any(None in line for line in table):
        return _matched(table)  # 1, 1, 3 is not 1, 3, 3

    def found(row: Sequence[Same]) -> Same:
        return True if True in row else None if None in row else False

    return (
        _all(found(line) for line in (*table, *zip(*table, strict=True)))
        if table and answer
        else not gold and not answer
    )


def _matched(table: Sequence[Sequence[Same]]) -> bool:
    """Whether the items can be paired off; being the same is transitive, so that the first partner will do."""
    free = set(range(len(table)))
    for line in table:
        partner = next((i for i in sorted(free) if line[i]), None)
        if partner is None:
            return False
        free.remove(partner)
    return True


def _as_union(answer: Answer) -> Sequence[Answer] | None:
    """The parts of a union; an ordered pair may be an open interval."""
    if isinstance(answer, Union):
        return [part for item in answer.parts for part in _as_union(item) or (item,)]
    if isinstance(answer, Tuple) and len(answer.items) == 2:
        return [Interval(*answer.items, low_closed=False, high_closed=False)]
    return [answer] if isinstance(answer, Interval | Set) else None


def _same_union(
    gold: Sequence[Answer] | None, answer: Sequence[Answer] | None, algebra: Callable[[str, str], Same]
) -> Same:
    if gold is None or answer is None or len(gold) != len(answer) or len(gold) > MOST_ITEMS:
        return False
    table = [[_same_part(one, other, algebra) for other in answer] for one in gold]
    return _all(
        (True if True in line else None if None in line else False) for line in (*table, *zip(*table, strict=True))
    )


def _same_part(gold: Answer, answer: Answer, algebra: Callable[[str, str], Same]) -> Same:
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        if (gold.low_closed, gold.high_closed) != (answer.low_closed, answer.high_closed):
            return False
        return _all(iter([compare(gold.low, answer.low, algebra), compare(gold.high, answer.high, algebra)]))
    if isinstance(gold, Set) and isinstance(answer, Set):
        return _same_set(gold.items, answer.items, algebra)
    return False
