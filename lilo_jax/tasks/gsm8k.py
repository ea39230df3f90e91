"""GSM8K: grade-school word problems (Cobbe et al. 2021), 7,473 to train on and 1,319 to test.

As in VinePPO (Kazemnejad et al. 2024): 373 training questions are held out for validation, calculator marks are taken
out of the solutions, and the prompt is theirs.
"""

import dataclasses
import re
from typing import ClassVar

from lilo_jax.bounds import Count
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.published import Published, a_tenth, check_names, hold_out
from lilo_jax.tasks.rows import Row, Source
from lilo_jax.tasks.steps import newlines

_CALCULATOR = re.compile(r"<<.*?>>", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Gsm8k(Published):
    """Grade-school word problems; 7,100 questions to train on."""

    template: str = "vineppo"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    validation: Count = 373
    """training questions held out for validation, at most a tenth of them"""

    SOURCE: ClassVar[Source] = Source("gsm8k", "openai/gsm8k", ("main/*",))
    NEW_TOKENS: ClassVar[int] = 320

    def parse(self, row: Row) -> Question:
        """A row of `question` and `answer`, a solution that ends with #### and the number."""
        solution = _CALCULATOR.sub("", row.text("answer"))
        text = row.text("question", "problem")
        return Question(prompt="", answer=solution.rpartition("####")[2].strip(), text=text, solution=solution)

    def steps(self, response: str) -> list[int]:
        """A line is a step."""
        return newlines(response)

    def test_questions(self) -> list[Question]:
        """The test set, without reading the rest; a single file is all of it."""
        check_names(self)
        return self.split("test")

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        check_names(self)
        rows = self.split("train")
        train, validation = hold_out(rows, a_tenth(rows, self.validation))
        return self.task({"train": train, "validation": validation, "test": self.split("test")})
