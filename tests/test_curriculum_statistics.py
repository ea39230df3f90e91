"""What a step measures and what a curriculum remembers, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.statistics import (
    expected_lengths,
    group_signals,
    group_statistics,
    initial_state,
    is_mixed,
    learnability,
    remember,
)
from lilo_jax.types import FollowUps, GroupStatistics, Sequences, TrainBatch

POOL = 9


def random_rows(seed, *, num_rows=40, num_groups=7):
    rng = np.random.default_rng(seed)
    correct = rng.random(num_rows) < 0.4
    return {
        "group": rng.integers(0, num_groups - 1, num_rows).astype(np.int32),  # the last slot stays empty
        "reward": np.where(correct, 1, rng.choice([0, 0.1], num_rows)).astype(np.float32),
        "correct": correct,
        "graded": rng.random(num_rows) < 0.8,
        "length": rng.integers(1, 12, num_rows).astype(np.int32),
        "row_mask": rng.random(num_rows) < 0.9,
    }


def random_groups(seed, *, slots=12):
    """Groups over the pool with empty slots, unmeasured groups and a question that occurs more than once."""
    rng = np.random.default_rng(seed)
    question = np.where(rng.random(slots) < 0.75, rng.integers(0, POOL, slots), -1).astype(np.int32)
    question[1] = question[0] = 4
    rollouts = np.where(question >= 0, rng.integers(0, 6, slots), 0)
    attempts = rng.binomial(rollouts, 0.8)
    successes = rng.binomial(attempts, 0.5)
    length_sum = rollouts * rng.integers(2, 9, slots)
    columns = {
        "attempts": attempts,
        "successes": successes,
        "reward_sum": successes * 1.0,
        "length_sum": length_sum,
        "rollouts": rollouts,
    }
    round_index = np.where(question >= 0, 0, -1).astype(np.int32)
    return GroupStatistics(place=question, round=round_index, **{n: c.astype(np.float32) for n, c in columns.items()})


# ------------------------------------------------------------------------------------------------------- statistics
@pytest.mark.parametrize("seed", range(4))
def test_group_statistics_match_reference(seed):
    rows = random_rows(seed)
    question, round_index = np.arange(7, dtype=np.int32) + 3, np.array([0, 0, 0, 1, 1, 1, -1], np.int32)
    found = jax.jit(group_statistics)(place=question, round=round_index, **rows)
    for name, expected in reference.group_statistics(7, **rows).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.place, question)
    np.testing.assert_array_equal(found.round, round_index)
    assert found.attempts.sum() < found.rollouts.sum() < 40  # some graders failed, some rows were padding
    assert found.rollouts[6] == 0


def test_rows_whose_grader_failed_are_not_attempts():
    """Three rollouts, one correct, one wrong, one without a verdict: p = 1/2, yet all three were paid for."""
    found = group_statistics(
        place=jnp.array([5]),
        round=jnp.array([0]),
        group=jnp.zeros(3, jnp.int32),
        reward=jnp.array([1.0, 0, 7]),
        correct=jnp.array([True, False, True]),
        graded=jnp.array([True, True, False]),
        length=jnp.array([4, 5, 6]),
        row_mask=jnp.ones(3, bool),
    )
    assert [float(x[0]) for x in (found.attempts, found.successes, found.reward_sum)] == [2, 1, 1]
    assert [float(x[0]) for x in (found.rollouts, found.length_sum)] == [3, 15]
    assert float(learnability(found.successes, found.attempts)[0]) == 0.25


# ----------------------------------------------------------------------------------------------------- learnability
def test_learnability_is_the_variance_of_the_outcomes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        outcomes = rng.random(rng.integers(1, 20)) < rng.random()
        found = learnability(jnp.float32(outcomes.sum()), jnp.float32(len(outcomes)))
        np.testing.assert_allclose(found, reference.learnability(outcomes), rtol=1e-6)
        np.testing.assert_allclose(found, np.var(outcomes.astype(float)), rtol=1e-6)


def test_learnability_is_highest_at_one_half_and_zero_at_the_ends():
    found = np.asarray(learnability(jnp.arange(9.0), jnp.full(9, 8.0)))
    np.testing.assert_array_equal(found * 64, [0, 7, 12, 15, 16, 15, 12, 7, 0])


def test_learnability_of_the_unmeasured_is_nan():
    found = learnability(jnp.array([0.0, 0, 1]), jnp.array([0.0, 1, 2]))
    np.testing.assert_array_equal(found, [np.nan, 0, 0.25])


@pytest.mark.slow
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_equal_rates_and_mirrored_rates_tie_exactly(transform):
    """The variance of k successes in n is that of n - k; a rounding error between them would always favour one side."""
    worth = transform(learnability)
    for attempts in range(1, 33):
        successes = jnp.arange(attempts + 1.0)
        found = np.asarray(worth(successes, jnp.full(attempts + 1, float(attempts))))
        np.testing.assert_array_equal(found, found[::-1])
        doubled = np.asarray(worth(2 * successes, jnp.full(attempts + 1, 2.0 * attempts)))
        np.testing.assert_array_equal(found, doubled)


def test_learnability_vmaps():
    successes, attempts = jnp.arange(6.0).reshape(2, 3), jnp.full((2, 3), 5.0)
    found = jax.vmap(learnability)(successes, attempts)
    np.testing.assert_allclose(found, [[0, 0.16, 0.24], [0.24, 0.16, 0]], rtol=1e-6)


def test_is_mixed_means_both_outcomes():
    counts = {"attempts": jnp.array([0.0, 2, 2, 2]), "successes": jnp.array([0.0, 0, 1, 2])}
    zeros = jnp.zeros(4)
    statistics = GroupStatistics(
        place=jnp.arange(4), round=jnp.zeros(4), reward_sum=zeros, length_sum=zeros, rollouts=zeros, **counts
    )
    np.testing.assert_array_equal(is_mixed(statistics), [False, False, True, False])


# --------------------------------------------------------------------------------------------------------- memory
def test_initial_state_knows_nothing():
    state = initial_state(no_facts(POOL))
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.last_seen, np.full(POOL, -1))
    for counts in (state.attempts, state.successes, state.visits, state.length_sum, state.rollouts):
        assert counts.shape == (POOL,)
        assert not counts.any()
    assert state.memory == ()


def test_remembered_counts_match_reference():
    steps = [random_groups(seed) for seed in range(5)]
    state, remember_jitted = initial_state(no_facts(POOL)), jax.jit(remember)
    for step, groups in enumerate(steps):
        state = remember_jitted(state, groups, np.int32(step))
        assert int(state.step) == step + 1
    names = ("place", "attempts", "successes", "length_sum", "rollouts")
    listed = [[{n: getattr(g, n)[k].item() for n in names} for k in range(12)] for g in steps]
    expected = reference.remembered(POOL, listed)
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(state, name), values, err_msg=name)
    assert expected["visits"][4] >= 10  # slots 0 and 1 of every step
    assert expected["visits"].sum() == sum(int(np.sum(g.place >= 0)) for g in steps)


def test_dtypes_survive_remembering():
    """A state goes in and out of one compiled program for ever: a promoted dtype would recompile it."""
    before = initial_state(no_facts(POOL))
    after = jax.eval_shape(remember, before, random_groups(0), np.int32(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


# ---------------------------------------------------------------------------------------------------------- signals
def test_group_signals_are_means_over_the_groups_tokens():
    rng = np.random.default_rng(3)
    advantages, error = rng.normal(size=(2, 5, 4)).astype(np.float32)
    group, mask = np.array([0, 0, 1, 2, 2]), np.arange(4) < np.array([[3], [1], [0], [4], [2]])
    zeros, empty = np.zeros((5, 4), np.float32), np.zeros(0, np.int32)
    batch = TrainBatch(
        sequences=Sequences(tokens=empty, prompt_lengths=empty, completion_lengths=empty),
        row_mask=np.ones(5, bool),
        informative=np.ones(5, bool),
        group=group,
        reward=np.zeros(5, np.float32),
        sampler_logprobs=zeros,
        place=np.arange(4),
        group_mask=np.array([True, True, True, False]),
        reasoning_step=zeros.astype(np.int32),
        follow_ups=FollowUps.none(zeros.shape),
        old_logprobs=zeros,
        reference_logprobs=zeros,
        old_values=zeros,
        advantages=np.where(mask, advantages, 0),
        returns=zeros,
    )
    found = jax.jit(group_signals)(batch, mask, np.where(mask, error, np.nan))
    for g in range(4):
        tokens = [(i, t) for i, t in zip(*np.nonzero(mask), strict=True) if group[i] == g]
        expected = [sum(values[i, t] for i, t in tokens) / max(len(tokens), 1) for values in (abs(advantages), error)]
        np.testing.assert_allclose([found.advantage_abs[g], found.value_loss[g]], expected, rtol=1e-5, atol=1e-7)
    assert [int(found.advantage_abs[g] > 0) for g in range(4)] == [1, 0, 1, 0]


def test_expected_length_is_a_mean_with_one_average_rollout_added():
    """Question 0: 2 rollouts of 30 tokens in all; question 1: 8 of 10; the pool's mean is 4 tokens."""
    state = initial_state(no_facts(POOL), memory=())
    assert not expected_lengths(state, jnp.arange(3)).any()
    state = state.replace(
        length_sum=jnp.zeros(POOL).at[:2].set(jnp.array([30.0, 10.0])),
        rollouts=jnp.zeros(POOL).at[:2].set(jnp.array([2.0, 8.0])),
    )
    found = expected_lengths(state, jnp.array([0, 1, 5, 0]))
    np.testing.assert_allclose(found, [34 / 3, 14 / 9, 4, 34 / 3], rtol=1e-6)
