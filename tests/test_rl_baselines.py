"""Beliefs as baselines: by hand, against NumPy loops, and how much less they vary; `test_rl_theory` has their means."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.literature.spo import Spo
from lilo_jax.errors import UsageError
from lilo_jax.rl.advantages import group_normalized, leave_one_out
from lilo_jax.rl.baselines import LEAST_DEVIATION, believed, less, marginal, posterior, standardized
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.reinforce import Reinforce
from lilo_jax.rl.rloo import Rloo
from lilo_jax.training.checks import check
from lilo_jax.types import Estimate, GroupStatistics, Sequences, TrainBatch


def rows(rewards, group, belief, masked=()):
    """A batch of these rewards; `belief` has a (mean, variance) for each group."""
    mask = np.ones(len(rewards), bool)
    mask[list(masked)] = False
    estimate = Estimate(*np.array(belief, np.float32).T)
    unread = {field.name: None for field in dataclasses.fields(TrainBatch)}
    read = {"reward": np.array(rewards, np.float32), "group": np.array(group), "row_mask": mask, "belief": estimate}
    return TrainBatch(**unread | read | {"place": np.arange(len(belief))})


HALF = (0.5, 1 / 12)
"""Beta(1, 1): two rollouts, one of them right."""


def test_worked_by_hand():
    """Beta(1, 1) and a group of three; one alone, believed to be at 1/4; one of which nothing is believed, alone."""
    batch = rows([1, 0, 0, 1, 1], [0, 0, 0, 1, 2], [HALF, (0.25, 0.01), (np.nan, 0)])
    np.testing.assert_allclose(believed(batch), [0.5, 0.5, 0.5, 0.25, np.nan])
    np.testing.assert_allclose(posterior(batch), [1 / 4, 2 / 4, 2 / 4, 0.25, np.nan], rtol=1e-6)
    np.testing.assert_allclose(less(posterior)(batch), [3 / 4, -2 / 4, -2 / 4, 0.75, 0], rtol=1e-6)
    deviations = np.sqrt([3 / 16, 1 / 4, 1 / 4, 3 / 16])
    np.testing.assert_allclose(standardized(posterior)(batch)[:4], [0.75, -0.5, -0.5, 0.75] / deviations, rtol=1e-6)
    assert standardized(posterior)(batch)[4] == 0


def test_a_belief_held_for_certain_outweighs_the_group_and_none_leaves_it_alone():
    rewards, group = [1, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]
    certain = rows(rewards, group, [(0.2, 0), (0.9, 0)])
    np.testing.assert_allclose(posterior(certain), believed(certain), atol=1e-5)
    nothing = rows(rewards, group, [(np.nan, 0), (np.nan, 0)])
    expected = leave_one_out(jnp.array(rewards, jnp.float32), jnp.array(group), jnp.ones(6, bool), num_groups=2)
    np.testing.assert_allclose(less(posterior)(nothing), expected, atol=1e-6)


def reference(batch, worth):
    """An advantage of each live row: worth(own reward, the others' rewards, a, b) of its Beta(a, b)."""
    found = np.zeros(len(batch.reward))
    for i in np.flatnonzero(batch.row_mask):
        beside = [j for j in np.flatnonzero(batch.row_mask & (batch.group == batch.group[i])) if j != i]
        mean, variance = (float(x[batch.group[i]]) for x in batch.belief)
        n = mean * (1 - mean) / variance - 1
        found[i] = worth(batch.reward[i], batch.reward[beside].astype(float), n * mean, n * (1 - mean))
    return found


def posterior_reference(reward, others, a, b):
    return reward - (a + others.sum()) / (a + b + len(others))


def marginal_reference(reward, others, a, b):
    if not len(others):
        return 0.0
    a, b = a + others.sum(), b + (1 - others).sum()
    found = 0.0
    for k in range(len(others) + 1):
        group = np.r_[reward, np.ones(k), np.zeros(len(others) - k)]
        found += stats.betabinom.pmf(k, len(others), a, b) * (reward - group.mean()) / (group.std(ddof=1) + 1e-4)
    return found


@pytest.fixture
def ragged():
    """Groups of 1 to 5 rows in any order, some of which have no verdict."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 6, 12)))
    means = rng.uniform(0.05, 0.95, 12)
    belief = [(m, m * (1 - m) / (n + 1)) for m, n in zip(means, rng.uniform(0.5, 20, 12), strict=True)]
    masked = rng.choice(len(group), 5, replace=False)
    return rows(rng.integers(2, size=len(group)), group, belief, masked)


def test_against_loops(ragged):
    np.testing.assert_allclose(less(posterior)(ragged), reference(ragged, posterior_reference), atol=1e-5)
    np.testing.assert_allclose(marginal(epsilon=1e-4)(ragged), reference(ragged, marginal_reference), atol=2e-4)
    by_belief = reference(ragged, lambda reward, others, a, b: reward - a / (a + b))
    np.testing.assert_allclose(less(believed)(ragged), by_belief, atol=1e-5)


def test_masked_rows_change_nothing(ragged):
    other = dataclasses.replace(ragged, reward=np.where(ragged.row_mask, ragged.reward, np.nan).astype(np.float32))
    for advantage in (less(posterior), less(believed), standardized(posterior), marginal(epsilon=1e-4)):
        np.testing.assert_array_equal(advantage(other), advantage(ragged))
        assert not np.any(np.asarray(advantage(other))[~ragged.row_mask])


def test_a_deviation_has_a_least_size():
    batch = rows([1, 0], [0, 1], [(1e-4, 1e-9), (1 - 1e-4, 1e-9)])
    np.testing.assert_allclose(standardized(believed)(batch), [1 / LEAST_DEVIATION, -1 / LEAST_DEVIATION], rtol=1e-3)


@pytest.mark.parametrize("size", [2, 4])
def test_a_good_belief_varies_less_than_the_others_of_the_group(size):
    """E[A^2] over all outcomes, and over success rates that are drawn from the belief: no baseline has less.

    Leave-one-out has p (1 - p) (1 + 1 / (G - 1)), the posterior mean E[p (1 - p)] (1 + 1 / (n + G - 1)), n = 4.
    """
    a, b = 1.5, 2.5
    mean, variance = a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
    squares = dict.fromkeys(("posterior", "belief", "others"), 0.0)
    for outcome in itertools.product((0, 1), repeat=size):
        batch = rows(outcome, [0] * size, [(mean, variance)])
        right = sum(outcome)
        chance = stats.betabinom.pmf(right, size, a, b) / len(list(itertools.combinations(range(size), right)))
        own = jnp.array(outcome, jnp.float32), jnp.zeros(size, int), jnp.ones(size, bool)
        advantages = less(posterior)(batch), less(believed)(batch), leave_one_out(*own, num_groups=1)
        for name, advantage in zip(squares, advantages, strict=True):
            squares[name] += chance * float(np.mean(np.square(advantage)))
    spread = mean * (1 - mean) - variance
    np.testing.assert_allclose(squares["posterior"], spread * (1 + 1 / (4 + size - 1)), rtol=1e-4)
    np.testing.assert_allclose(squares["others"], spread * (1 + 1 / (size - 1)), rtol=1e-4)
    np.testing.assert_allclose(squares["belief"], mean * (1 - mean), rtol=1e-4)
    assert squares["posterior"] < min(squares["belief"], squares["others"])


def test_the_marginal_advantage_of_an_answer_varies_less_with_the_luck_of_its_group():
    """Var[A | own outcome] over all outcomes of the others, p = 1/4 believed as by 16 rollouts, against GRPO's own."""
    p, size, luck = 0.25, 5, {}
    for own in (0, 1):
        found, chances = [], []
        for others in itertools.product((0, 1), repeat=size - 1):
            batch = rows((own, *others), [0] * size, [(p, p * (1 - p) / 17)])
            grpo = group_normalized(batch.reward, batch.group, batch.row_mask, num_groups=1, epsilon=1e-8)
            found.append([float(grpo[0]), float(marginal(epsilon=1e-8)(batch)[0])])
            chances.append(p ** sum(others) * (1 - p) ** (size - 1 - sum(others)))
        found, chances = np.array(found), np.array(chances)
        luck[own] = chances @ (found - chances @ found) ** 2
    for of_group, of_belief in luck.values():
        assert 0 < of_belief < 0.2 * of_group


def test_spo_s_advantages_are_those_of_its_own_tracker():
    """Single rollouts over steps: the reward less the mean of faded counts from before, whitened over the batch."""
    steps = [([0, 2, 3], [1, 0, 1]), ([2, 0, 1], [1, 1, 0]), ([0, 3, 2], [0, 1, 1]), ([3, 1, 0], [0, 1, 1])]
    curriculum = Spo().build(pool_size=4, questions=3, samples=1)
    state, a, b = curriculum.init(no_facts(4)), np.ones(4), np.ones(4)
    algorithm = Reinforce(baseline="belief", whitening="batch").build()
    for step, (places, rewards) in enumerate(steps):
        expected = rewards - (a / (a + b))[places]
        expected = (expected - expected.mean()) / expected.std(ddof=1)
        belief = curriculum.estimate(state, jnp.array(places), jax.random.key(0))
        tokens = np.ones((3, 1), np.float32)
        batch = dataclasses.replace(
            rows(rewards, [0, 1, 2], np.transpose(belief)),
            sequences=Sequences(np.ones((3, 2), np.int32), np.ones(3, np.int32), np.ones(3, np.int32)),
            sampler_logprobs=tokens,
        )
        np.testing.assert_allclose(algorithm.advantages(batch)[0][:, 0], expected, rtol=1e-4)
        places, right = np.array(places, np.int32), np.array(rewards, np.float32)
        ones, opened = np.ones(3, np.float32), np.zeros(3, np.int32)
        state = curriculum.observe(
            state, GroupStatistics(places, opened, ones, right, right, ones, ones), jnp.int32(step)
        )
        a, b = 0.96 * a + 0.04, 0.96 * b + 0.04
        a[places], b[places] = a[places] + right, b[places] + 1 - right


@pytest.mark.parametrize(
    "algorithm", [Rloo(baseline="belief"), Grpo(baseline="posterior"), Reinforce(baseline="belief")]
)
def test_a_curriculum_without_a_belief_is_refused(algorithm, tiny_config):
    config = configuration.replace(tiny_config, algorithm=algorithm)
    with pytest.raises(UsageError, match="and lilo believes nothing"):
        check(config)
    check(configuration.replace(config, curriculum=Mopps()))


def test_groups_of_one_need_a_belief():
    for algorithm in (Rloo(), Grpo(), Grpo(baseline="marginal")):
        assert algorithm.build().least_samples == 2
    for algorithm in (Rloo(baseline="belief"), Rloo(baseline="posterior"), Grpo(baseline="posterior"), Reinforce()):
        assert algorithm.build().least_samples == 1
    assert not Config().algorithm.build().needs_belief
