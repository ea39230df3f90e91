"""Rollouts in rounds: a question that has shown enough right and wrong answers gets no more.

Source: Xiong et al. 2025 (Reinforce-Ada, arXiv:2510.04996): rounds until a question has enough of both
("balanced"), or one right answer ("positive-focused": `wrong` 0), at most `rounds`.
Deviation: the paper rolls out up to 4 rounds of 8 and trains on a balanced part of them; here the rounds share
`samples` among them and all are trained on, so a step never takes more rollouts than uniform's, and groups differ in
size.
"""

import dataclasses

import jax
from jaxtyping import Bool, Key

from lilo_jax.bounds import Count, Whole
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import successive
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.types import Array, GroupStatistics


@dataclasses.dataclass(frozen=True)
class ReinforceAda:
    """Settings of Reinforce-Ada."""

    rounds: Count = 4
    """rounds at most"""
    right: Whole = 1
    """right answers that a question must have shown to be done"""
    wrong: Whole = 1
    """wrong answers that it must have shown"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` and gives each up to `samples` rollouts."""
        if self.rounds > samples:
            raise ValueError(
                f"reinforce_ada shares {samples} rollouts among {self.rounds} rounds; change --curriculum.rounds or "
                f"--rollout.samples"
            )
        more = samples // self.rounds

        def go_on(collected: GroupStatistics, key: Key[jax.Array, ""]) -> Bool[Array, "groups"]:
            wrong = collected.attempts - collected.successes
            return (collected.successes < self.right) | (wrong < self.wrong)

        return compose(
            source=random_pool(pool_size, questions),
            rounds=successive(questions, samples - (self.rounds - 1) * more, more, most=self.rounds, go_on=go_on),
            gate=everything,
            count=questions,
            rows=questions * samples,
        )
