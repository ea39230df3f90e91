"""The grader `math_verify`: Hugging Face's library as it comes, for comparison.

It finds the answer itself, in the whole response.  Its own alarms are off: they would end the process's deadline.
"""

import dataclasses
import functools
import logging
from typing import Any

from lilo_jax.grading.judgement import NO_ANSWER, Judgement
from lilo_jax.questions import Question, Verdict


@dataclasses.dataclass(frozen=True)
class MathVerify:
    """`math-verify` 0.9's `parse` and `verify` with their defaults."""

    def quick(self, question: Question, response: str) -> Judgement | None:
        """Nothing: it may always take long."""
        return None

    def judge(self, question: Question, response: str) -> Judgement:
        """The library's verdict."""
        from math_verify import verify

        found = _parse(response)
        if not found:
            return NO_ANSWER
        same = verify(_parsed_gold(question.answer), found, timeout_seconds=None)
        reason = f"math-verify finds {found} {'equal' if same else 'not equal'} to {_parsed_gold(question.answer)}"
        return Judgement(Verdict.CORRECT if same else Verdict.WRONG, str(found[-1]), "math_verify", reason)

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict."""
        return self.judge(question, response).verdict


@functools.lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> list[Any]:
    return _parse(gold if "$" in gold or "boxed" in gold else f"${gold}$")


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse(text, parsing_timeout=None)
