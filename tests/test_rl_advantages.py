"""Advantage estimators against plain loops, and the identities that tie them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax.rl.advantages import (
    generalized_advantages,
    group_centred,
    group_means,
    group_normalized,
    leave_one_out,
    per_token,
    step_advantages,
    terminal_rewards,
    whiten_batch,
    whiten_blocks,
)

SEEDS = range(3)
ROWS, SLOTS, GROUPS = 12, 7, 4


def ragged_batch(seed):
    """Rows of 0 to SLOTS tokens in groups of unequal size, some rows masked; garbage where nothing may be read."""
    rng = np.random.default_rng(seed)
    row_mask = rng.random(ROWS) < 0.8
    length = rng.integers(0, SLOTS + 1, ROWS)
    mask = (np.arange(SLOTS) < length[:, None]) & row_mask[:, None]
    group = np.sort(rng.choice(GROUPS, ROWS, p=[0.55, 0.25, 0.15, 0.05])).astype(np.int32)
    reward = rng.normal(size=ROWS).astype(np.float32)
    values = rng.normal(size=(ROWS, SLOTS)).astype(np.float32)
    rewards = rng.normal(size=(ROWS, SLOTS)).astype(np.float32)
    return {
        "mask": mask,
        "row_mask": row_mask,
        "group": group,
        "reward": np.where(row_mask, reward, np.nan).astype(np.float32),
        "rewards": np.where(mask, rewards, np.nan).astype(np.float32),
        "values": np.where(mask, values, np.nan).astype(np.float32),
    }


def both_ways(function, *arguments, **settings):
    """The result un-jitted, after checking that the jitted one agrees."""
    plain = function(*arguments, **settings)
    jitted = jax.jit(lambda *args: function(*args, **settings))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, jitted)
    return plain


def assert_close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=1e-5, atol=2e-6)


# ------------------------------------------------------------------------------------------------ against references
@pytest.mark.parametrize("seed", SEEDS)
def test_terminal_rewards_match_reference(seed):
    b = ragged_batch(seed)
    found = both_ways(terminal_rewards, b["reward"], b["mask"])
    np.testing.assert_array_equal(found, reference.terminal_rewards(b["reward"], b["mask"]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("discount", "trace"), [(1.0, 1.0), (0.9, 0.7), (1.0, 0.0), (0.0, 0.5)])
def test_generalized_advantages_match_reference(seed, discount, trace):
    b = ragged_batch(seed)
    found = both_ways(generalized_advantages, b["rewards"], b["values"], b["mask"], discount=discount, trace=trace)
    expected = reference.generalized_advantages(b["rewards"], b["values"], b["mask"], discount, trace)
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("block", [1, 4, ROWS])
def test_whitened_blocks_match_reference(seed, block):
    b = ragged_batch(seed)
    # A block of one or two tokens is ill-conditioned; the reference is asked about the same float32 numbers.
    found = both_ways(whiten_blocks, b["values"], b["mask"], block=block)
    assert_close(found, reference.whiten_blocks(b["values"], b["mask"], block))


@pytest.mark.parametrize("seed", SEEDS)
def test_group_estimators_match_reference(seed):
    b = ragged_batch(seed)
    settings = {"num_groups": GROUPS}
    rows = (b["reward"], b["group"], b["row_mask"])
    assert_close(both_ways(leave_one_out, *rows, **settings), reference.leave_one_out(*rows))
    found = both_ways(group_normalized, *rows, **settings, epsilon=1e-8)
    assert_close(found, reference.group_normalized(*rows, 1e-8))
    assert_close(both_ways(group_centred, *rows, **settings), reference.group_centred(*rows))
    means, sizes = both_ways(group_means, *rows, **settings)
    members = reference.live_members(b["group"], b["row_mask"])
    for i, g in enumerate(b["group"]):
        expected = np.mean(b["reward"][members[g]]) if members[g] else 0.0
        np.testing.assert_allclose(means[i], expected, rtol=1e-5, atol=1e-6)
        assert sizes[i] == len(members[g])


@pytest.mark.parametrize("seed", SEEDS)
def test_step_advantages_match_reference(seed):
    b, rng = ragged_batch(seed), np.random.default_rng(seed)
    step = np.cumsum(rng.random((ROWS, SLOTS)) < 0.5, axis=1)
    known = rng.random((ROWS, SLOTS)) < 0.7
    starts = b["mask"] & np.concatenate([np.ones((ROWS, 1), bool), np.diff(step, axis=1) > 0], axis=1)
    # What stands between the starts, or is unknown, may be anything.
    values = np.where(starts & known, b["values"], np.nan).astype(np.float32)
    found = both_ways(step_advantages, values, known, b["reward"], b["mask"], starts)
    assert_close(found, reference.step_advantages(b["values"], known, b["reward"], b["mask"], step))


# ------------------------------------------------------------------------------------------------- worked by hand
def test_step_advantages_worked_by_hand():
    """Steps of 2, 1 and 2 tokens, V = (0.25, ?, 0.5), reward 1.

    The second state is unknown, so that it is worth what follows it, 0.5; the third step ends with the reward.
    """
    starts = jnp.array([[True, False, True, True, False, False]])
    known = jnp.array([[True, True, False, True, False, True]])
    values = jnp.array([[0.25, 7, 7, 0.5, 7, 7]])
    mask = jnp.array([[True] * 5 + [False]])
    found = step_advantages(values, known, jnp.array([1.0]), mask, starts)
    np.testing.assert_allclose(found, [[0.25, 0.25, 0, 0.5, 0.5, 0]], atol=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_step_advantages_add_up_to_the_reward_less_the_value_of_the_prompt(seed):
    b, rng = ragged_batch(seed), np.random.default_rng(seed)
    step = np.cumsum(rng.random((ROWS, SLOTS)) < 0.5, axis=1)
    starts = b["mask"] & np.concatenate([np.ones((ROWS, 1), bool), np.diff(step, axis=1) > 0], axis=1)
    found = step_advantages(b["values"], starts, b["reward"], b["mask"], starts)
    total = np.sum(np.where(starts, found, 0), axis=1)
    live = b["mask"].any(axis=1)
    np.testing.assert_allclose(total[live], (b["reward"] - b["values"][:, 0])[live], rtol=1e-4, atol=1e-5)


def test_gae_worked_by_hand():
    """Two tokens, reward 1 at the end, V = (0.5, 0.8), gamma = 0.5, lambda = 0.5.

    delta_1 = 1 - 0.8 = 0.2;  delta_0 = 0.5 * 0.8 - 0.5 = -0.1;  A_0 = -0.1 + 0.25 * 0.2 = -0.05.
    """
    rewards = terminal_rewards(jnp.array([1.0]), jnp.array([[True, True, False]]))
    np.testing.assert_array_equal(rewards, [[0, 1, 0]])
    found = generalized_advantages(
        rewards, jnp.array([[0.5, 0.8, 9.0]]), jnp.array([[True, True, False]]), discount=0.5, trace=0.5
    )
    np.testing.assert_allclose(found[0], [[-0.05, 0.2, 0]], atol=1e-7)
    np.testing.assert_allclose(found[1], [[0.45, 1.0, 0]], atol=1e-7)


def test_group_advantages_worked_by_hand():
    """Group 0 has rewards 1, 0, 0; group 1 has 1, 1 and a failed grader; group 2 a single row."""
    reward = jnp.array([1.0, 0, 0, 1, 1, 0, 1])
    group = jnp.array([0, 0, 0, 1, 1, 1, 2])
    row_mask = jnp.array([True, True, True, True, True, False, True])
    found = leave_one_out(reward, group, row_mask, num_groups=3)
    np.testing.assert_allclose(found, [1, -0.5, -0.5, 0, 0, 0, 0], atol=1e-7)
    found = group_normalized(reward, group, row_mask, num_groups=3, epsilon=0.0)
    # The unbiased standard deviation of (1, 0, 0) is sqrt(1/3); 0 / 0 is what epsilon guards, so only group 0 counts.
    np.testing.assert_allclose(found[:3], np.array([2, -1, -1]) / 3 / np.sqrt(1 / 3), rtol=1e-6)


def test_whitening_worked_by_hand():
    mask = jnp.array([[True, True], [True, False], [True, False], [False, False]])
    found = whiten_blocks(jnp.array([[1.0, 2], [3, 99], [5, 99], [99, 99]]), mask, block=2)
    np.testing.assert_allclose(found[:2], [[-1, 0], [1, 0]], rtol=1e-6)  # of 1, 2, 3 the unbiased variance is 1
    np.testing.assert_array_equal(found[2:], np.zeros((2, 2)))  # a single token has nothing to vary from


def test_per_token_copies_a_rows_advantage_to_its_live_tokens():
    mask = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(per_token(jnp.array([2.0, np.nan]), mask), [[2, 2, 0], [0, 0, 0]])


# -------------------------------------------------------------------------------------------------------- identities
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_gae_with_trace_one_is_the_discounted_return_minus_the_value(seed, discount):
    b = ragged_batch(seed)
    found, returns = generalized_advantages(b["rewards"], b["values"], b["mask"], discount=discount, trace=1.0)
    expected = reference.discounted_returns(b["rewards"], b["mask"], discount)
    assert_close(returns, expected)
    assert_close(found, np.where(b["mask"], expected - b["values"], 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_leave_one_out_is_the_centred_reward_scaled(seed):
    b = ragged_batch(seed)
    rows = (b["reward"], b["group"], b["row_mask"])
    mean, size = map(np.asarray, group_means(*rows, num_groups=GROUPS))
    found = np.asarray(leave_one_out(*rows, num_groups=GROUPS))
    several = b["row_mask"] & (size > 1)
    assert several.sum() > 3
    np.testing.assert_allclose(
        found[several], (size / np.maximum(size - 1, 1) * (b["reward"] - mean))[several], rtol=1e-5, atol=1e-6
    )
    assert not found[~several].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_group_estimators_differ_by_known_factors(seed):
    """Leave-one-out is G / (G - 1) of centred; normalised is centred over (std + epsilon), std with divisor G - 1."""
    b = ragged_batch(seed)
    rows = (b["reward"], b["group"], b["row_mask"])
    centred = np.asarray(group_centred(*rows, num_groups=GROUPS))
    _, size = map(np.asarray, group_means(*rows, num_groups=GROUPS))
    several = b["row_mask"] & (size > 1)
    others = np.asarray(leave_one_out(*rows, num_groups=GROUPS))
    factor = size[several] / (size[several] - 1)
    np.testing.assert_allclose(others[several], factor * centred[several], rtol=1e-5, atol=1e-6)
    members = reference.live_members(b["group"], b["row_mask"])
    normalized = np.asarray(group_normalized(*rows, num_groups=GROUPS, epsilon=0.1))
    for i in np.flatnonzero(several):
        std = np.std(b["reward"][members[b["group"][i]]].astype(np.float64), ddof=1)
        np.testing.assert_allclose(normalized[i], centred[i] / (std + 0.1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_of_equal_rewards_have_exactly_zero_advantage(seed):
    """Also for rewards whose float32 mean is not the reward itself: rounding noise must not be standardised."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(40), rng.integers(1, 14, 40)).astype(np.int32)
    reward = rng.normal(size=40).astype(np.float32)[group]
    live = rng.random(len(group)) < 0.9
    reward = np.where(live, reward, rng.normal(size=len(group))).astype(np.float32)
    assert not np.any(leave_one_out(reward, group, live, num_groups=40))
    assert not np.any(group_normalized(reward, group, live, num_groups=40, epsilon=1e-8))
    assert not np.any(group_centred(reward, group, live, num_groups=40))


