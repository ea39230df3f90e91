"""ASDiv: word problems of grades 1 to 6, of many kinds (Miao et al. 2020); 2,305, all in one file without splits.

Questions with several answers ("40 (degrees); 88 (degrees)") are left out, some hundred: which answer belongs to what
is not asked for, and a grader cannot tell.
"""

import dataclasses
import re
from typing import ClassVar

from lilo_jax.bounds import Count
from lilo_jax.questions import Question
from lilo_jax.tasks.published import WordProblems
from lilo_jax.tasks.rows import Row, Source

_UNIT = re.compile(r"\s*\([^()]*\)$")


@dataclasses.dataclass(frozen=True)
class Asdiv(WordProblems):
    """Word problems of grades 1 to 6; about 1,500 questions to train on."""

    test: Count = 500
    """questions held out for the test"""
    validation: Count = 200
    """training questions held out for validation, at most a tenth of them"""

    SOURCE: ClassVar[Source] = Source("asdiv", "EleutherAI/asdiv")

    def parse(self, row: Row) -> Question:
        """A row of `Body`, `Question`, `Answer` ("9 (apples)"), `Formula`, `Solution-Type`, and in the file `Grade`."""
        answer = _UNIT.sub("", row.text("Answer", "answer"))
        return Question(
            prompt="",
            answer=answer,
            text=f"{row.text('Body', 'body')} {row.text('Question', 'question')}",
            solution=f"{row.text('Formula', 'formula')}\nThe answer is {answer}.",
            category=row.text("Solution-Type", "solution_type"),
            difficulty=row.number("Grade") if "Grade" in row.values else None,
        )

    def split(self, name: str) -> list[Question]:
        """The questions of a split that have one answer."""
        return [question for question in super().split(name) if ";" not in question.answer]
