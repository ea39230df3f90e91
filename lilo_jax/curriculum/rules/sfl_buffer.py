"""Sampling for learnability with a buffer: every T steps score N questions, keep the K best, and mix from them.

On a refresh step the first round rolls out N candidates whose rollouts are only scored and thrown away; the round
after it (the only round of other steps) draws floor(rho |B|) questions from the buffer and the rest from the pool.

Sources: Rutherford et al. 2024 (SFL, algorithm 1); Foster et al. 2025 (LILO, first version), whose released settings
are the defaults here.
Deviation: the released code floors both parts of the batch and repeats episodes to fill it; here the uniform part
takes what the buffer's part leaves, so that a batch always has |B| questions.
"""

import dataclasses
from typing import Annotated

from annotated_types import Ge

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.buffers import Screened
from lilo_jax.curriculum.composition import alike, choice, compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything, of_last_round
from lilo_jax.curriculum.rounds import screened
from lilo_jax.curriculum.selectors import mixture, top_k, whole_part
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class SflBuffer:
    """Settings of the buffer."""

    refresh_every: Count = 50
    """T: steps between refreshes"""
    candidates: Count = 1280
    """N: questions scored at a refresh"""
    buffer_size: Count = 256
    """K: questions kept"""
    attempts: Annotated[int, Ge(2)] = 8
    """L: rollouts of a candidate"""
    buffer_fraction: Share = 0.5
    """rho: share of the batch drawn from the buffer"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """A two-round curriculum on refresh steps, one round on the others."""
        if questions > pool_size:
            raise ValueError(
                f"sfl_buffer trains on {questions} questions a step from a pool of {pool_size}; "
                f"lower --rollout.questions"
            )
        from_buffer = whole_part(self.buffer_fraction, questions)
        if not from_buffer <= self.buffer_size <= self.candidates <= pool_size:
            raise ValueError(
                f"sfl_buffer needs rho |B| <= K <= N <= pool, got {from_buffer} <= {self.buffer_size} <= "
                f"{self.candidates} <= {pool_size}; change --curriculum.buffer-size or --curriculum.candidates"
            )
        buffer = Screened(self.buffer_size, lambda state: state.step % self.refresh_every == 0)
        return compose(
            source=buffer.source(pool_size, questions),
            worth=buffer.worth,
            select=mixture(self.buffer_fraction, top_k, top_k),
            rounds=screened(
                buffer.due,
                choice(random_pool(pool_size, self.candidates), alike, top_k),
                self.candidates,
                self.attempts,
                count=questions,
                samples=samples,
            ),
            gate=of_last_round(everything),
            count=questions,
            rows=questions * samples,
            remembers={buffer.name: buffer.tracker()},
        )
