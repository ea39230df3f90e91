"""The parts of curricula: beliefs against planted truths, draws against probabilities, allocations against optima."""

import functools

import curriculum_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curriculum_simulation import Simulation, facts
from scipy import stats

from lilo_jax.curriculum import (
    allocators,
    buffers,
    controllers,
    dynamics,
    estimators,
    gates,
    prices,
    selectors,
    sources,
    traps,
    values,
)
from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.estimators import Estimate
from lilo_jax.curriculum.regression import fit, logistic_regression
from lilo_jax.curriculum.selectors import Classes
from lilo_jax.curriculum.statistics import initial_state, remember

KEY = jax.random.key(0)
POOL = 60


def collected(question, successes, attempts):
    found = Simulation.empty(len(question))
    found.place[:], found.round[:] = question, 0
    found.successes[:], found.attempts[:], found.rollouts[:] = successes, attempts, attempts
    return found


def believed(estimator, steps, *, features=2, pool=POOL, order=None):
    """Estimates of the pool after steps of (question, successes, attempts), the questions renamed by `order`."""
    known = facts(pool, Wants(hidden=features - 1))
    order = np.arange(pool) if order is None else order
    state = initial_state(jax.tree.map(lambda x: jnp.zeros_like(x).at[order].set(x), known))
    memory = estimator.tracker.init(pool)
    for step, (question, successes, attempts) in enumerate(steps):
        groups = collected(order[question], successes, attempts)
        memory = estimator.tracker.observe(memory, state, groups, jnp.int32(step))
        state = remember(state, groups, jnp.int32(step))
    return estimator.estimate(memory, state, jnp.arange(pool), KEY)


@functools.cache
def history(steps=5, slots=20, seed=3):
    rng = np.random.default_rng(seed)
    rates, found = rng.random(POOL), []
    for _ in range(steps):
        question = rng.integers(0, POOL - 5, slots)
        question[3] = question[7]
        attempts = rng.integers(0, 9, slots)
        found.append((question, rng.binomial(attempts, rates[question]), attempts))
    return found


ESTIMATORS = {
    "lifetime": estimators.lifetime(),
    "frequency": estimators.frequency(),
    "decayed counts": estimators.decayed_counts(decay=0.9),
    "latest": estimators.latest(),
    "moving average": estimators.moving_average(0.3, 0.5),
    "rasch": dynamics.rasch(),
    "regression": logistic_regression(width=2, window=64),
    "blended": dynamics.blended(logistic_regression(width=2, window=64), forget=0.1, share=0.2, samples=8),
    "measured": estimators.measured(),
}


# ------------------------------------------------------------------------------------------------------------- waiting
def test_a_question_that_is_missed_again_and_again_waits_twice_as_long_each_time_up_to_a_bound():
    tracker, state = controllers.misses(), initial_state(facts(POOL, Wants()))
    memory, due = tracker.init(POOL), []
    for step in range(20):
        # Question 3 is missed, 5 by two rollouts; of 7 the second group is right, 9 has no verdict.
        groups = collected(np.array([3, 5, 7, 7, 9]), np.array([0, 0, 0, 1, 0]), np.array([1, 2, 1, 1, 0]))
        if step >= 6:
            groups.place[:], groups.attempts[:] = -1, 0
        memory = tracker.observe(memory, state, groups, jnp.int32(step))
        state = remember(state, groups, jnp.int32(step))
        due.append(controllers.rested(memory, state, jnp.array([3, 5, 7, 9, 11]), patience=4, longest=3))
    assert memory[jnp.array([3, 5, 7, 9, 11])].tolist() == [6, 6, 0, 0, 0]
    expected = [[min(1, age / min(2.0 ** (n - 4), 3)) for n in (6, 6, 0, 0, 0)] for age in range(1, 15)]
    np.testing.assert_allclose(due[5:-1], expected, rtol=1e-6)
    np.testing.assert_allclose([row[0] for row in due[:6]], [1, 1, 1, 1, 1 / 2, 1 / 3], rtol=1e-6)  # four would be 1/4


