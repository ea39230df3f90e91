r"""Finding the answer within a response, by named rules.

What a model thinks, before the last </think> and within a <think> that is never closed, is no part of its response.
The first rule that finds something in the rest counts:

boxed    the last balanced \boxed{...}; of nested ones the outermost
tags     what stands in the last <answer>...</answer>, or behind an <answer> that a stop string left open
hashes   the rest of the line after the last ####
phrase   the rest of the sentence after the last "answer is" or "answer:"
whole    the response itself, if it is one short line and no sentence
last     the later of the last mathematical span ($...$, \(...\), \[...\]) and the last number in the text

Of a response that was cut off only an answer that was complete by then counts (`complete`).
"""

import re
from typing import NamedTuple

LONGEST_WHOLE = 200
"""Characters of a response that may be an answer as it stands."""
WORDS_OF_WHOLE = 4
READ = 20_000
"""Characters at the end of a response that the last two rules look at."""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*|\\fbox\s*")
_BARE_BOX = re.compile(r"\\f?boxed\s*(\\[dt]?frac\s*(?:\d{2}|\{[^{}]*\}\{[^{}]*\})|[^\s${}\\]+)")
_PHRASE = re.compile(r"\banswers?\b\**\s*(?:is|are|was|=|:)+[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?=[\s*\"')]|$)")
_COMPLETE_SENTENCE = re.compile(r"(?<=\S)\n|[.!?](?=[\s*\"')])")
"""Its end; at the end of a text that was cut off a point may be a decimal one."""
_HASHES_LINE = re.compile(r"####[^\n]*\S[^\n]*\n")
_WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:and|or)\b)[A-Za-z]{2,}")
_REFUSAL = re.compile(
    r"\b(don['’]?t|do not|cannot|can['’]?t|can not|unable|not able|sorry|no idea|not sure|unknown|not enough|n/a)\b",
    re.IGNORECASE,
)
_DELIMITER = re.compile(r"\$\$|(?<!\\)\$|\\[()\[\]]")
_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_ADVERBS = re.compile(
    r"(?:(?:indeed|approximately|about|exactly|simply|just|therefore|thus|then|clearly|equal to|given by|option|choice)"
    r"\b[\s:,]*)+",
    re.IGNORECASE,
)
_AFTERTHOUGHT = re.compile(r",?\s(?:since|because|as|which|not)\s.*", re.DOTALL)
_THINKING, _THOUGHT = (re.compile(rf"(?<![{{`\"']){tag}", re.IGNORECASE) for tag in ("<think>", "</think>"))
"""The tags; behind a brace or a quotation mark they are text."""
_OPEN, _CLOSE = (re.compile(tag, re.IGNORECASE) for tag in ("<answer>", "</answer>"))
_NUMBER = re.compile(
    r"(?<![\w.^:_])\d{1,2}(?::\d\d)+(?:\s?[aApP]\.?\s?[mM]\b)?|(?<![\w.^:_])[-−–]?\s?(?:\\?[$€£]\s?)?"
    r"(?:\\[dtc]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\sqrt\s*\{[^{}]*\}"
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?(?:\s?\\?%)?"
)


class Extracted(NamedTuple):
    """An answer and the rule that found it."""

    text: str
    rule: str


def extract(response: str) -> Extracted | None:
    """The answer within a response, or None."""
    response = spoken(response)
    for rule, find in RULES.items():
        found = find(response)
        if found is None:
            continue
        if rule in ("tags", "hashes"):  # "#### The answer is 5"
            found = phrase(found) or found
        return Extracted(found.strip(), rule) if found.strip() else None
    return None


def gold_answer(gold: str) -> str:
    r"""A gold answer as it stands, or the answer within a gold solution, which has a \boxed{} or ends with #### n."""
    gold = spoken(gold).strip() or gold
    for rule in ("boxed", "hashes"):
        found = RULES[rule](gold)
        if found is not None:
            return found.strip()
    return gold.strip()


def spoken(response: str) -> str:
    """A response without what was thought."""
    if "think>" not in response.lower():
        return response
    response = response[max((found.end() for found in _THOUGHT.finditer(response)), default=0) :]
    unclosed = _THINKING.search(response)
    return response[: unclosed.start()] if unclosed else response


def complete(response: str) -> str:
    r"""A response that was cut off, up to the end of its last complete answer; "" if it has none.

    Complete are, and the first of these that is found counts: a \boxed{} that is closed, an <answer> that is closed,
    a line after #### that another line follows, a sentence behind "answer is" that has ended.

    >>> complete("It is \\boxed{12}, since 12 = 3 *")
    'It is \\boxed{12}'
    >>> complete("The answer is 1")  # of 12, perhaps
    ''
    """
    text = spoken(response)
    ends = (find(text) for find in (_end_of_box, _end_of_tags, _end_of_hashes, _end_of_phrase))
    return text[: next((end for end in ends if end), 0)]


