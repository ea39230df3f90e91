"""The questions whose difficulty is nearest to a target that follows the policy's success.

    T <- clip(T + pace tanh(sharpness (R - rate)), 0, 100),   difficulty d_i = 100 (1 - measured success rate)

Source: Shi et al. 2025 (AdaRFT, arXiv:2504.05520), algorithm 1 with its settings.
Deviation: the paper's difficulties come from other models or labels; here the starting policy's success rate over
`grade` rollouts is measured before the first step and paid for.  R is the success rate of the step.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Interval
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Count, NotNegative, Number, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import moving_target
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Adarft:
    """Settings of AdaRFT."""

    start: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """target difficulty of the first step, of 100"""
    pace: NotNegative = 50.0
    """eta: largest step of the target"""
    sharpness: Number = 2.0
    """alpha: how fast a step grows with the surprise"""
    rate: Share = 0.5
    """beta: success rate at which the target stays"""
    grade: Count = 8
    """rollouts a question that measure its difficulty beforehand"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes the `questions` nearest to the target and trains on all."""
        target = moving_target(
            start=self.start, low=0, high=100, pace=self.pace, sharpness=self.sharpness, rate=self.rate
        )

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            return -jnp.abs(100 * (1 - state.facts.grade[places]) - state.memory["target"])

        return compose(
            source=whole_pool(pool_size),
            worth=worth,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"target": target},
            wants=Wants(grade=self.grade),
        )
