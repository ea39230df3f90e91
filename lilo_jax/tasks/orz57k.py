"""ORZ-57K: the 57,000 questions of Open-Reasoner-Zero (Hu et al. 2025), on which LILO's GRPO runs were trained.

Read as conversations, the way they are published, or as rows of `problem` and `answer`, the way Oat has them.
"""

import dataclasses
from typing import ClassVar

from lilo_jax.bounds import Count
from lilo_jax.errors import UsageError
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.published import Published, a_tenth, check_names, hold_out
from lilo_jax.tasks.rows import Row, Source


@dataclasses.dataclass(frozen=True)
class Orz57k(Published):
    """57,000 questions to train on; evaluate on other suites."""

    validation: Count = 500
    """training questions held out for validation, at most a tenth of them"""

    SOURCE: ClassVar[Source] = Source("orz57k", "Open-Reasoner-Zero/orz_math_57k_collection")

    def parse(self, row: Row) -> Question:
        """A row of `problem` and `answer`, or of turns: {"0": {"value"}, "1": {"ground_truth": {"value"}}}."""
        turns = row.values.get("conversation") or [row.values[k] for k in ("0", "1") if k in row.values]
        if not turns:
            return super().parse(row)
        try:
            text, answer = turns[0]["value"], turns[1]["ground_truth"]["value"]
        except (LookupError, TypeError):
            raise UsageError(f"{row.where}: not a question with its ground truth") from None
        turn = Row(row.where, {"value": text, "ground truth": answer})
        return Question(prompt="", answer=turn.text("ground truth"), text=turn.text("value"))

    def build(self, seed: int) -> Task:
        """Training and validation questions, the same for every seed."""
        check_names(self)
        rows = self.split("train")
        train, validation = hold_out(rows, a_tenth(rows, self.validation))
        return self.task({"train": train, "validation": validation})