# ------------------------------------------------------------------------------------------------------------- beliefs
@pytest.mark.parametrize("name", ESTIMATORS)
def test_renaming_questions_renames_what_is_believed(name):
    order = np.random.default_rng(0).permutation(POOL)
    plain, renamed = (believed(ESTIMATORS[name], history(), order=o) for o in (None, order))
    for a, b in zip(plain, renamed, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b)[order], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_belief_is_a_probability_with_a_variance_that_it_can_have(name):
    mean, variance = believed(ESTIMATORS[name], history())
    known = ~np.isnan(mean)
    assert known.any()
    assert np.all((mean[known] >= 0) & (mean[known] <= 1))
    assert np.all((variance[known] >= 0) & (variance[known] <= mean[known] * (1 - mean[known]) + 1e-6))


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "blended"])  # whose predictions count every step
def test_groups_without_verdict_and_empty_slots_teach_nothing(name):
    nothing = [(np.array([-1, 4, -1]), np.zeros(3), np.zeros(3))]
    before, after = (believed(ESTIMATORS[name], steps) for steps in ([], nothing))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n not in ("regression", "blended")])
def test_two_groups_of_a_question_are_one_group_of_both(name):
    """The regression keeps groups, whose sum is what counts; here the memory itself must not tell them apart."""
    twice = [(np.array([4, 7, 4]), np.array([1, 2, 3]), np.array([4, 4, 4]))]
    once = [(np.array([4, 7, -1]), np.array([4, 2, 0]), np.array([8, 4, 0]))]
    for a, b in zip(*(believed(ESTIMATORS[name], steps) for steps in (twice, once)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_decayed_counts_fade_by_steps_and_count_the_last_group_in_full():
    steps = [(np.array([0]), np.array([3]), np.array([4])), (np.array([1]), np.array([1]), np.array([4]))]
    mean = believed(estimators.decayed_counts(decay=0.5), steps, pool=3).mean
    np.testing.assert_allclose(mean, [(1 + 1.5) / (2 + 2), (1 + 1) / (2 + 4), 0.5], rtol=1e-6)


def test_beta_beliefs_are_calibrated_on_planted_rates():
    """P drawn uniformly, as the prior says: the squared error is the variance believed, and intervals cover."""
    rng, pool = np.random.default_rng(5), 4000
    truth = rng.random(pool)
    attempts = rng.integers(0, 20, pool)
    steps = [(np.arange(pool), rng.binomial(attempts, truth), attempts)]
    for estimator in (estimators.lifetime(), estimators.decayed_counts()):
        mean, variance = map(np.asarray, believed(estimator, steps, pool=pool))
        assert np.mean((mean - truth) ** 2) == pytest.approx(variance.mean(), rel=0.08)
        assert np.mean(np.abs(mean - truth) < 1.645 * np.sqrt(variance)) == pytest.approx(
            0.91, abs=0.025
        )  # Beta has short tails
        for low in (0.1, 0.4, 0.7):
            among = (mean > low) & (mean < low + 0.2)
            assert truth[among].mean() == pytest.approx(mean[among].mean(), abs=0.02)


def test_thompson_draws_have_the_moments_of_the_belief():
    base = estimators.decayed_counts(prior=0.7)
    steps = [(np.arange(8), np.array([0, 1, 2, 3, 0, 5, 8, 16]), np.array([0, 1, 4, 8, 8, 8, 8, 16]))]
    mean, variance = believed(base, steps, pool=8)
    state, memory = initial_state(facts(8, Wants())), base.tracker.init(8)
    groups = collected(*steps[0])
    memory, state = base.tracker.observe(memory, state, groups, jnp.int32(0)), remember(state, groups, jnp.int32(0))
    draw = estimators.thompson(base).estimate
    draws = jax.jit(jax.vmap(lambda key: draw(memory, state, jnp.arange(8), key).mean))(jax.random.split(KEY, 6000))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.015)
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.1)
    assert draws.min() >= 0
    assert draws.max() <= 1


