"""The graders `default` and `exact`, which read and compare answers as `reading.py` and `comparison.py` say."""

import dataclasses
import re

from lilo_jax.grading.answers import Answer, Named, Number, Words, shown
from lilo_jax.grading.comparison import Algebra, Same, as_percentage, compare, is_calculation
from lilo_jax.grading.extraction import extract, gold_answer
from lilo_jax.grading.judgement import NO_ANSWER, Judgement
from lilo_jax.grading.notation import LONGEST, normalise
from lilo_jax.grading.probing import probe
from lilo_jax.grading.reading import chosen_letter, read
from lilo_jax.grading.sums import copies_ratio, echoes
from lilo_jax.grading.symbolic import equivalent, readable, sides
from lilo_jax.questions import Question, Verdict

_ASKS_PERCENTAGE = re.compile(
    r"\b(?:what|which|how many|as an?|in|nearest|(?:find|determine|calculate|is|what's) the)\s"
    r"(?:(?!is\b)[a-z]+\s)?per\s?cent(?:age)?\b",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Default:
    """The exact comparison, and `math-verify` for what only algebra can tell."""

    def quick(self, question: Question, response: str) -> Judgement | None:
        """All but algebra beyond evaluation at points."""
        return _judge(question, response, _at_once)

    def judge(self, question: Question, response: str) -> Judgement:
        """With algebra."""
        found = _judge(question, response, _algebra)
        assert found is not None
        return found

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict."""
        return (self.quick(question, response) or self.judge(question, response)).verdict


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact comparison alone: expressions are equal if they are spelt alike."""

    def quick(self, question: Question, response: str) -> Judgement | None:
        """All there is."""
        return self.judge(question, response)

    def judge(self, question: Question, response: str) -> Judgement:
        """The same."""
        found = _judge(question, response, lambda gold, answer: False)
        assert found is not None
        return found

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict."""
        return self.judge(question, response).verdict


def can_match(gold: str) -> bool:
    r"""Whether a response could be correct: none is if the gold answer says nothing, such as "" or "\boxed{}"."""
    answer = gold_answer(gold)
    return bool(answer) and (len(answer) > LONGEST or bool(normalise(answer)))


def _at_once(gold: str, answer: str) -> Same:
    """What values at points tell; algebra is not worth a process where it would not be tried."""
    same = probe(gold, answer) if len(sides(gold)) == len(sides(answer)) else False
    return False if same is None and not (readable(gold) and readable(answer)) else same


def _algebra(gold: str, answer: str) -> bool:
    same = probe(gold, answer)
    return equivalent(gold, answer) if same is None else same


def _judge(question: Question, response: str, algebra: Algebra) -> Judgement | None:
    found = extract(response)
    if found is None:
        return NO_ANSWER
    text, rule = found
    if len(text) <= LONGEST and not normalise(text):
        return NO_ANSWER
    gold = gold_answer(question.answer)
    if text == gold:
        return Judgement(Verdict.CORRECT, text, rule, "the same text as the gold answer")
    if len(text) > LONGEST:
        return Judgement(Verdict.WRONG, text[:LONGEST], rule, f"longer than the {LONGEST} characters that are read")
    wanted, given = read(gold), read(text)
    if isinstance(wanted, Words) and len(wanted.text) == 1 and (letter := chosen_letter(text)):
        given = Words(letter)
    if _ASKS_PERCENTAGE.search(question.text) and all(isinstance(x, Number | Named) for x in (wanted, given)):
        wanted, given = as_percentage(wanted), as_percentage(given)
    is_copy = isinstance(wanted, Number) and echoes(text, question.text)
    if is_copy or copies_ratio(text, gold, question.text):
        return Judgement(Verdict.WRONG, text, rule, f"{shown(given)} is what the question says")
    same = compare(wanted, given, algebra)
    if same is None:
        return None
    verdict = Verdict.CORRECT if same else Verdict.WRONG
    return Judgement(verdict, text, rule, _reason(wanted, given, same))


def _reason(wanted: Answer, given: Answer, same: bool) -> str:
    if isinstance(wanted, Number) and is_calculation(given):
        return f"{shown(given)} is yet to be worked out"
    kinds = [type(answer).__name__.lower() for answer in (given, wanted)]
    return f"{kinds[0]} {shown(given)} {'equals' if same else 'is not'} {kinds[1]} {shown(wanted)}"
