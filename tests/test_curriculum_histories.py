"""Beliefs that know a question's past, against plain loops and pools whose truth is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curriculum_simulation import Simulation, facts

from lilo_jax.curriculum.contract import NOTHING
from lilo_jax.curriculum.estimators import Estimator, Tracker, decayed_counts, keep, latest
from lilo_jax.curriculum.histories import (
    LEAST_COUNT,
    LEAST_RATE,
    foretold,
    log_likelihood,
    offsets,
    unremembered,
)
from lilo_jax.curriculum.statistics import initial_state, remember
from lilo_jax.types import Estimate, GroupSignals

POOL = 6
KEY = jax.random.key(0)


def groups(*found):
    """GroupStatistics of (place, successes, attempts)."""
    collected = Simulation.empty(len(found) + 1)  # one place stays empty
    for i, (place, successes, attempts) in enumerate(found):
        collected.place[i], collected.round[i] = place, 0
        collected.successes[i], collected.attempts[i], collected.rollouts[i] = successes, attempts, attempts
    return collected


def constant(rate, variance=0.0):
    """A base belief that is the same for all questions, or one for each."""
    rates = np.broadcast_to(np.asarray(rate, np.float32), (POOL,))
    return lambda state, places, key: Estimate(jnp.asarray(rates)[places], jnp.full(places.shape, variance))


def after(estimator, steps):
    """(memory, state) after the groups of several steps; None passes a step without any."""
    state = initial_state(facts(POOL, NOTHING))
    memory = estimator.tracker.init(POOL)
    for step, found in enumerate(steps):
        collected = groups(*(found or ()))
        memory = estimator.tracker.observe(memory, state, collected, jnp.int32(step))
        state = remember(state, collected, jnp.int32(step))
    return memory, state


def believed(estimator, steps):
    memory, state = after(estimator, steps)
    return jax.device_get(estimator.estimate(memory, state, jnp.arange(POOL), KEY))


# ------------------------------------------------------------------------------------------------------------- offsets
def test_questions_that_were_never_asked_are_believed_as_by_the_base():
    base = [0.1, 0.3, 0.5, 0.7, 0.9, 0.99]
    found = believed(offsets(constant(base), spread=2.0), [[(0, 4, 4)], [(1, 0, 4)]])
    np.testing.assert_allclose(found.mean[2:], base[2:], rtol=1e-5)
    assert found.mean[0] > 0.2
    assert found.mean[1] < 0.2


def reference_offsets(base, steps, spread, memory):
    """The filter written as a loop over visits: (mean log-odds, variance of the offset) as of the last step."""
    mean, information = np.zeros(POOL), np.zeros(POOL)
    for found in steps:
        told = information.copy()
        residual = np.zeros(POOL)
        for place, s, n in found or ():
            p = 1 / (1 + math.exp(-(math.log(base[place] / (1 - base[place])) + mean[place])))
            told[place] += n * p * (1 - p)
            residual[place] += s - n * p
        mean = mean + residual / (spread**-2 + told)
        asked = {place for place, _, _ in found or ()}
        # Those of the last step count in full at the next one; all others fade.
        for i in range(POOL):
            if i not in asked:
                mean[i], told[i] = memory * mean[i], memory * told[i]
        information = told
    return np.log(np.array(base) / (1 - np.array(base))) + mean, 1 / (spread**-2 + information)


def test_offsets_follow_the_filter():
    base = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2]
    steps = [
        [(0, 3, 4), (1, 0, 4)],
        [(0, 2, 4), (0, 4, 4)],  # two groups of a question
        None,
        [(3, 1, 8), (2, 8, 8)],
        [(1, 4, 4)],
        None,
    ]
    found = believed(offsets(constant(base), spread=1.5, memory=0.9), steps)
    log_odds, variance = reference_offsets(base, steps, 1.5, 0.9)
    rate = 1 / (1 + np.exp(-log_odds))
    np.testing.assert_allclose(found.mean, rate, rtol=1e-5)
    np.testing.assert_allclose(found.variance, np.minimum(variance * (rate * (1 - rate)) ** 2, rate * (1 - rate)), 1e-5)


def test_an_offset_moves_towards_what_was_seen_and_is_surer_then():
    base = constant(0.3)
    before, after_one, after_many = (
        believed(offsets(base), [[(0, 8, 8)]] * visits) if visits else believed(offsets(base), [None])
        for visits in (0, 1, 10)
    )
    assert before.mean[0] < after_one.mean[0] < after_many.mean[0]
    assert before.variance[0] > after_one.variance[0] > after_many.variance[0]
    np.testing.assert_allclose(after_many.mean[1:], before.mean[1:], rtol=1e-6)


def test_what_an_offset_showed_fades_back_to_the_base():
    estimator = offsets(constant(0.3), memory=0.5)
    fresh, faded = believed(estimator, [[(0, 8, 8)]]), believed(estimator, [[(0, 8, 8)]] + [None] * 20)
    assert fresh.mean[0] > 0.5
    np.testing.assert_allclose(faded.mean[0], faded.mean[1], atol=1e-4)


def test_a_base_that_moves_takes_the_offset_with_it():
    """A question that was easier than it reads stays so when the policy gets better at all of them."""
    level = {"rate": 0.2}
    base = lambda state, places, key: Estimate(jnp.full(places.shape, level["rate"]), jnp.zeros(places.shape))  # noqa: E731
    estimator = offsets(base, memory=1.0)
    memory, state = after(estimator, [[(0, 5, 8)]])
    level["rate"] = 0.6
    found = estimator.estimate(memory, state, jnp.arange(POOL), KEY)
    assert found.mean[0] > 0.7 > found.mean[1]


# ------------------------------------------------------------------------------------------------------------ foretold
def test_evidence_is_the_beta_binomial():
    mean, count, s, n = 0.3, 5.0, 3, 8
    a, b = mean * count, (1 - mean) * count
    expected = math.lgamma(a + s) + math.lgamma(b + n - s) - math.lgamma(count + n)
    expected -= math.lgamma(a) + math.lgamma(b) - math.lgamma(count)
    belief = Estimate(jnp.full((1, 1), mean), jnp.full((1, 1), mean * (1 - mean) / (count + 1)))
    found = log_likelihood(jnp.full((1, 1), float(s)), jnp.full((1, 1), float(n)), belief)
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_probabilities_of_all_outcomes_sum_to_one():
    n = 5
    s = jnp.arange(n + 1.0)[None]
    for variance in (0.0, 1e-3, 0.05, 0.2):
        belief = Estimate(jnp.full((1, n + 1), 0.4), jnp.full((1, n + 1), variance))
        found = log_likelihood(s, jnp.full((1, n + 1), float(n)), belief)
        ways = np.array([math.comb(n, k) for k in range(n + 1)])
        np.testing.assert_allclose(np.sum(ways * np.exp(found[0])), 1, rtol=1e-3)


def test_the_member_that_foretells_is_believed():
    right, wrong = unremembered(constant(0.8, 0.01)), unremembered(constant(0.2, 0.01))
    estimator = foretold([right, wrong])
    start = believed(estimator, [])
    np.testing.assert_allclose(start.mean, 0.5, rtol=1e-6)  # nobody has foretold anything yet
    np.testing.assert_allclose(start.variance, 0.01 + 0.09, rtol=1e-5)
    found = believed(estimator, [[(i, 3, 4) for i in range(POOL)]] * 3)
    np.testing.assert_allclose(found.mean, 0.8, atol=1e-3)


def test_weights_are_the_faded_likelihoods():
    members = [constant(0.3, 0.02), constant(0.6, 0.05), constant(0.9, 0.001)]
    steps, fade = [[(0, 2, 4), (1, 1, 4)], [(2, 4, 4)], [(0, 3, 4)]], 0.7
    found = believed(foretold([unremembered(m) for m in members], fade=fade), steps)
    means, variances = np.array([0.3, 0.6, 0.9]), np.array([0.02, 0.05, 0.001])
    evidence = np.zeros(3)
    for step in steps:
        evidence *= fade
        for _, s, n in step:
            for k in range(3):
                count = means[k] * (1 - means[k]) / variances[k] - 1
                a, b = count * means[k], count * (1 - means[k])
                evidence[k] += math.lgamma(a + s) + math.lgamma(b + n - s) - math.lgamma(count + n)
                evidence[k] -= math.lgamma(a) + math.lgamma(b) - math.lgamma(count)
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    mean = weight @ means
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(found.variance, weight @ (variances + (means - mean) ** 2), rtol=1e-3)


def test_a_sure_and_wrong_member_loses_more_than_one_that_does_not_know():
    sure, modest = unremembered(constant(0.1, 1e-4)), unremembered(constant(0.1, 0.03))
    found = believed(foretold([sure, modest]), [[(i, 4, 4) for i in range(POOL)]])
    assert found.variance[0] > 0.029


def test_what_is_believed_is_taken_before_members_learn():
    """A member that knows each outcome only after it was told foretells nothing."""
    parrot = latest()
    parrot = Estimator(
        parrot.tracker,
        lambda rate, state, places, key: Estimate(jnp.nan_to_num(rate[places], nan=0.5), jnp.full(places.shape, 0.02)),
    )
    steady = unremembered(constant(0.5, 0.02))
    alternating = [[(i, 4 * (step % 2), 4) for i in range(POOL)] for step in range(6)]
    memory, _ = after(foretold([parrot, steady]), alternating)
    assert memory.evidence[1] == 0 > memory.evidence[0] + 5


def test_members_that_know_nothing_are_not_compared_and_do_not_speak():
    nothing, something = unremembered(constant(np.nan)), unremembered(constant(0.4, 0.02))
    estimator = foretold([nothing, something])
    memory, _ = after(estimator, [[(0, 4, 4)]])
    np.testing.assert_array_equal(memory.evidence, [0, 0])
    found = believed(estimator, [[(0, 4, 4)]])
    np.testing.assert_allclose(found.mean, 0.4, rtol=1e-6)
    assert np.isnan(believed(foretold([nothing, nothing]), []).mean).all()


def test_groups_without_a_verdict_say_nothing():
    estimator = foretold([unremembered(constant(0.2, 0.02)), unremembered(constant(0.8, 0.02))])
    memory, _ = after(estimator, [[(0, 0, 0), (1, 0, 0)]])
    np.testing.assert_array_equal(memory.evidence, [0, 0])


def test_members_hear_of_updates():
    heard = Tracker(
        lambda pool_size: jnp.float32(0), keep, lambda memory, state, place, mask, signals, step: memory + step
    )
    member = Estimator(heard, lambda memory, state, places, key: Estimate(jnp.full(places.shape, 0.5), memory))
    tracker = foretold([member, unremembered(constant(0.5))]).tracker
    state, signals = initial_state(facts(POOL, NOTHING)), GroupSignals(jnp.zeros(1), jnp.zeros(1))
    memory = tracker.feedback(tracker.init(POOL), state, jnp.array([0]), jnp.array([True]), signals, jnp.int32(3))
    assert memory.memories[0] == 3


# ------------------------------------------------------------------------------------------------------- on known pools
def drifting_pool(seed, *, pool, spread, per_step, steps, samples=4, rate=0.03):
    """(log-odds that all share with their features, true offsets, visits by step) of a policy that gets better."""
    rng = np.random.default_rng(seed)
    read, own = rng.normal(0, 1.5, pool), rng.normal(0, spread, pool)
    visits = [rng.choice(pool, per_step, replace=False) for _ in range(steps)]
    return read, own, [[(q, read[q] + own[q] + rate * t) for q in asked] for t, asked in enumerate(visits)], rng


@pytest.mark.parametrize(("spread", "own_matters"), [(0.0, False), (2.0, True)])
def test_the_past_counts_where_questions_are_not_as_they_read(spread, own_matters):
    """Members: what is read, and what is read with the question's own past.  The truth says who is right."""
    pool, samples = 40, 4
    read, own, visits, rng = drifting_pool(3, pool=pool, spread=spread, per_step=10, steps=40)
    now = {"log_odds": read}
    base = lambda state, places, key: Estimate(  # noqa: E731
        jax.nn.sigmoid(jnp.asarray(now["log_odds"], jnp.float32)[places]), jnp.full(places.shape, 1e-3)
    )
    estimator = foretold([unremembered(base), offsets(base, spread=1.5, memory=0.99)])
    state = initial_state(facts(pool, NOTHING))
    memory = estimator.tracker.init(pool)
    for step, asked in enumerate(visits):
        now["log_odds"] = read + 0.03 * step  # the base follows the drift
        found = [(q, int(rng.binomial(samples, 1 / (1 + np.exp(-z)))), samples) for q, z in asked]
        collected = groups(*found)
        memory = estimator.tracker.observe(memory, state, collected, jnp.int32(step))
        state = remember(state, collected, jnp.int32(step))
    truth = 1 / (1 + np.exp(-(read + own + 0.03 * len(visits))))
    mixed = np.asarray(estimator.estimate(memory, state, jnp.arange(pool), KEY).mean)
    alone = np.asarray(base(state, jnp.arange(pool), KEY).mean)
    assert (memory.evidence[1] > memory.evidence[0]) == own_matters
    if own_matters:
        assert np.mean((mixed - truth) ** 2) < 0.35 * np.mean((alone - truth) ** 2)
    else:
        np.testing.assert_allclose(mixed, alone, atol=0.06)


