"""MATH: competition problems (Hendrycks et al. 2021), 7,500 to train on and 5,000 to test.

The split `12k` is that of Lightman et al. 2023: 500 of the test questions stay a test set (MATH-500), the other 4,500
are trained on.  VinePPO and LILO use it, with 500 of the 12,000 held out for validation.
"""

import dataclasses
import re
from typing import ClassVar, Literal

from lilo_jax.bounds import Count
from lilo_jax.errors import UsageError
from lilo_jax.grading.extraction import boxed
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.math500 import Math500
from lilo_jax.tasks.published import Published, a_tenth, check_names, hold_out
from lilo_jax.tasks.rows import SAMPLE, Row, Source


@dataclasses.dataclass(frozen=True)
class Math(Published):
    """Competition problems; 11,500 questions to train on."""

    template: str = "vineppo"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    split_name: Literal["12k", "full"] = "12k"
    """12k: 500 test questions, the others join the training set; full: 7,500 and 5,000"""
    test_path: str = ""
    """where the 500 test questions of 12k are, as in path; empty: the hub repository of MATH-500"""
    validation: Count = 500
    """training questions held out for validation, at most a tenth of them"""

    SOURCE: ClassVar[Source] = Source("math", "DigitalLearningGmbH/MATH-lighteval", ("data/*",))

    def parse(self, row: Row) -> Question:
        """A row of `problem`, `solution` with its boxed answer, and `level` ("Level 3")."""
        solution, level = row.text("solution"), re.search(r"\d", str(row.values.get("level")))
        difficulty = float(level[0]) if level else None
        text = row.text("problem")
        answer = (boxed(solution) or "").strip()
        return Question(prompt="", answer=answer, difficulty=difficulty, text=text, solution=solution)

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        check_names(self)
        train, test = self.split("train"), self.split("test")
        if self.split_name == "12k":
            where = self.test_path or (SAMPLE if self.path == SAMPLE else "")
            five_hundred = Math500(path=where, template=self.template, grader=self.grader).split("test")
            chosen = {_spelling(q.text) for q in five_hundred}
            if strangers := len(chosen - {_spelling(q.text) for q in [*train, *test]}):
                raise UsageError(
                    f"{strangers} of the {len(chosen)} questions of MATH-500 are not among MATH's, so that they may be "
                    f"trained on in another spelling: give a --task.test-path that belongs to the --task.path"
                )
            train += [q for q in test if _spelling(q.text) not in chosen]
            train = [q for q in train if _spelling(q.text) not in chosen]
            test = five_hundred
        train, validation = hold_out(train, a_tenth(train, self.validation))
        return self.task({"train": train, "validation": validation, "test": test})


def _spelling(text: str) -> str:
    """A problem without white space, which copies of the data set differ in."""
    return re.sub(r"\s+", "", text)
