"""CollegeMath: 2,818 test questions from college textbooks (Tang et al. 2024, MathScale)."""

import dataclasses
from typing import ClassVar

from lilo_jax.tasks.published import TestSet
from lilo_jax.tasks.rows import Source


@dataclasses.dataclass(frozen=True)
class CollegeMath(TestSet):
    """2,818 college exercises.

    VinePPO evaluates on about 500 of them (17.743%); which is not published, so all are here.
    """

    SOURCE: ClassVar[Source] = Source("collegemath", "di-zhang-fdu/College_Math_Test")
