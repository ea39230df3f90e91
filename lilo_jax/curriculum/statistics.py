"""Group statistics of a step, and what a curriculum remembers of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.types import Array, CurriculumState, Facts, GroupSignals, GroupStatistics, PyTree, TrainBatch


def group_statistics(
    *,
    place: Int[Array, "groups"],
    round: Int[Array, "groups"],
    group: Int[Array, "rows"],
    reward: Float[Array, "rows"],
    correct: Bool[Array, "rows"],
    graded: Bool[Array, "rows"],
    length: Int[Array, "rows"],
    row_mask: Bool[Array, "rows"],
) -> GroupStatistics:
    """Sums rows into their groups.

    Args:
        place, round: copied through; -1 in empty entries.
        group: of each row.
        reward: of each row.
        correct: the declared outcome.
        graded: False where the grader failed: the row is not an attempt.
        length: generated tokens.
        row_mask: False for padding rows.

    Returns:
        GroupStatistics of K entries; one without rows has zero counts.
    """
    chex.assert_equal_shape([group, reward, correct, graded, length, row_mask])

    def total(values: Shaped[Array, "rows"], where: Bool[Array, "rows"]) -> Float[Array, "groups"]:
        values = jnp.where(where, values.astype(jnp.float32), 0)
        return jax.ops.segment_sum(values, group, num_segments=place.shape[0])

    counted = row_mask & graded
    return GroupStatistics(
        place=place,
        round=round,
        attempts=total(jnp.ones_like(reward), counted),
        successes=total(correct, counted),
        reward_sum=total(reward, counted),
        length_sum=total(length, row_mask),
        rollouts=total(jnp.ones_like(reward), row_mask),
    )


def nothing_collected(curriculum: Curriculum, state: CurriculumState) -> GroupStatistics:
    """The statistics before the first round of a step: an empty entry for every group that its rounds can open."""
    key = jax.eval_shape(jax.random.key, 0)
    proposed = jax.eval_shape(curriculum.propose, state, _empty(1), key).places.shape[0]
    return _empty(proposed * curriculum.max_rounds)


def _empty(size: int) -> GroupStatistics:
    empty, zeros = np.full(size, -1, np.int32), np.zeros(size, np.float32)
    return GroupStatistics(empty, empty, zeros, zeros, zeros, zeros, zeros)


def expected_lengths(state: CurriculumState, places: Int[Array, "questions"]) -> Float[Array, "questions"]:
    """Mean completion length of questions, drawn towards that of the pool where little is known.

        E_i = (sum of lengths of i + mean length of all) / (rollouts of i + 1)

    One made-up rollout of mean length makes a question that was never seen an average one.

    Args:
        state: what is remembered.
        places: of the questions.

    Returns:
        Lengths in tokens; zero before anything was seen.
    """
    overall = jnp.sum(state.length_sum) / jnp.maximum(jnp.sum(state.rollouts), 1)
    return (state.length_sum[places] + overall) / (state.rollouts[places] + 1)


def learnability(successes: Float[Array, "*groups"], attempts: Float[Array, "*groups"]) -> Float[Array, "*groups"]:
    """Variance of the success of a question: p(1 - p) with p = successes / attempts, in [0, 1/4].

    Equals the population variance of the 0/1 outcomes.  NaN where there are no attempts: never measured is not the
    same as unlearnable, and selection never takes NaN.

    Args:
        successes, attempts: attempts >= successes >= 0.

    Source: Foster et al. 2025 (LILO), section 2.2; Rutherford et al. 2024 (SFL), section 4.

    >>> learnability(jnp.array([0.0, 4.0, 8.0, 0.0]), jnp.array([8.0, 8.0, 8.0, 0.0]))
    Array([0.  , 0.25, 0.  ,  nan], dtype=float32)
    """
    # A quotient of whole numbers is rounded once: p and 1 - p tie exactly, as do 1 of 3 and 2 of 6.
    variance = successes * (attempts - successes) / jnp.maximum(attempts, 1) ** 2
    return jnp.where(attempts > 0, variance, jnp.nan)


def is_mixed(statistics: GroupStatistics) -> Bool[Array, "groups"]:
    """Groups with both correct and wrong rollouts, the only ones with a policy gradient."""
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


def remember(state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> CurriculumState:
    """Adds a step's groups to the lifetime counts; a question with two groups is counted for both.

    Args:
        state: before the step.
        collected: K groups, empty entries allowed.
        step: the step they belong to.
    """
    pool_size = state.attempts.shape[0]
    filled = collected.place >= 0
    index = jnp.where(filled, collected.place, pool_size)  # out of range: dropped

    def add(counts: Num[Array, "pool"], values: Shaped[Array, "groups"]) -> Num[Array, "pool"]:
        return jnp.asarray(counts).at[index].add(values.astype(counts.dtype), mode="drop")

    return state.replace(
        step=step + 1,
        attempts=add(state.attempts, collected.attempts),
        successes=add(state.successes, collected.successes),
        visits=add(state.visits, filled),
        last_seen=jnp.asarray(state.last_seen).at[index].max(step, mode="drop"),
        length_sum=add(state.length_sum, collected.length_sum),
        rollouts=add(state.rollouts, collected.rollouts),
    )


def group_signals(
    batch: TrainBatch, mask: Bool[Array, "rows completion"], value_error: Float[Array, "rows completion"]
) -> GroupSignals:
    """Per-group means over tokens of what the update saw.

    Args:
        batch: a training batch with advantages.
        mask: tokens trained on.
        value_error: squared error of the critic.
    """
    num_groups = batch.place.shape[0]

    def mean(values: Float[Array, "rows completion"]) -> Float[Array, "trained"]:
        total = jax.ops.segment_sum(jnp.sum(jnp.where(mask, values, 0), axis=1), batch.group, num_segments=num_groups)
        count = jax.ops.segment_sum(jnp.sum(mask, axis=1), batch.group, num_segments=num_groups)
        return total / jnp.maximum(count, 1)

    return GroupSignals(advantage_abs=mean(jnp.abs(batch.advantages)), value_loss=mean(value_error))
