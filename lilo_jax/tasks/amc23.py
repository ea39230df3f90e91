"""AMC 2023: 40 questions of the American Mathematics Competitions, their answers numbers instead of choices."""

import dataclasses
from typing import ClassVar

from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Source


@dataclasses.dataclass(frozen=True)
class Amc23(TestSet):
    """40 competition questions; `--path AI-MO/aimo-validation-amc` gives the 83 of 2022 and 2023 that Oat takes."""

    SOURCE: ClassVar[Source] = Source("amc23", "math-ai/amc23")