def test_blocks_of_equal_advantages_are_whitened_to_exactly_zero():
    constants = np.random.default_rng(0).normal(size=50).astype(np.float32)
    advantages = np.repeat(constants, 3)[:, None] * np.ones((1, 7), np.float32)
    assert not np.any(whiten_blocks(advantages, np.ones(advantages.shape, bool), block=3))


@pytest.mark.parametrize("seed", SEEDS)
def test_whitened_blocks_have_mean_zero_and_standard_deviation_one(seed):
    rng = np.random.default_rng(seed)
    mask = np.arange(SLOTS) < rng.integers(2, SLOTS + 1, ROWS)[:, None]
    found = np.asarray(whiten_blocks(5 + 3 * rng.normal(size=(ROWS, SLOTS)).astype(np.float32), mask, block=4))
    for start in range(0, ROWS, 4):
        tokens = found[start : start + 4][mask[start : start + 4]]
        np.testing.assert_allclose([tokens.mean(), tokens.std(ddof=1)], [0, 1], atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_changes_nothing(seed):
    """More columns, and more (masked) rows after the last block, with NaN in all of them."""
    b = ragged_batch(seed)
    more = {"mask": False, "rewards": np.nan, "values": np.nan}
    wide = {
        name: np.pad(b[name], ((0, 4), (0, 3)), constant_values=fill).astype(b[name].dtype)
        for name, fill in more.items()
    }
    rows = (b["reward"], b["group"], b["row_mask"])
    more_rows = (
        np.pad(b["reward"], (0, 4), constant_values=np.nan),
        np.pad(b["group"], (0, 4)),
        np.pad(b["row_mask"], (0, 4)),
    )

    def estimates(batch, rows):
        gae = generalized_advantages(batch["rewards"], batch["values"], batch["mask"], discount=0.9, trace=0.8)
        return [
            *gae,
            terminal_rewards(rows[0], batch["mask"]),
            whiten_blocks(batch["values"], batch["mask"], block=4),
            per_token(leave_one_out(*rows, num_groups=GROUPS), batch["mask"]),
            per_token(group_normalized(*rows, num_groups=GROUPS, epsilon=1e-8), batch["mask"]),
            per_token(group_centred(*rows, num_groups=GROUPS), batch["mask"]),
            whiten_batch(batch["values"], batch["mask"]),
            step_advantages(batch["values"], batch["mask"], rows[0], batch["mask"], batch["mask"]),
        ]

    for narrow, padded in zip(estimates(b, rows), estimates(wide, more_rows), strict=True):
        padded = np.asarray(padded)
        np.testing.assert_allclose(padded[:ROWS, :SLOTS], narrow, rtol=1e-6, atol=1e-6)
        assert not padded[ROWS:].any()
        assert not padded[:, SLOTS:].any()
