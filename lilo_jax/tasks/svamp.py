"""SVAMP: 1,000 word problems of one or two steps, varied so that key words do not give them away (Patel et al. 2021).

The repository's one file has no splits; the hub's copy has 700 questions to train on and 300 to test.
"""

import dataclasses
import re
from typing import ClassVar

from lilo_jax.bounds import Count
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.published import Published, check_names, published_or_held_out
from lilo_jax.tasks.rows import Row, Source
from lilo_jax.tasks.steps import newlines

_WHOLE = re.compile(r"(\d)\.0+\b")


@dataclasses.dataclass(frozen=True)
class Svamp(Published):
    """Word problems of one or two steps; 630 questions to train on."""

    test: Count = 300
    """questions held out for the test where the files name no splits"""
    validation: Count = 70
    """training questions held out for validation, at most a tenth of them"""

    SOURCE: ClassVar[Source] = Source("svamp", "ChilleD/SVAMP")

    def parse(self, row: Row) -> Question:
        """A row of `Body`, `Question`, `Equation`, `Answer` and `Type`; 51.0 is written 51."""
        body, question = row.text("Body"), row.text("Question")
        answer, equation = (_WHOLE.sub(r"\1", row.text(name)) for name in ("Answer", "Equation"))
        solution = f"{equation.strip('( )') if equation.count('(') == 1 else equation} = {answer}"
        text = f"{body}{'' if body.endswith(('.', '!', '?')) else ','} {question}"
        return Question(prompt="", answer=answer, text=text, solution=solution, category=row.text("Type"))

    def steps(self, response: str) -> list[int]:
        """A line is a step."""
        return newlines(response)

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        check_names(self)
        return self.task(published_or_held_out(self, self.test, self.validation))
