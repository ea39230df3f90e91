"""SVAMP: 1,000 word problems of one or two steps, varied so that key words do not give them away (Patel et al. 2021).

The repository's one file has no splits; the hub's copy has 700 questions to train on and 300 to test.
"""

import dataclasses
import re
from typing import ClassVar

from lilo_jax.questions import Question
from lilo_jax.tasks.published import WordProblems
from lilo_jax.tasks.rows import Row, Source

_WHOLE = re.compile(r"(\d)\.0+\b")


@dataclasses.dataclass(frozen=True)
class Svamp(WordProblems):
    """Word problems of one or two steps; 630 questions to train on."""

    SOURCE: ClassVar[Source] = Source("svamp", "ChilleD/SVAMP")

    def parse(self, row: Row) -> Question:
        """A row of `Body`, `Question`, `Equation`, `Answer` and `Type`; 51.0 is written 51."""
        body, question = row.text("Body"), row.text("Question")
        answer, equation = (_WHOLE.sub(r"\1", row.text(name)) for name in ("Answer", "Equation"))
        solution = f"{equation.strip('( )') if equation.count('(') == 1 else equation} = {answer}"
        text = f"{body}{'' if body.endswith(('.', '!', '?')) else ','} {question}"
        return Question(prompt="", answer=answer, text=text, solution=solution, category=row.text("Type"))
