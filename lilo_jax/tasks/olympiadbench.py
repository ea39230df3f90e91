"""OlympiadBench (He et al. 2024): the open-ended, text-only competition problems of mathematics in English."""

import dataclasses
from typing import ClassVar

from lilo_jax.questions import Question
from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Row, Source


@dataclasses.dataclass(frozen=True)
class OlympiadBench(TestSet):
    """674 olympiad problems; Oat's copy has 675."""

    SOURCE: ClassVar[Source] = Source("olympiadbench", "Hothan/OlympiadBench", ("OE_TO_maths_en_COMP/*",))

    def parse(self, row: Row) -> Question:
        """As usual; the unit that the data set keeps apart belongs to the answer."""
        question = super().parse(row)
        unit = row.text("unit") if row.values.get("unit") else ""
        return dataclasses.replace(question, answer=f"{question.answer} {unit}") if unit else question
