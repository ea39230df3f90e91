"""Whether two answers are the same: True, False, or None where only algebra can tell.

Numbers are exact, brackets mean what they mean in mathematics, and what one side leaves out (a unit, "x =") is not held
against it.
"""

import fractions
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from lilo_jax.grading.answers import (
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
from lilo_jax.grading.clock import same_time
from lilo_jax.grading.notation import compact
from lilo_jax.grading.reading import MOST_ITEMS
from lilo_jax.grading.sums import unevaluated
from lilo_jax.grading.symbolic import sides

Same = bool | None
Algebra = Callable[[str, str], Same]


def compare(gold: Answer, answer: Answer, algebra: Algebra) -> Same:
    """Whether two answers are the same; None if `algebra` gave None where it mattered.

    Args:
        gold, answer: as read.
        algebra: (LaTeX, LaTeX) to whether they are equal, or None if it cannot tell.
    """
    if lines := _lines(gold, answer):
        return algebra(*lines)
    if isinstance(gold, Named) and isinstance(answer, Named) and not _same_name(gold.name, answer.name):
        return False
    gold, answer = map(_value, (gold, answer))
    if isinstance(gold, Time) and isinstance(answer, Time):
        return same_time(gold, answer)
    gold, answer = (_written(x) if isinstance(x, Time) else x for x in (gold, answer))
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
    if not _same_unit(gold.unit, answer.unit) or (isinstance(gold, Number) and is_calculation(answer)):
        return False
    ours, theirs = _latex(gold), _latex(answer)
    return True if compact(ours) == compact(theirs) else algebra(ours, theirs)


def is_calculation(answer: Answer) -> bool:
    """Whether it is yet to be worked out, so that no number is answered by it."""
    return isinstance(answer, Expression) and unevaluated(answer.latex)


def as_percentage(answer: Answer) -> Answer:
    """The answer to a question that asks for a percentage: a bare number means that many percent."""
    if isinstance(answer, Named):
        return as_percentage(answer.value)
    if isinstance(answer, Number) and not answer.percent:
        return Number(answer.value / 100, answer.unit, percent=True)
    return answer


def _value(answer: Answer) -> Answer:
    """What a name stands before; a label may stand before another name ("Total: 5 * 6 = 30")."""
    return _value(answer.value) if isinstance(answer, Named) else answer


def _all(found: Iterator[Same]) -> Same:
    unknown = False
    for same in found:
        if same is False:
            return False
        unknown |= same is None
    return None if unknown else True


def _written(time: Time) -> Number | Expression:
    """A time beside what is none: 8 a.m. is the number of the hour, 8:30 may be a ratio."""
    return Expression(time.clock) if ":" in time.clock else Number(fractions.Fraction(time.clock), "hour")


def _lines(gold: Answer, answer: Answer) -> tuple[str, str] | None:
    """Two equations in coordinates, one of them solved for a letter, as LaTeX; None if they are anything else.

    An equation in one letter is no line: it would be the question again (2x = 6) where its solution is asked for.
    """
    equations = _line(gold), _line(answer)
    if sum(isinstance(x, Named) for x in (gold, answer)) != 1 or not all(equations):
        return None
    return equations  # type: ignore[return-value]


def _line(answer: Answer) -> str | None:
    latex = ""
    if isinstance(answer, Named) and isinstance(answer.value, Number | Expression) and not answer.value.unit:
        latex = f"{answer.name}={_latex(answer.value)}"
    elif isinstance(answer, Expression) and not answer.unit:
        latex = answer.latex
    letters = set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]+", latex))
    coordinates = set("".join(letters))
    return latex if len(sides(latex)) == 2 and coordinates <= set("xyz") and len(coordinates) > 1 else None


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
    if all(map(_is_sum, (one, other))):  # 1 + 4 = 5 is not the equation 2 + 3 = 5
        return sorted(compact(one)) == sorted(compact(other))
    return len(letters) < 2 or one == other


def _is_sum(name: str) -> bool:
    return bool(re.search(r"\d", name)) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]", name)


def _same_words(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Words) and isinstance(answer, Words)):
        return False
    choice = len(gold.text) > 1 or gold.text in "ABCDEF"  # any other capital is a variable
    return gold.text == answer.text or (choice and gold.text.casefold() == answer.text.casefold())


def _same_sequence(gold: Answer, answer: Answer, algebra: Algebra) -> Same:
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


def _same_set(gold: Sequence[Answer], answer: Sequence[Answer], algebra: Algebra) -> Same:
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


def _same_union(gold: Sequence[Answer] | None, answer: Sequence[Answer] | None, algebra: Algebra) -> Same:
    if gold is None or answer is None or len(gold) != len(answer) or len(gold) > MOST_ITEMS:
        return False
    table = [[_same_part(one, other, algebra) for other in answer] for one in gold]
    return _all(
        (True if True in line else None if None in line else False) for line in (*table, *zip(*table, strict=True))
    )


def _same_part(gold: Answer, answer: Answer, algebra: Algebra) -> Same:
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        if (gold.low_closed, gold.high_closed) != (answer.low_closed, answer.high_closed):
            return False
        return _all(iter([compare(gold.low, answer.low, algebra), compare(gold.high, answer.high, algebra)]))
    if isinstance(gold, Set) and isinstance(answer, Set):
        return _same_set(gold.items, answer.items, algebra)
    return False
