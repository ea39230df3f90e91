"""From easy to hard on a fixed schedule: the share of each level of difficulty depends on the step alone.

Source: Parashar et al. 2025 (E2H, arXiv:2506.06632): the cosine schedule, and the Gaussian one with the
power 0.5 and width 0.5 of its release.
Deviation: levels are quantiles of the starting policy's success rate over `grade` rollouts, measured before the first
step and paid for; the paper has labels.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jaxtyping import Int, Key

from lilo_jax.bounds import Count
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import cosine, gaussian, quantile_levels
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import Classes, per_class
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState

SCHEDULES = {"cosine": cosine, "gaussian": gaussian}


@dataclasses.dataclass(frozen=True)
class E2h:
    """Settings of E2H."""

    schedule: Literal["cosine", "gaussian"] = "gaussian"
    """how the shares of the levels move"""
    steps: Count = 500
    """steps after which the schedule has come to its end"""
    levels: Annotated[int, Ge(2)] = 4
    """K: levels of difficulty"""
    grade: Count = 8
    """rollouts a question that measure its difficulty beforehand"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws a level for each of `questions` places, then a question of it."""

        def classes(state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]) -> Classes:
            weights = SCHEDULES[self.schedule](jnp.minimum(state.step / self.steps, 1.0), self.levels)
            level = quantile_levels(state.facts.grade, places, self.levels)
            return Classes(jnp.zeros(places.shape), level, jnp.log(weights))

        return compose(
            source=whole_pool(pool_size),
            worth=classes,
            select=per_class(),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            wants=Wants(grade=self.grade),
        )
