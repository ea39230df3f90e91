"""Group statistics of a step, and what a curriculum remembers of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.types import Array, CurriculumState, Facts, GroupSignals, GroupStatistics, PyTree, TrainBatch


def group_statistics(
    *,
    question: Array,
    round: Array,
    group: Array,
    reward: Array,
    correct: Array,
    graded: Array,
    length: Array,
    row_mask: Array,
) -> GroupStatistics:
    """Sums rows into their groups.

    Args:
        question, round: int32 [K], copied through; -1 in empty slots.
        group: int32 [rows], slot of each row.
        reward: float32 [rows].
        correct: bool [rows], the declared outcome.
        graded: bool [rows], False where the grader failed: the row is not an attempt.
        length: int32 [rows], generated tokens.
        row_mask: bool [rows], False for padding rows.

    Returns:
        GroupStatistics with K slots; a slot without rows has zero counts.
    """
    chex.assert_equal_shape([group, reward, correct, graded, length, row_mask])

    def total(values: Array, where: Array) -> Array:
        values = jnp.where(where, values.astype(jnp.float32), 0)
        return jax.ops.segment_sum(values, group, num_segments=question.shape[0])

    counted = row_mask & graded
    return GroupStatistics(
        question=question,
        round=round,
        attempts=total(jnp.ones_like(reward), counted),
        successes=total(correct, counted),
        reward_sum=total(reward, counted),
        length_sum=total(length, row_mask),
        rollouts=total(jnp.ones_like(reward), row_mask),
    )


def nothing_collected(curriculum: Curriculum, state: CurriculumState) -> GroupStatistics:
    """The statistics before the first round of a step: an empty slot for every group that its rounds can open."""
    proposed = jax.eval_shape(curriculum.propose, state, _empty(1), jax.random.key(0)).ids.shape[0]
    return _empty(proposed * curriculum.max_rounds)


def _empty(slots: int) -> GroupStatistics:
    empty, zeros = np.full(slots, -1, np.int32), np.zeros(slots, np.float32)
    return GroupStatistics(empty, empty, zeros, zeros, zeros, zeros, zeros)


def expected_lengths(state: CurriculumState, ids: Array) -> Array:
    """Mean completion length of questions, drawn towards that of the pool where little is known.

        E_i = (sum of lengths of i + mean length of all) / (rollouts of i + 1)

    One made-up rollout of mean length makes a question that was never seen an average one.

    Args:
        state: what is remembered.
        ids: int32 [J].

    Returns:
        float32 [J], in tokens; zero before anything was seen.
    """
    overall = jnp.sum(state.length_sum) / jnp.maximum(jnp.sum(state.rollouts), 1)
    return (state.length_sum[ids] + overall) / (state.rollouts[ids] + 1)


def learnability(successes: Array, attempts: Array) -> Array:
    """Variance of the success of a question: p(1 - p) with p = successes / attempts, in [0, 1/4].

    Equals the population variance of the 0/1 outcomes.  NaN where there are no attempts: never measured is not the
    same as unlearnable, and selection never takes NaN.

    Args:
        successes, attempts: float32, any shape; attempts >= successes >= 0.

    Source: Foster et al. 2025 (LILO), section 2.2; Rutherford et al. 2024 (SFL), section 4.

    >>> learnability(jnp.array([0.0, 4.0, 8.0, 0.0]), jnp.array([8.0, 8.0, 8.0, 0.0]))
    Array([0.  , 0.25, 0.  ,  nan], dtype=float32)
    """
    # A quotient of whole numbers is rounded once: p and 1 - p tie exactly, as do 1 of 3 and 2 of 6.
    variance = successes * (attempts - successes) / jnp.maximum(attempts, 1) ** 2
    return jnp.where(attempts > 0, variance, jnp.nan)


def is_mixed(statistics: GroupStatistics) -> Array:
    """Bool [K]: groups with both correct and wrong rollouts, the only ones with a policy gradient."""
    return (statistics.successes > 0) & (statistics.successes < statistics.attempts)


def initial_state(facts: Facts, memory: PyTree = ()) -> CurriculumState:
    """The state of a pool of which nothing has been measured."""
    pool_size = facts.category.shape[0]
    counts, never = jnp.zeros(pool_size, jnp.float32), jnp.full(pool_size, -1, jnp.int32)
    return CurriculumState(
        facts=facts,
        step=jnp.int32(0),
        attempts=counts,
        successes=counts,
        visits=jnp.zeros(pool_size, jnp.int32),
        last_seen=never,
        length_sum=counts,
        rollouts=counts,
        memory=memory,
    )


def remember(state: CurriculumState, collected: GroupStatistics, step: Array) -> CurriculumState:
    """Adds a step's groups to the lifetime counts; a question with two groups is counted for both.

    Args:
        state: before the step.
        collected: K groups, empty slots allowed.
        step: int32 scalar, the step they belong to.
    """
    pool_size = state.attempts.shape[0]
    filled = collected.question >= 0
    index = jnp.where(filled, collected.question, pool_size)  # out of range: dropped

    def add(counts: Array, values: Array) -> Array:
        return counts.at[index].add(values.astype(counts.dtype), mode="drop")

    return state.replace(
        step=step + 1,
        attempts=add(state.attempts, collected.attempts),
        successes=add(state.successes, collected.successes),
        visits=add(state.visits, filled),
        last_seen=state.last_seen.at[index].max(step, mode="drop"),
        length_sum=add(state.length_sum, collected.length_sum),
        rollouts=add(state.rollouts, collected.rollouts),
    )


def group_signals(batch: TrainBatch, mask: Array, value_error: Array) -> GroupSignals:
    """Per-group means over tokens of what the update saw.

    Args:
        batch: a training batch with advantages.
        mask: bool [B, C], tokens trained on.
        value_error: float32 [B, C], squared error of the critic.
    """
    num_groups = batch.question.shape[0]

    def mean(values: Array) -> Array:
        total = jax.ops.segment_sum(jnp.sum(jnp.where(mask, values, 0), axis=1), batch.group, num_segments=num_groups)
        count = jax.ops.segment_sum(jnp.sum(mask, axis=1), batch.group, num_segments=num_groups)
        return total / jnp.maximum(count, 1)

    return GroupSignals(advantage_abs=mean(jnp.abs(batch.advantages)), value_loss=mean(value_error))
