"""Minerva: 272 undergraduate questions of science and mathematics (OCWCourses, Lewkowycz et al. 2022)."""

import dataclasses
from typing import ClassVar

from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Source


@dataclasses.dataclass(frozen=True)
class Minerva(TestSet):
    """272 undergraduate questions."""

    SOURCE: ClassVar[Source] = Source("minerva", "math-ai/minervamath")