def test_thompson_leaves_what_is_certain_or_unknown():
    found = believed(estimators.thompson(estimators.latest()), history())
    np.testing.assert_array_equal(found.mean, believed(estimators.latest(), history()).mean)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_regression_finds_the_mode_and_its_curvature(scale):
    """Against Newton in float64 to convergence; with large weights outcomes are certain, where whole steps diverge."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    n = rng.integers(1, 9, 50)
    s = rng.binomial(n, jax.nn.sigmoid(2 * x[:, 0] * scale))
    w, factor = jnp.zeros(4), None
    for _ in range(12):  # warm starts, as in a run
        w, factor = jax.jit(functools.partial(fit, precision=0.1))(x, s / n, n * scale, w)
    groups = [(i, int(s[i]) * scale, int(n[i]) * scale, 0) for i in range(50)]
    expected, inverse = reference.logistic_mode(x.astype(np.float64), groups, 1.0, 0.1)
    np.testing.assert_allclose(w, expected, rtol=5e-3, atol=2e-3)
    np.testing.assert_allclose(np.linalg.inv(factor @ factor.T), inverse, rtol=3e-2, atol=1e-3)
    gradient = x.T @ (n * scale * (jax.nn.sigmoid(x @ np.asarray(w)) - s / n)) + 0.1 * np.asarray(w)
    assert np.abs(gradient).max() < 0.05


def test_the_regression_believes_about_questions_like_those_it_saw():
    """Planted logistic success on features: its beliefs about unseen questions are near, and its variance is honest."""
    rng, pool = np.random.default_rng(2), 400
    known = facts(pool, Wants(hidden=3))
    truth = 1 / (1 + np.exp(-np.asarray(known.features) @ np.array([3.0, -2.0, 1.0, 0.6])))
    seen = np.arange(60)
    steps = [(seen, rng.binomial(8, truth[seen]), np.full(60, 8))]
    mean, variance = map(np.asarray, believed(logistic_regression(width=4, window=64), steps, features=4, pool=pool))
    error = (mean - truth)[60:]
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert 0.3 < np.mean(error**2) / variance[60:].mean() < 3


def test_predictions_are_calibrated_on_planted_rates():
    """Planted success on the first three features, noise beside them: rates by bins of what is predicted."""
    rng, pool = np.random.default_rng(4), 1500
    features = rng.normal(size=(pool, 7)) / np.sqrt(3)
    features[:, -1] = 1
    truth = 1 / (1 + np.exp(-features @ np.array([3.0, -3.0, 2.0, 0, 0, 0, 0.5])))
    known = facts(pool, Wants(hidden=6)).replace(features=jnp.asarray(features, jnp.float32))
    tracker, estimate = logistic_regression(width=7, window=400)
    state, memory, observe = initial_state(known), tracker.init(pool), jax.jit(tracker.observe)
    for step in range(8):
        question = np.arange(50 * step, 50 * step + 50)
        groups = collected(question, rng.binomial(8, truth[question]), np.full(50, 8))
        memory = observe(memory, state, groups, jnp.int32(step))
    mean = np.asarray(estimate(memory, state, jnp.arange(400, pool), KEY).mean)
    for low in np.arange(0, 1, 0.2):
        among = (mean >= low) & (mean < low + 0.2)
        assert among.sum() > 50
        assert truth[400:][among].mean() == pytest.approx(mean[among].mean(), abs=0.06)


def test_of_more_groups_than_the_window_holds_the_last_stay():
    tracker, state = logistic_regression(width=2, window=8).tracker, initial_state(facts(POOL, Wants(hidden=1)))
    memory = tracker.observe(tracker.init(POOL), state, collected(np.arange(20), 1, 4), jnp.int32(0))
    assert sorted(memory.place.tolist()) == list(range(12, 20))
    memory = tracker.observe(memory, state, collected(np.arange(30, 33), 2, 4), jnp.int32(1))
    assert sorted(memory.place.tolist()) == [*range(15, 20), 30, 31, 32]
    assert memory.step[memory.place >= 30].tolist() == [1, 1, 1]


# --------------------------------------------------------------------------------------------------------------- draws
@functools.cache
def over_keys(select, k, count=6000):
    many = jax.vmap(lambda worths, key: select(worths, key, k=k), in_axes=(None, 0))
    return lambda worths: jax.jit(many)(worths, jax.random.split(KEY, count))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gumbel_inclusion_is_that_of_drawing_one_at_a_time(k):
    weights = np.array([0.05, 0.1, 1.0, 2.0, 0.5, 0.35])
    indices, mask = over_keys(selectors.gumbel_top_k, k)(jnp.asarray(weights, jnp.float32))
    assert np.all(mask)
    found = np.bincount(np.asarray(indices).ravel(), minlength=6) / 6000
    np.testing.assert_allclose(found, reference.plackett_luce_inclusion(weights, k), atol=0.025)


def test_gumbel_draws_weight_zero_last_and_nan_never():
    indices, mask = over_keys(selectors.gumbel_top_k, 4, 200)(jnp.array([0.0, np.nan, 1.0, 2.0, 0.0]))
    assert set(np.asarray(indices[:, :2]).ravel().tolist()) == {2, 3}
    assert {tuple(row) for row in np.sort(indices[:, 2:]).tolist()} == {(0, 4)}
    assert np.all(mask)
    assert not over_keys(selectors.gumbel_top_k, 5, 20)(jnp.array([0.0, np.nan, 1.0, 2.0, 0.0]))[1].all(axis=1).any()


@functools.cache
def _softmax():
    return selectors.softmax(0.5)


@functools.cache
def _rank_power():
    return selectors.rank_power(0.5)


def test_softmax_and_rank_power_draw_in_proportion():
    worths = np.array([0.3, -0.2, 0.9, 0.0])
    for select, weights in ((_softmax(), np.exp(worths / 0.5)), (_rank_power(), np.array([2, 4, 1, 3.0]) ** -2)):
        found = np.bincount(np.asarray(over_keys(select, 2)(jnp.asarray(worths, jnp.float32))[0]).ravel(), minlength=4)
        np.testing.assert_allclose(found / 6000, reference.plackett_luce_inclusion(weights.tolist(), 2), atol=0.025)


def test_a_mixture_fills_its_places_from_two_scores():
    select = selectors.mixture(0.5, selectors.top_k, selectors.top_k)
    pair = jnp.array([5.0, 4, 3, 2, 1, 0]), jnp.array([9.0, 0, 1, 2, 3, 4])
    indices, mask = select(pair, KEY, k=5)
    assert indices.tolist() == [0, 1, 5, 4, 3]
    assert mask.all()
    few = jnp.array([True, False, False, False, True, False])
    indices, mask = select(pair, KEY, k=5, eligible=few)
    assert sorted(indices[mask].tolist()) == [0, 4]


def test_a_mixture_hands_on_what_its_first_part_cannot_fill():
    """The first may take entries 0 and 1 only, and has three places."""
    select = selectors.mixture(0.5, selectors.top_k, selectors.top_k)
    first, second = jnp.array([2.0, 1, np.nan, np.nan, np.nan, np.nan, np.nan]), jnp.array([9.0, 8, 1, 2, 3, 4, 5])
    indices, mask = select((first, second), KEY, k=6)
    assert mask.all()
    assert indices.tolist() == [0, 1, 6, 5, 4, 3]
    nobody = jnp.full(7, jnp.nan)
    indices, mask = select((nobody, second), KEY, k=6)
    assert mask.all()
    assert indices.tolist() == [0, 1, 6, 5, 4, 3]
    for key in jax.random.split(KEY, 20):  # equal worths: nobody comes twice
        indices, mask = select((nobody, jnp.zeros(7)), key, k=6)
        assert mask.all()
        assert len(set(indices.tolist())) == 6


@pytest.mark.parametrize(
    ("share", "k", "some"), [(0.29, 100, 29), (0.57, 100, 57), (0.6, 4, 2), (1.0, 7, 7), (0, 7, 0)]
)
def test_a_mixture_loses_no_place_to_rounding(share, k, some):
    assert 0.29 * 100 < 29
    select = selectors.mixture(share, selectors.top_k, selectors.top_k)
    indices, _ = select((jnp.arange(200.0), -jnp.arange(200.0)), KEY, k=k)
    assert np.sum(np.asarray(indices) >= 100) == some


def test_two_levels_draw_a_group_by_softmax_and_a_question_within():
    groups = jnp.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    classes = Classes(jnp.arange(10.0), groups, jnp.log(jnp.array([0.2, 0.5, 0.3, 9.0])))
    indices, mask = (np.asarray(x) for x in over_keys(_per_class(), 1)(classes))
    assert mask.all()
    found = np.bincount(np.asarray(groups)[indices].ravel(), minlength=3) / 6000
    np.testing.assert_allclose(found, [0.2, 0.5, 0.3], atol=0.025)  # a group without questions draws nothing
    assert set(indices.ravel().tolist()) == {5, 7, 9}  # the best of each
    indices, mask = (np.asarray(x) for x in over_keys(_per_class(), 10, 50)(classes))
    assert all(sorted(row) == list(range(10)) for row in indices.tolist())  # groups run out: others take their places


@functools.cache
def _per_class():
    return selectors.per_class()


def test_a_draw_from_a_large_pool_is_uniform_over_pairs():
    """2 k <= size, so that numbers come from a stream: all ordered pairs of 17 are equally likely."""
    draws = np.asarray(jax.jit(jax.vmap(lambda key: selectors.draw(key, size=17, k=2)))(jax.random.split(KEY, 27200)))
    assert np.all(draws[:, 0] != draws[:, 1])
    counts = np.bincount(17 * draws[:, 0] + draws[:, 1], minlength=289).reshape(17, 17)[~np.eye(17, dtype=bool)]
    assert np.sum((counts - 100) ** 2) / 100 < 367  # upper 1e-4 quantile of chi-square with 271 degrees of freedom


def test_a_random_pool_leaves_out_what_was_collected():
    offer = jax.jit(sources.random_pool(1000, 32))
    state = initial_state(facts(1000, Wants()))
    places, eligible = offer(state, Simulation.empty(4), KEY)
    assert len(set(places.tolist())) == 32
    assert eligible.all()
    taken = collected(np.asarray(places)[:4], np.zeros(4), np.ones(4))
    again, eligible = offer(state, taken, KEY)
    np.testing.assert_array_equal(again, places)
    assert np.flatnonzero(~np.asarray(eligible)).tolist() == [0, 1, 2, 3]


def test_the_least_visited_are_those_of_the_source_that_can_still_come():
    """Questions 2 and 5 were visited least, but have groups in this step: those that come next are next."""
    state = initial_state(facts(6, Wants())).replace(visits=jnp.array([3, 1, 0, 1, 2, 0]))
    offer = sources.least_visited(sources.whole_pool(6))
    assert np.flatnonzero(offer(state, Simulation.empty(3), KEY)[1]).tolist() == [2, 5]
    both = collected(np.array([5, 2]), np.zeros(2), np.ones(2))
    assert np.flatnonzero(offer(state, both, KEY)[1]).tolist() == [1, 3]
    assert not offer(state, collected(np.arange(6), np.zeros(6), np.ones(6)), KEY)[1].any()


# --------------------------------------------------------------------------------------------------------- allocations
def certain(rates):
    return Estimate(jnp.asarray(rates, jnp.float32), jnp.zeros(len(rates)))


@pytest.mark.parametrize("seed", range(4))
def test_the_knapsack_reaches_the_dynamic_programme(seed):
    rng = np.random.default_rng(seed)
    rates = rng.random(5).round(2)
    budget = int(rng.integers(10, 40))
    found = np.asarray(allocators.knapsack(certain(rates), budget=budget, least=2, most=9))
    assert found.sum() == budget
    assert np.all((found >= 2) & (found <= 9))
    best, value = reference.knapsack(rates, budget, 2, 9)
    assert sum(value(p, int(n)) for p, n in zip(rates, found, strict=True)) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_neyman_rounds_the_continuous_optimum(seed):
    rng = np.random.default_rng(seed)
    rates, lengths = rng.uniform(0.05, 0.95, 6), rng.uniform(10, 100, 6)
    found = np.asarray(allocators.neyman(certain(rates), jnp.asarray(lengths), budget=120, least=1, most=100))
    weights = np.sqrt(rates * (1 - rates) / lengths)
    assert found.sum() == 120
    np.testing.assert_allclose(found, 120 * weights / weights.sum(), atol=1.01)
    bounded = np.asarray(allocators.neyman(certain(rates), jnp.asarray(lengths), budget=60, least=8, most=12))
    assert bounded.sum() == 60
    assert np.all((bounded >= 8) & (bounded <= 12))


def test_a_constant_allocation_and_ties_spread():
    assert allocators.constant(certain([0.1, 0.9]), samples=3).tolist() == [3, 3]
    even = allocators.knapsack(certain([0.3] * 4), budget=14, least=2, most=8)
    assert sorted(even.tolist()) == [3, 3, 4, 4]
    assert sorted(allocators.knapsack(certain([0.0, 1.0, 0.0]), budget=9, least=2, most=8).tolist()) == [3, 3, 3]


# --------------------------------------------------------------------------------------------- values, prices and gates
def test_values_of_planted_beliefs():
    belief = Estimate(jnp.array([0.0, 0.25, 0.5, 1.0]), jnp.array([0.0, 0.05, 0.01, 0.0]))
    expected = {
        values.variance: [0, 0.1875, 0.25, 0],
        values.expected_variance: [0, 0.1375, 0.24, 0],
        values.deviation: [0, np.sqrt(0.1875), 0.5, 0],
        values.nearness: [-0.25, -0.0625, 0, -0.25],
        values.hard_variance: [0, 0.25 * 0.75**2, 0.125, 0],
        values.failure: [1, 0.75, 0.5, 0],
    }
    for value, numbers in expected.items():
        np.testing.assert_allclose(value(belief), numbers, rtol=1e-6, err_msg=value.__name__)
    np.testing.assert_allclose(values.mixed(belief, 2), [0, 0.375, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(values.band(belief, 0.25, 0.5), [0, 1, 1, 0])
    np.testing.assert_allclose(values.progress(belief, certain([0.5] * 4)), [0.5, 0.25, 0, 0.5])
    np.testing.assert_allclose(values.corrected_variance(belief, jnp.array([4.0, 4, 2, 1])), [0, 0.25, 0.5, np.nan])


def variance_over_groups(rate, samples):
    """Of the advantage of an outcome, averaged over what the other rollouts may be."""
    chance, mean = stats.binom.pmf(np.arange(samples), samples - 1, rate), []
    for own in (0, 1):
        groups = [np.array([own] + [1] * k + [0] * (samples - 1 - k)) for k in range(samples)]
        mean.append(chance @ [(own - group.mean()) / (group.std(ddof=1) or 1) for group in groups])
    return rate * (1 - rate) * (mean[1] - mean[0]) ** 2


@pytest.mark.parametrize("samples", [3, 8])
def test_the_marginal_variance_is_an_expectation_over_rates_and_groups(samples):
    counts = [(1.0, 1.0), (3.0, 9.0), (40.0, 2.5)]
    belief = estimators.beta(*jnp.array(counts).T)
    for found, ab in zip(values.marginal_variance(belief, samples), counts, strict=True):
        expected = stats.beta(*ab).expect(lambda p: variance_over_groups(p, samples))
        assert float(found) == pytest.approx(expected, rel=2e-4)
    np.testing.assert_allclose(values.marginal_variance(belief, 2), values.expected_variance(belief) / 2, rtol=1e-4)
    sure = Estimate(jnp.array([0.3]), jnp.array([0.0]))
    np.testing.assert_allclose(values.marginal_variance(sure, samples), variance_over_groups(0.3, samples), rtol=1e-3)


def test_prices_divide_and_exclude():
    ones, groups = jnp.ones(4), jnp.array([0, 0, 0, 1])
    np.testing.assert_allclose(prices.balanced(ones, groups, 2), [1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-6)
    retired = prices.retired(ones, jnp.array([0.9, 1.0, 1.0, 0.2]), jnp.array([9.0, 9, 1, 9]), threshold=0.9, least=2)
    np.testing.assert_array_equal(retired, [np.nan, np.nan, 1, 1])


def test_prices_of_length_and_of_visits():
    """Expected lengths (30 + 4) / 3, (10 + 4) / 9 and 4; a question that is read backwards and twice."""
    state = initial_state(facts(3, Wants())).replace(
        length_sum=jnp.array([30.0, 10.0, 0.0]), rollouts=jnp.array([2.0, 8.0, 0.0]), visits=jnp.array([6, 2, 0])
    )
    places, worth = jnp.array([2, 1, 0, 2]), jnp.array([1.0, 2.0, 3.0, np.nan])
    lengths = np.array([4, 14 / 9, 34 / 3, 4])
    for power in (0.0, 0.5, 1.0):
        found = prices.per_length(worth, state, places, power=power)
        np.testing.assert_allclose(found, np.array([1, 2, 3, np.nan]) / lengths**power, rtol=1e-6)
    np.testing.assert_allclose(
        prices.per_visit(worth, state, places, scale=4.0), [1, 2 / 1.5, 3 / 2.5, np.nan], rtol=1e-6
    )


def test_gates_let_through_what_they_say():
    groups = collected(np.arange(6), np.array([0, 1, 2, 3, 4, 0]), np.array([4, 4, 4, 4, 4, 0]))
    groups.round[:] = [0, 0, 1, 1, 1, -1]
    groups.rollouts[:] = [4, 4, 4, 2, 4, 0]

    def passed(gate):
        return np.flatnonzero(~np.isnan(gate(groups))).tolist()

    assert passed(gates.everything) == [0, 1, 2, 3, 4]
    assert passed(gates.only_mixed) == [1, 2, 3]
    assert passed(gates.within(0.5, 1.0)) == [2, 3, 4]
    assert passed(gates.preferring(gates.only_mixed)) == [0, 1, 2, 3, 4]
    assert np.argsort(-np.asarray(gates.preferring(gates.only_mixed)(groups)))[:5].tolist() == [1, 2, 3, 0, 4]
    assert passed(gates.least_variance(0.8, 4)) == [2]
    assert passed(gates.least_variance(0.7, 4)) == [1, 2, 3]
    assert passed(gates.advantages_in(0.0, 0.4)) == [1, 3]
    assert passed(gates.of_round(1, gates.everything)) == passed(gates.of_last_round(gates.everything)) == [2, 3, 4]
    assert passed(gates.of_size(4, gates.only_mixed)) == [1, 2]
    assert passed(gates.either(gates.within(0, 0), gates.within(1, 1))) == [0, 4]
    assert gates.largest_variance(5) == pytest.approx(6 / 25)


# --------------------------------------------------------------------------------------------------------- controllers
def by_features(state, places, key):
    return Estimate(jax.nn.sigmoid(2 * state.facts.features[places, 0]), jnp.zeros(places.shape))


TRACKERS = {
    "three states": dynamics.three_states(),
    "runs": controllers.runs(targets=(0.1, 0.2)),
    "variance bank": buffers.variance_bank(0.7, 0.5, 0.25),
    "last signal": controllers.last_signal(),
    "heights": controllers.heights(3, threshold=0.3, least=2),
    "trap detector": traps.trap_detector(by_features),
}


def remembered(tracker, order):
    """Memory after the history and an update on each of its steps, the questions renamed by `order`."""
    state = initial_state(jax.tree.map(lambda x: jnp.zeros_like(x).at[order].set(x), facts(POOL, Wants(hidden=1))))
    memory = tracker.init(POOL)
    for step, (question, successes, attempts) in enumerate(history()):
        groups, size = collected(order[question], successes, attempts), jnp.asarray(successes / (1 + attempts))
        signals = controllers.GroupSignals(size, jnp.zeros_like(size))
        memory = tracker.observe(memory, state, groups, jnp.int32(step))
        state = remember(state, groups, jnp.int32(step))
        memory = tracker.feedback(memory, state, groups.place, groups.attempts > 0, signals, jnp.int32(step))
    return memory


@pytest.mark.parametrize("name", TRACKERS)
def test_renaming_questions_renames_what_is_remembered(name):
    """What is kept of each question moves with it; what is kept of all, or of categories, stays."""
    order = np.random.default_rng(1).permutation(POOL)
    plain, renamed = (remembered(TRACKERS[name], o) for o in (np.arange(POOL), order))
    start = TRACKERS[name].init(POOL)
    moved = [
        not np.array_equal(a, b, equal_nan=True) for a, b in zip(*map(jax.tree.leaves, (plain, start)), strict=True)
    ]
    assert any(moved)
    for before, after in zip(jax.tree.leaves(plain), jax.tree.leaves(renamed), strict=True):
        of_questions = before.ndim > 0 and before.shape[0] == POOL
        np.testing.assert_allclose(before, after[order] if of_questions else after, rtol=1e-5, atol=1e-5)


def test_levels_are_quantiles_of_what_was_measured():
    easiness = jnp.array([1.0, 0.9, 0.5, 0.4, 0.1, 0.0, np.nan])
    assert controllers.quantile_levels(easiness, jnp.arange(7), 3).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert set(controllers.quantile_levels(jnp.full(5, jnp.nan), jnp.arange(5), 3).tolist()) == {2}
    assert len(set(controllers.quantile_levels(jnp.zeros(5), jnp.arange(5), 3).tolist())) == 1


def test_the_window_of_a_category_keeps_its_last_groups():
    """Five groups of one category at once in a window of three, beside another category."""
    tracker = controllers.category_window(3, 3)
    state = initial_state(facts(30, Wants()))
    signals = controllers.GroupSignals(jnp.arange(1.0, 8.0), jnp.zeros(7))
    question = jnp.array([0, 3, 1, 6, 9, 12, 2])  # categories 0 0 1 0 0 0 2
    mask = jnp.array([True] * 6 + [False])
    memory = tracker.feedback(tracker.init(30), state, question, mask, signals, jnp.int32(0))
    assert sorted(memory.ring[0].tolist()) == [4, 5, 6]
    assert sorted(memory.ring[1].tolist()) == [0, 0, 3]
    assert memory.groups.tolist() == [5, 1, 0]


def test_a_score_says_what_an_unknown_is_worth():
    from lilo_jax.curriculum import compose, everything, latest, nearness, of_belief, once, random_pool
    from lilo_jax.curriculum.features import no_facts

    belief = latest()
    for unknown, asked in ((None, 0), (-0.1, 4)):
        rule = compose(
            source=random_pool(POOL, 20),
            worth=of_belief(belief, nearness, unknown=unknown),
            rounds=once(4, 8),
            gate=everything,
            count=4,
            remembers={"success": belief.tracker},
        )
        assert rule.train_rows == 32
        state = rule.init(no_facts(POOL))
        assert int(rule.propose(state, Simulation.empty(4), KEY).mask.sum()) == asked
        state = rule.observe(state, collected([3, 5], [4, 0], [8, 8]), jnp.int32(0))
        worths = of_belief(belief, nearness, unknown=unknown)(state, jnp.array([3, 5, 7]), KEY)
        np.testing.assert_allclose(worths, [0, -0.25, np.nan if unknown is None else unknown])
