"""Sampling for learnability with a buffer: every T steps score N questions, keep the K best, and mix from them.

On a refresh step the first round rolls out N candidates whose rollouts are only scored and thrown away; the round
after it (the only round of other steps) draws floor(rho |B|) questions from the buffer and the rest from the pool.

Sources: Rutherford et al. 2024 (SFL, algorithm 1); Foster et al. 2025 (LILO, first version), whose released settings
are the defaults here.
Deviation: the released code floors both parts of the batch and repeats episodes to fill it; here the uniform part
takes what the buffer's part leaves, so that a batch always has |B| questions.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lilo_jax.curriculum.selectors import draw, top_k
from lilo_jax.curriculum.statistics import initial_state, learnability, remember
from lilo_jax.types import Admission, Array, Curriculum, CurriculumState, GroupStatistics, Proposal


@dataclasses.dataclass(frozen=True)
class SflBuffer:
    """Settings of the buffer."""

    refresh_every: int = 50
    """T: steps between refreshes"""
    candidates: int = 1280
    """N: questions scored at a refresh"""
    buffer_size: int = 256
    """K: questions kept"""
    attempts: int = 8
    """L: rollouts that score a candidate"""
    buffer_fraction: float = 0.5
    """rho: share of the batch drawn from the buffer"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """A two-round curriculum on refresh steps, one round on the others."""
        if self.refresh_every < 1 or self.attempts < 1 or not 0 <= self.buffer_fraction <= 1:
            raise ValueError(
                f"sfl_buffer needs --curriculum.refresh-every and --curriculum.attempts of at least 1 and "
                f"--curriculum.buffer-fraction in [0, 1], got {self.refresh_every}, {self.attempts} and "
                f"{self.buffer_fraction}"
            )
        if questions > pool_size:
            raise ValueError(
                f"sfl_buffer trains on {questions} questions a step from a pool of {pool_size}; "
                f"lower --rollout.questions"
            )
        from_buffer = math.floor(self.buffer_fraction * questions)
        if not from_buffer <= self.buffer_size <= self.candidates <= pool_size:
            raise ValueError(
                f"sfl_buffer needs rho |B| <= K <= N <= pool, got {from_buffer} <= {self.buffer_size} <= "
                f"{self.candidates} <= {pool_size}; change --curriculum.buffer-size or --curriculum.candidates"
            )
        buffer = Buffer(ids=jnp.zeros(self.buffer_size, jnp.int32), mask=jnp.zeros(self.buffer_size, bool))
        settings: dict[str, Any] = {"spec": self, "pool_size": pool_size, "questions": questions, "samples": samples}
        return Curriculum(
            init=functools.partial(initial_state, memory=buffer),
            propose=functools.partial(_propose, **settings),
            admit=functools.partial(_admit, spec=self, questions=questions),
            observe=functools.partial(_observe, spec=self),
            feedback=lambda state, *_: state,
            max_rounds=2,
            max_samples=max(samples, self.attempts),
            train_rows=questions * samples,
        )


class Buffer(flax.struct.PyTreeNode):
    """The most learnable questions of the last refresh.

    Attributes:
        ids: int32 [K].
        mask: bool [K].
    """

    ids: Array
    mask: Array


def _is_refresh(state: CurriculumState, spec: SflBuffer) -> Array:
    return state.step % spec.refresh_every == 0


def _refreshed(state: CurriculumState, collected: GroupStatistics, spec: SflBuffer) -> Buffer:
    """The buffer to draw from: new on a refresh step, else the remembered one.

    Ties are broken by a key of the step alone, so that the round that draws and the observation that stores agree
    without passing the buffer between them; the candidates stand in random order anyway.
    """
    scores = learnability(collected.successes, collected.attempts)
    key = jax.random.fold_in(jax.random.key(0), state.step)
    slots, mask = top_k(scores, key, k=spec.buffer_size, eligible=collected.round == 0)
    new = Buffer(ids=collected.question[slots], mask=mask)
    return jax.tree.map(lambda a, b: jnp.where(_is_refresh(state, spec), a, b), new, state.memory)


def _propose(
    state: CurriculumState,
    collected: GroupStatistics,
    key: Array,
    *,
    spec: SflBuffer,
    pool_size: int,
    questions: int,
    samples: int,
) -> Proposal:
    slots = max(spec.candidates, questions)
    candidate_key, buffer_key, pool_key = jax.random.split(key, 3)
    screened = jnp.any(collected.round == 0)
    screening = _is_refresh(state, spec) & ~screened
    done = ~_is_refresh(state, spec) & screened

    candidates = draw(candidate_key, size=pool_size, k=spec.candidates)
    buffer = _refreshed(state, collected, spec)
    from_buffer = math.floor(spec.buffer_fraction * questions)
    drawn, found = top_k(jnp.zeros(spec.buffer_size), buffer_key, k=from_buffer, eligible=buffer.mask)
    others = draw(pool_key, size=pool_size, k=questions)
    from_pool, stand_ins = jnp.split(others, [questions - from_buffer])  # for places that a short buffer leaves empty
    batch = jnp.concatenate([jnp.where(found, buffer.ids[drawn], stand_ins), from_pool])

    def padded(ids: Array) -> Array:
        return jnp.pad(ids, (0, slots - ids.shape[0]))

    count = jnp.where(screening, spec.candidates, questions)
    return Proposal.opening(
        jnp.where(screening, padded(candidates), padded(batch)),
        jnp.where(screening, spec.attempts, samples),
        (jnp.arange(slots) < count) & ~done,
    )


def _admit(
    state: CurriculumState, collected: GroupStatistics, key: Array, *, spec: SflBuffer, questions: int
) -> Admission:
    training_round = jnp.where(_is_refresh(state, spec), 1, 0)
    indices, mask = top_k(
        jnp.zeros(collected.question.shape[0]), key, k=questions, eligible=collected.round == training_round
    )
    return Admission(indices=indices, mask=mask & (collected.attempts[indices] > 0))


def _observe(state: CurriculumState, collected: GroupStatistics, step: Array, *, spec: SflBuffer) -> CurriculumState:
    buffer = _refreshed(state, collected, spec)
    return remember(state, collected, step).replace(memory=buffer)