def test_counts_win_where_features_say_nothing():
    """Many visits of a small pool: a question's own counts are believed, as by `mopps`."""
    pool, samples, rng = 20, 8, np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, pool)
    state = initial_state(facts(pool, NOTHING))
    flat = lambda state, places, key: Estimate(jnp.full(places.shape, 0.5), jnp.full(places.shape, 1e-3))  # noqa: E731
    estimator = foretold([unremembered(flat), decayed_counts(decay=0.9)])
    memory = estimator.tracker.init(pool)
    for step in range(20):
        collected = groups(*[(i, int(rng.binomial(samples, truth[i])), samples) for i in range(pool)])
        memory = estimator.tracker.observe(memory, state, collected, jnp.int32(step))
        state = remember(state, collected, jnp.int32(step))
    found = np.asarray(estimator.estimate(memory, state, jnp.arange(pool), KEY).mean)
    assert np.mean((found - truth) ** 2) < 0.01


def test_beliefs_stay_within_bounds_whatever_is_seen():
    estimator = foretold([offsets(constant([0, 1, 0.5, LEAST_RATE, 1, 0])), unremembered(constant(0.5, 0.25))])
    found = believed(estimator, [[(i, 8 * (i % 2), 8) for i in range(POOL)]] * 30)
    assert np.all((found.mean > 0) & (found.mean < 1))
    assert np.all((found.variance >= 0) & (found.variance <= 0.2501))
    assert LEAST_COUNT > 0
