"""What a grader says of a response, and what a grader is."""

from typing import NamedTuple, Protocol

from lilo_jax.questions import Question, Verdict


class Judgement(NamedTuple):
    """A verdict with how it came about.

    Attributes:
        verdict: what was found.
        extracted: the answer within the response; empty if there is none.
        rule: name of the extraction rule that found it.
        reason: one sentence on the comparison.
        seconds: that it took.
    """

    verdict: Verdict
    extracted: str = ""
    rule: str = ""
    reason: str = ""
    seconds: float = 0.0


NO_ANSWER = Judgement(Verdict.NO_ANSWER, reason="no rule of extraction found an answer")


class Grader(Protocol):
    """Compares responses with a question's gold answer; can be pickled, and keeps nothing that changes a verdict.

    Called, it is a `Task.grade`.  Its parts are apart because only `judge` may take long: it belongs into a process
    that can be killed.
    """

    def quick(self, question: Question, response: str) -> Judgement | None:
        """The judgement where it costs little, whatever the response; else None."""
        ...

    def judge(self, question: Question, response: str) -> Judgement:
        """The judgement, however long it takes."""
        ...

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict, however long it takes."""
        ...
