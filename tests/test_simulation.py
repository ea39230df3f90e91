"""The simulated world, student and rounds against counts, enumeration and NumPy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.features import standardized
from lilo_jax.curriculum.literature.speed import Speed
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device.selection import build_simulator
from lilo_jax.simulation.rollouts import Answers, Groups, answers, collect, measured, served
from lilo_jax.simulation.run import Privileges, RunSettings
from lilo_jax.simulation.student import StudentSettings, leave_one_out, policy_gradient
from lilo_jax.simulation.world import LEVELS, WorldSettings, draw_world, facts, features
from lilo_jax.types import Proposal

SMALL = RunSettings(world=WorldSettings(pool_size=96, held_out=64), steps=20)


def world_of(count=4000, **settings):
    return draw_world(jax.random.key(0), WorldSettings(**settings), count)


def build(spec, pool_size=96, questions=8):
    return spec.build(pool_size=pool_size, questions=questions, samples=4)


# --------------------------------------------------------------------------------------------------------- the world
def test_success_is_that_of_item_response_theory():
    world = world_of(200)
    ability = jax.random.normal(jax.random.key(1), (16,))
    a, b = np.asarray(world.skills, np.float64), np.asarray(world.difficulty, np.float64)
    expected = 1 / (1 + np.exp(-(a @ np.asarray(ability, np.float64) - b)))
    expected[np.asarray(world.coin_flip)], expected[np.asarray(world.unsolvable)] = 0.5, 0
    np.testing.assert_allclose(world.success(ability), expected, atol=1e-6)


def test_the_world_has_the_shares_and_moments_that_it_declares():
    world = world_of(20_000, coin_flips=0.2, unsolvable=0.1)
    assert np.mean(world.coin_flip) == pytest.approx(0.2, abs=0.01)
    assert np.mean(world.unsolvable) == pytest.approx(0.1, abs=0.01)
    assert not np.any(world.coin_flip & world.unsolvable)
    assert np.mean(world.difficulty) == pytest.approx(2.5, abs=0.05)
    assert np.std(world.difficulty) == pytest.approx(2.2, abs=0.05)
    others = np.sum(np.asarray(world.skills) > 0, axis=1) - 1
    assert np.mean(others) == pytest.approx(2 * 15 / 15, abs=0.1)
    np.testing.assert_array_equal(np.bincount(world.dominant, minlength=16) > 0, True)


def test_a_gap_makes_two_modes():
    difficulty = np.asarray(world_of(gap=6.0, spread=0.5).difficulty)
    assert np.mean(np.abs(np.abs(difficulty - 2.5) - 3) < 1.5) > 0.99


def test_lengths_rise_with_difficulty_and_with_mistakes():
    settings = WorldSettings()
    world = world_of()
    assert np.corrcoef(world.log_length, world.difficulty)[0, 1] > 0.9
    everyone = jnp.arange(4000, dtype=jnp.int32)
    groups = Groups(everyone, jnp.zeros_like(everyone), jnp.full(4000, 8))
    given = answers(groups, world, jnp.full(4000, 0.5), jax.random.key(3), settings, 8)
    relative = np.log(given.length) - np.asarray(world.log_length)[:, None]
    right, wrong = relative[np.asarray(given.correct)], relative[~np.asarray(given.correct)]
    assert np.mean(wrong) - np.mean(right) == pytest.approx(np.log(1.4), abs=0.02)
    assert np.std(right) == pytest.approx(0.4, abs=0.02)


@pytest.mark.slow
def test_features_are_scaled_as_real_ones_are():
    world = world_of(500)
    assert features(world, ()) is None
    made = np.asarray(features(world, (6, 32, 0, 20, 1)))
    blocks = np.split(made[:, :-1], [6, 38], axis=1)
    np.testing.assert_allclose(made, standardized(blocks), atol=1e-5)
    assert made.shape == (500, 59)
    # Nothing is lost: noisy skills and difficulty can be read off by a linear map.
    shown = np.asarray(world.shown)
    left = shown - made @ np.linalg.lstsq(made, shown, rcond=None)[0]
    assert np.abs(left).max() < 1e-3


def test_facts_say_what_is_wanted():
    world = world_of(500)
    known = facts(world, Wants(tokens=8, hidden=4), jnp.zeros(500))
    assert known.features.shape == (500, 6 + 8 + 4 + 1)
    np.testing.assert_array_equal(np.bincount(known.level), 500 // LEVELS)
    order = np.argsort(world.difficulty)
    assert np.all(np.diff(np.asarray(known.level)[order]) >= 0)


# ------------------------------------------------------------------------------------------------------- the student
def group(outcomes):
    """Answers of one group with these outcomes."""
    correct = jnp.array([outcomes], bool)
    return Answers(jnp.ones_like(correct), correct, correct.astype(jnp.float32), jnp.ones(correct.shape))


def test_advantages_by_hand():
    np.testing.assert_allclose(leave_one_out(group([1, 0, 0])), [[1, -0.5, -0.5]])
    given = group([1, 0, 1])
    given = given.replace(live=jnp.array([[True, True, False]]), reward=given.reward.at[0, 2].set(0))
    np.testing.assert_allclose(leave_one_out(given), [[1, -1, 0]])
    alone = given.replace(live=jnp.array([[True, False, False]]), reward=given.reward.at[0, 1:].set(0))
    np.testing.assert_allclose(leave_one_out(alone), [[0, 0, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("flawed", [False, True])
def test_the_expected_gradient_is_the_variance_times_the_skills(flawed):
    """By enumeration of all outcomes of a group of 4."""
    world = world_of(8, coin_flips=float(flawed), unsolvable=0.0)
    success = world.success(jnp.full(16, 1.5))
    p, expected = float(success[3]), np.zeros(16)
    for outcomes in itertools.product([0, 1], repeat=4):
        given = group(outcomes)
        advantages, key = leave_one_out(given), jax.random.key(0)
        gradient = policy_gradient(given, advantages, jnp.array([3]), world, success, key, 0.0)
        expected += p ** sum(outcomes) * (1 - p) ** (4 - sum(outcomes)) * np.asarray(gradient)
    learns = 0 if flawed else p * (1 - p)
    np.testing.assert_allclose(expected, learns * np.asarray(world.skills[3]), atol=1e-6)


def test_the_noise_has_the_size_of_the_advantages():
    world, given = world_of(8), group([1, 0, 0, 0])
    success = world.success(jnp.zeros(16))

    def gradient(key, noise):
        return policy_gradient(given, leave_one_out(given), jnp.array([3]), world, success, key, noise)

    keys = jax.random.split(jax.random.key(1), 2000)
    noise = jax.vmap(gradient, (0, None))(keys, 2.0) - gradient(keys[0], 0.0)[None]
    assert np.std(noise) == pytest.approx(2 * np.sqrt(1 + 3 / 9) / 4, rel=0.02)


# -------------------------------------------------------------------------------------------------------- the rounds
def test_groups_open_in_order_and_go_on():
    groups = Groups.none(5)
    places = jnp.array([7, 8, 9], jnp.int32)
    first = Proposal.opening(places, jnp.array([2, 2, 2]), jnp.array([True, False, True]))
    groups = served(groups, first, jnp.int32(0), 4)
    second = Proposal(places=jnp.array([9, 5, 1]), samples=jnp.array([2, 1, 1]), mask=jnp.array([True, True, False]),
                      continues=jnp.array([1, -1, 0]))  # fmt: skip
    groups = served(groups, second, jnp.int32(1), 4)
    np.testing.assert_array_equal(groups.place, [7, 9, 5, -1, -1])
    np.testing.assert_array_equal(groups.round, [0, 0, 1, -1, -1])
    np.testing.assert_array_equal(groups.rollouts, [2, 4, 1, 0, 0])


def test_a_group_that_goes_on_keeps_what_it_has():
    world = world_of(96)
    success = world.success(jnp.full(16, 2.0))
    short = Groups(jnp.array([3, 4]), jnp.array([0, 0]), jnp.array([2, 4]))
    longer = short.replace(rollouts=jnp.array([4, 4]))
    key = jax.random.key(0)
    before, after = (answers(g, world, success, key, WorldSettings(), 4) for g in (short, longer))
    np.testing.assert_array_equal(before.length[0, :2], after.length[0, :2])
    np.testing.assert_array_equal(before.reward[1], after.reward[1])
    assert np.all(np.asarray(before.length[0, 2:]) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [Uniform(), Lilo(), Speed()])
def test_tokens_are_those_of_all_rollouts(spec):
    world, curriculum = world_of(96), build(spec)
    state = curriculum.init(facts(world, curriculum.wants, jnp.full(96, jnp.nan)))
    success = world.success(jnp.full(16, 2.0))
    statistics, given = collect(curriculum, state, world, success, jax.random.key(5), WorldSettings())
    by_hand = sum(float(given.length[k, j]) for k in range(given.live.shape[0]) for j in range(given.live.shape[1])
                  if given.live[k, j])  # fmt: skip
    assert float(jnp.sum(statistics.length_sum)) == by_hand
    assert float(jnp.sum(statistics.rollouts)) == np.sum(given.live)
    if isinstance(spec, Lilo):
        assert np.sum(given.live) == 4 * 8 * 4
    if isinstance(spec, Speed):
        assert len(set(np.asarray(statistics.rollouts)[np.asarray(statistics.place) >= 0])) == 2


def test_a_noisy_verifier_turns_verdicts_round():
    world = world_of(4000)
    everyone = jnp.arange(4000, dtype=jnp.int32)
    groups = Groups(everyone, jnp.zeros_like(everyone), jnp.full(4000, 8))
    given = answers(groups, world, jnp.full(4000, 0.3), jax.random.key(3), WorldSettings(verdict_noise=0.1), 8)
    assert np.mean(given.correct != (given.reward > 0)) == pytest.approx(0.1, abs=0.01)
    assert float(jnp.sum(measured(groups, given).successes)) == np.sum(given.reward)


# ---------------------------------------------------------------------------------------------------------- the runs
@functools.cache
def program(spec, settings=SMALL, at_once=1):
    return build_simulator(build(spec), settings, at_once=at_once)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_a_run_is_a_function_of_its_seed_alone():
    alone, together = program(Lilo())(jnp.array([1, 2])), program(Lilo(), at_once=2)(jnp.array([1, 2]))
    assert_equal(alone, together)
    assert not np.array_equal(together.accuracy[0], together.accuracy[1])


@pytest.mark.slow
def test_arms_of_a_seed_share_world_and_start():
    quiet = dataclasses.replace(SMALL, student=StudentSettings(gradient_noise=0.0, learning_rate=0.1))
    ours, theirs = program(Lilo())(jnp.array([1, 2])), program(Uniform(), quiet)(jnp.array([1, 2]))
    np.testing.assert_array_equal(ours.accuracy[:, 0], theirs.accuracy[:, 0])
    np.testing.assert_array_equal(theirs.steps.generated, theirs.steps.trained)
    assert np.all(ours.steps.generated > 3 * ours.steps.trained)
    assert np.all(ours.steps.collected == 32)
    assert np.all(ours.steps.groups == 8)
    assert np.all(theirs.accuracy[:, -1] > theirs.accuracy[:, 0] + 0.1)  # without noise a student learns


@pytest.mark.slow
def test_free_screening_changes_the_bill_and_nothing_else():
    free = dataclasses.replace(SMALL, privileges=Privileges(free_screening=True))
    paid, unpaid = program(Lilo())(jnp.array([1, 2])), program(Lilo(), free)(jnp.array([1, 2]))
    np.testing.assert_array_equal(paid.accuracy, unpaid.accuracy)
    np.testing.assert_array_equal(unpaid.steps.generated, paid.steps.trained)
