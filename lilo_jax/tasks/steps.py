r"""Where the reasoning steps of a response begin, for estimates that are made step by step.

Kazemnejad et al. 2024 (VinePPO, https://arxiv.org/abs/2410.01679) sample fresh endings from the end of every step.  A
splitter says where the steps begin: offsets into the response in characters, ascending, the first 0 and all others
within it.  The steps joined together are the response, whatever stands in it; the empty response is one empty step.

newlines         a step is a line, for GSM8K
latex            a step is a sentence, a line or a piece of either, for MATH
every_character  a step is a character, for answers of a digit per operation

As in the release of VinePPO, a newline belongs to the line behind it: where a step ends, the model has yet to decide
whether the line does.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise

SHORT = 20
"""Characters under which a fragment is no step of its own."""
LONG = 100
"""Characters over which a step is broken, where that can be."""
FORMULA = 60
"""Characters that any formula counts for where the middle of a sentence is looked for."""

_ANSWER = "\n#### "
_LINE = re.compile(r"\n(?=[^\S\n]*\S)")
_SENTENCE_END = re.compile(r"(?<!\b[A-Za-z])(?<!\s[A-Za-z]{2})\.(?=\s+[A-Z])")
_FORMULA_SENTENCE_ENDS = (".$", ".$$", r".\)", r".\]")
_LONE_OPENING = re.compile(r"\s*(?:\$\$?|\\[(\[]|\\begin\{[^{}]*\}|\[asy\])\s*")
_BEGIN = re.compile(r"\\begin\{([^{}]*)\}")
_END = re.compile(r"\\end\{([^{}]*)\}")
_DELIMITERS = [
    (re.compile(opening, re.DOTALL), re.compile(closing, re.DOTALL))
    for opening, closing in (
        (r"\[asy\]", r"\[/asy\]"),
        (r"\\begin\{tabular\}", r"\\end\{tabular\}"),
        (r"\\\(", r"\\\)"),
        (r"\\\[", r"\\\]"),
        (r"\$\$", r"\$\$"),
        (r"(?<!\\)\$", r"[^\\]\$(?!\$)"),
    )
]
_WORDS = (",", " and ", ":", " to ")
_OPERATORS = (",$", r",\)", r",\]", "=", r"\equiv", "+", r"\cancelto")
_HIDDEN = "\0"

_Place = tuple[int, int]


def newlines(text: str) -> list[int]:
    """A step for every line.

    A step begins at the newline before a line that is not blank.  Blank lines thus belong to the step before them, or
    to the first step where they lead.  The last line that starts with "#### " belongs, with all that follows it, to
    the step before it.

    As in VinePPO's `tasks/gsm8k.py`, but for blank lines within, which are steps there, and for several "#### " lines,
    which are an error there.
    """
    answer = text.rfind(_ANSWER)
    begins = [line.start() for line in _LINE.finditer(text, 0, answer if answer >= 0 else len(text))]
    leading = bool(begins) and not text[: begins[0]].strip()
    return [0, *begins[leading:]]


def every_character(text: str) -> list[int]:
    """A step for every character."""
    return list(range(len(text))) or [0]


def latex(text: str) -> list[int]:
    r"""A step for every sentence, line and line of a formula, short ones joined and long ones broken.

    1. Outside of formulas a step begins at a newline, and behind a full stop before a capital, unless that follows a
       word of one letter or two ("e.g.", "Dr.").  A fragment under 20 characters without a formula and without a full
       stop at its end takes in the next.
    2. A step also ends behind a formula that ends in a full stop.  Any other step under 20 characters takes in the
       next.
    3. A step also begins at a newline within a formula.  One under 3 characters takes in the next, as does a mere
       opening delimiter (or a closing $$, which looks alike).
    4. A step over 100 characters is broken into pieces, see `_broken`.

    A last step that is too short joins the one before.

    As in VinePPO's `tasks/math_extract_steps_inplace.py`, but for what is an error there (texts under 20 characters,
    formulas within formulas), for a formula that stands in a step twice, whose newlines count once there, and for
    what is left of a formula broken at an operator, whose commas count as a sentence's there.
    """
    masked, formulas = _hide(text)
    length = len(text)

    def fragment(begin: int, end: int) -> bool:
        return end - begin < SHORT and masked[end - 1 : end] != "." and _HIDDEN not in masked[begin:end]

    def short(begin: int, end: int) -> bool:
        return end - begin < SHORT and not text.endswith(_FORMULA_SENTENCE_ENDS, begin, end)

    def opening(begin: int, end: int) -> bool:
        return end - begin < 3 or (end - begin <= LONG and bool(_LONE_OPENING.fullmatch(text, begin, end)))

    begins = [*_newlines_within(masked, 0, length), *(stop.end() for stop in _SENTENCE_END.finditer(masked))]
    begins = _joined(begins, length, fragment)
    begins += [end for begin, end in formulas if text.endswith(_FORMULA_SENTENCE_ENDS, begin, end)]
    begins = _joined(begins, length, short)
    begins += [newline for begin, end in formulas for newline in _newlines_within(text, begin, end)]
    begins = _joined(begins, length, opening)
    return [begin + piece for begin, end in pairwise([*begins, length]) for piece in _broken(text[begin:end])]


def _newlines_within(text: str, begin: int, end: int) -> Iterator[int]:
    """Where newlines stand in text[begin:end]."""
    newline = text.find("\n", begin, end)
    while newline >= 0:
        yield newline
        newline = text.find("\n", newline + 1, end)


def _joined(begins: list[int], length: int, too_short: Callable[[int, int], bool]) -> list[int]:
    """The steps once each that is too short has taken in the next, and a last such has joined the one before."""
    kept = [0]
    for begin in sorted(set(begins)):
        if not too_short(kept[-1], begin):
            kept.append(begin)
    if len(kept) > 1 and too_short(kept[-1], length):
        kept.pop()
    return kept


def _hide(text: str) -> tuple[str, list[_Place]]:
    """The text with as many fillers in place of its formulas, and the places of these, in order.

    One kind of formula is looked for after another: each may enclose those before, of which the outermost counts.
    """
    masked, found = text, []
    delimited = [partial(_delimited, opening=opening, closing=closing) for opening, closing in _DELIMITERS]
    finders: list[Callable[[str], Iterator[_Place]]] = [*delimited, _environments]
    for find in finders:
        places = list(find(masked))
        masked = _filled(masked, places)
        found += places
    outermost: list[_Place] = []
    for place in sorted(found):
        if not outermost or place[0] >= outermost[-1][1]:
            outermost.append(place)
    return masked, outermost


def _filled(text: str, places: list[_Place], width: int | None = None) -> str:
    """The text with a width of fillers in these places, or with as many as there are characters."""
    parts, last = [], 0
    for begin, end in places:
        parts += [text[last:begin], _HIDDEN * (end - begin if width is None else width)]
        last = end
    return "".join([*parts, text[last:]])


def _delimited(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> Iterator[_Place]:
    """What lies between each opening and the first closing after it, both included."""
    begin = opening.search(text)
    while begin and (end := closing.search(text, begin.end())):
        yield begin.start(), end.end()
        begin = opening.search(text, end.end())


def _environments(text: str) -> Iterator[_Place]:
    r"""What lies between each \begin{name} and the first \end{name} after it, both included."""
    last = {end[1]: end.start() for end in _END.finditer(text)}
    position = 0
    while begin := _BEGIN.search(text, position):
        position = begin.end()
        if last.get(begin[1], -1) >= position:
            closing = f"\\end{{{begin[1]}}}"
            position = text.index(closing, position) + len(closing)
            yield begin.start(), position


def _broken(step: str) -> list[int]:
    r"""Where the pieces of a step begin, which is broken in two while it is over 100 characters, as are its pieces.

    First outside of formulas, with 40 characters or more on either side: behind commas, else "and", else colons, else
    "to".  What is still too long then anywhere, with 20 on either side: behind a comma that ends a formula, else =,
    else \equiv, else +, else \cancelto.
    """
    if len(step) <= LONG:
        return [0]
    formulas = _hide(step)[1]
    shifts = [0, *accumulate(end - begin - FORMULA for begin, end in formulas)]
    ends = [end - shift for (_, end), shift in zip(formulas, shifts[1:], strict=True)]
    sentence = _filled(step, formulas, FORMULA).replace("\n", " ")
    begins = _halved(sentence, _WORDS, 2 * SHORT, lambda position: position + shifts[bisect_right(ends, position)])
    return [
        begin + piece
        for begin, end in pairwise([*begins, len(step)])
        for piece in _halved(step[begin:end], _OPERATORS, SHORT, int)
    ]


def _halved(text: str, marks: tuple[str, ...], least: int, original: Callable[[int], int]) -> list[int]:
    """Where the pieces begin, each that is too long broken behind the mark nearest to its middle.

    Args:
        text: of the step.
        marks: of the first kind whose nearest one leaves enough on either side.
        least: characters on either side.
        original: from a position in the text to that in the step, in which begins and lengths are measured.
    """
    begins, waiting = [], [(0, len(text))]
    while waiting:
        begin, end = waiting.pop()
        size = original(end) - original(begin)
        for mark in marks if size > LONG else ():
            cut = _nearest(text, mark, begin, end)
            if cut is not None and least <= original(cut) - original(begin) <= size - least:
                waiting += [(cut, end), (begin, cut)]
                break
        else:
            begins.append(original(begin))
    return begins


def _nearest(text: str, mark: str, begin: int, end: int) -> int | None:
    """The end of the mark, without its last space, that is nearest to the middle of text[begin:end]."""
    width = len(mark.rstrip())
    latest = (begin + end) // 2 - width
    found = text.rfind(mark, begin, latest + len(mark)), text.find(mark, max(begin, latest + 1), end)
    return min((at + width for at in found if at >= 0), key=lambda cut: abs(2 * cut - begin - end), default=None)
