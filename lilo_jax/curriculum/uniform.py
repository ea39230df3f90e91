"""Uniform sampling: the baseline.  Fresh distinct questions every step, all of them trained on."""

import dataclasses
import functools

import jax.numpy as jnp

from lilo_jax.curriculum.selection import draw
from lilo_jax.curriculum.statistics import initial_state, remember
from lilo_jax.types import (
    Admission,
    Array,
    Curriculum,
    CurriculumState,
    GroupSignals,
    GroupStatistics,
    Proposal,
)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Settings of uniform sampling: none."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` distinct questions a step and trains on all."""
        propose = functools.partial(propose_uniform, pool_size=pool_size, count=questions, samples=samples)
        return Curriculum(
            init=functools.partial(initial_state, pool_size),
            propose=propose,
            admit=functools.partial(admit_first, count=questions),
            observe=remember,
            feedback=ignore_feedback,
            max_rounds=1,
            max_samples=samples,
            train_rows=questions * samples,
        )


def propose_uniform(
    state: CurriculumState, collected: GroupStatistics, key: Array, *, pool_size: int, count: int, samples: int
) -> Proposal:
    """`count` distinct questions of the pool, uniform, `samples` rollouts each."""
    del state, collected
    return Proposal.opening(draw(key, size=pool_size, k=count), samples)


def admit_first(state: CurriculumState, collected: GroupStatistics, key: Array, *, count: int) -> Admission:
    """The first `count` groups, in the order in which they were opened."""
    del state, key
    indices = jnp.arange(count, dtype=jnp.int32)
    return Admission(indices=indices, mask=collected.attempts[:count] > 0)


def ignore_feedback(
    state: CurriculumState, question: Array, mask: Array, signals: GroupSignals, step: Array
) -> CurriculumState:
    """For curricula that learn nothing from the update."""
    del question, mask, signals, step
    return state