def _end_of_box(text: str) -> int:
    closed = _balanced(text)
    return max((closed[box.end()] + 1 for box in _BOX.finditer(text) if box.end() in closed), default=0)


def _end_of_tags(text: str) -> int:
    first = _OPEN.search(text)
    return max((found.end() for found in _CLOSE.finditer(text, first.end())), default=0) if first else 0


def _end_of_hashes(text: str) -> int:
    return max((found.end() for found in _HASHES_LINE.finditer(text)), default=0)


def _end_of_phrase(text: str) -> int:
    masked = _masked(text)
    ends = (_COMPLETE_SENTENCE.search(masked, found.end()) for found in _PHRASE.finditer(text))
    return max((end.end() for end in ends if end), default=0)


def boxed(text: str) -> str | None:
    """See the module."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    ends = _balanced(text)
    inside: list[tuple[int, int]] = []
    for box in _BOX.finditer(text):
        end = ends.get(box.end())
        if end is not None:
            inside.append((end, box.end()))
    if inside:
        end, opening = max(inside)
        # A percent sign behind the box belongs to the answer.
        return text[opening + 1 : end] + ("\\%" if text[end + 1 : end + 3] == "\\%" else "")
    bare = _BARE_BOX.findall(text)
    return bare[-1] if bare else None


def tags(text: str) -> str | None:
    """See the module."""
    starts = [found.end() for found in _OPEN.finditer(text)]
    return _CLOSE.split(text[starts[-1] :], maxsplit=1)[0] if starts else None


def hashes(text: str) -> str | None:
    """See the module."""
    start = text.rfind("####")
    return None if start < 0 else text[start + len("####") :].partition("\n")[0]


def phrase(text: str) -> str | None:
    """See the module."""
    text = text[-READ:]
    ends = [found.end() for found in _PHRASE.finditer(text)]
    if not ends:
        return None
    rest = text[ends[-1] :]
    end = _SENTENCE_END.search(_masked(rest))
    found = rest[: end.start() if end else len(rest)].strip(" *")
    found = found[: len(_AFTERTHOUGHT.sub("", _masked(found)))]
    found = _ADVERBS.sub("", found, count=1) if _ADVERBS.match(found) else found
    if len(_WORD.findall(_masked(found))) > WORDS_OF_WHOLE:  # a sentence about the answer
        inside = spans(found)
        return inside[0].text if inside else last_value(found) or found
    return found or None


def whole(text: str) -> str | None:
    """See the module."""
    text = text.strip()
    if not text or len(text) > LONGEST_WHOLE or "\n" in text or _REFUSAL.search(text):
        return None
    words, inside = len(_WORD.findall(_masked(text))), spans(text)
    if words > WORDS_OF_WHOLE or (words > 2 and text[-1] in ".!?"):  # a sentence
        return None
    introduced = words and len(inside) == 1 and not text[inside[0].end :].strip(" .!*")  # "Hence $5$."
    return inside[0].text if introduced else text


def last_value(text: str) -> str | None:
    """See the module, rule `last`."""
    text = text[-READ:]
    candidates = [(span.start, span.text) for span in spans(text)[-1:]]
    candidates += [(found.start(), found[0]) for found in _NUMBER.finditer(_masked(text, " "))][-1:]
    return max(candidates)[1] if candidates else None


class _Span(NamedTuple):
    """Mathematics within text, delimiters included in its place but not in its text."""

    start: int
    end: int
    text: str


def spans(text: str) -> list[_Span]:
    r"""All of $...$, $$...$$, \(...\) and \[...\] that hold something, in order."""
    found: list[_Span] = []
    opened: re.Match[str] | None = None
    for delimiter in _DELIMITER.finditer(text):
        if opened is None or delimiter[0] != _CLOSING[opened[0]]:
            opened = delimiter if opened is None and delimiter[0] in _CLOSING else opened
            continue
        inside = text[opened.end() : delimiter.start()]
        if inside.strip():
            found.append(_Span(opened.start(), delimiter.end(), inside))
        opened = None
    return found


def _masked(text: str, filler: str = "0") -> str:
    """The text with as many other characters in place of its mathematics."""
    parts, last = [], 0
    for span in spans(text):
        parts += [text[last : span.start], filler * (span.end - span.start)]
        last = span.end
    return "".join([*parts, text[last:]])


def _balanced(text: str) -> dict[int, int]:
    """Position of every opening brace that is closed, with that of its closing one; escaped braces are text."""
    open_braces: list[int] = []
    ends: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            open_braces.append(brace.start())
        elif brace[0] == "}" and open_braces:
            ends[open_braces.pop()] = brace.start()
    return ends


RULES = {"boxed": boxed, "tags": tags, "hashes": hashes, "phrase": phrase, "whole": whole, "last": last_value}
