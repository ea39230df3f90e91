"""AIME: 30 questions a year of the American Invitational Mathematics Examination, answers from 0 to 999."""

import dataclasses
from typing import ClassVar

from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Source


@dataclasses.dataclass(frozen=True)
class Aime24(TestSet):
    """The 30 questions of 2024."""

    SOURCE: ClassVar[Source] = Source("aime24", "math-ai/aime24")


@dataclasses.dataclass(frozen=True)
class Aime25(TestSet):
    """The 30 questions of 2025."""

    SOURCE: ClassVar[Source] = Source("aime25", "math-ai/aime25")
