r"""Finding the answer within a response, by named rules.

The first rule that finds something counts:

boxed    the last balanced \boxed{...}; of nested ones the outermost
tags     what stands in the last <answer>...</answer>, or behind an <answer> that a stop string left open
hashes   the rest of the line after the last ####
phrase   the rest of the sentence after the last "answer is" or "answer:"
whole    the response itself, if it is one short line and no sentence
last     the later of the last mathematical span ($...$, \(...\), \[...\]) and the last number in the text
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
_BARE_BOX = re.compile(r"\\f?boxed\s+([^\s${}\\]+)")
_PHRASE = re.compile(r"\banswers?\b\**\s*(?:is|are|was|=|:)+[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?=[\s*\"')]|$)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_REFUSAL = re.compile(
    r"\b(don['’]?t|do not|cannot|can['’]?t|can not|unable|not able|sorry|no idea|not sure|unknown|not enough|n/a)\b",
    re.IGNORECASE,
)
_SPAN = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.])[-−–]?\s?(?:\\?[$€£]\s?)?"
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
    for rule, find in RULES.items():
        found = find(response)
        if found is not None:
            return Extracted(found.strip(), rule) if found.strip() else None
    return None


def gold_answer(gold: str) -> str:
    r"""A gold answer as it stands, or the answer within a gold solution, which has a \boxed{} or ends with #### n."""
    for rule in ("boxed", "hashes"):
        found = RULES[rule](gold)
        if found is not None:
            return found.strip()
    return gold.strip()


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
    start = text.rfind("<answer>")
    return None if start < 0 else text[start + len("<answer>") :].partition("</answer>")[0]


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
    end = _end_of_sentence(rest)
    found = rest[:end].strip(" *")
    if len(_WORD.findall(_SPAN.sub(" ", found))) > WORDS_OF_WHOLE:  # a sentence about the answer
        return last_value(found) or found
    return found or None


def whole(text: str) -> str | None:
    """See the module."""
    text = text.strip()
    if not text or len(text) > LONGEST_WHOLE or "\n" in text or _REFUSAL.search(text):
        return None
    words = len(_WORD.findall(_SPAN.sub(" ", text)))
    sentence = words > WORDS_OF_WHOLE or (words > 2 and text[-1] in ".!?")
    return None if sentence else text


def last_value(text: str) -> str | None:
    """See the module, rule `last`."""
    text = text[-READ:]
    spans = [(m.start(), next(filter(None, m.groups()))) for m in _SPAN.finditer(text)]
    outside = _SPAN.sub(lambda m: " " * len(m[0]), text)
    found = [(m.start(), m[0]) for m in _NUMBER.finditer(outside)]
    candidates = spans[-1:] + found[-1:]
    return max(candidates)[1] if candidates else None


def _end_of_sentence(text: str) -> int:
    """Where the first sentence ends; mathematical spans are not cut."""
    hidden = _SPAN.sub(lambda m: "x" * len(m[0]), text)
    end = _SENTENCE_END.search(hidden)
    return end.start() if end else len(text)


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
