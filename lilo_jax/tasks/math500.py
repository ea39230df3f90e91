"""MATH-500: the 500 test questions of MATH that Lightman et al. 2023 kept."""

import dataclasses
from typing import ClassVar

from lilo_jax.questions import Question
from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Row, Source


@dataclasses.dataclass(frozen=True)
class Math500(TestSet):
    """500 competition problems."""

    SOURCE: ClassVar[Source] = Source("math500", "HuggingFaceH4/MATH-500")

    def parse(self, row: Row) -> Question:
        """As usual, with the level as difficulty."""
        level = row.number("level") if row.values.get("level") not in (None, "") else None
        return dataclasses.replace(super().parse(row), difficulty=level)
