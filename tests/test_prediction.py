"""Prediction of success: its measures against counting, its regressions against SciPy, that nothing leaks."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from lilo_jax.device.regressions import fitted_logits
from lilo_jax.evaluation.calibration import auroc, rank_correlation
from lilo_jax.evaluation.prediction import (
    MEASURES,
    PENALTIES,
    agreement_of_halves,
    ceiling,
    correlation,
    cross_validated,
    folds_of,
    intervals,
    log_loss,
    measured,
    over_folds,
    share_at_top,
)


def drawn(seed, questions=60, width=3, samples=8, strength=2.0):
    """Features, successes and attempts; the first feature alone decides p."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((questions, width))
    attempts = rng.integers(2, samples + 1, questions).astype(float)
    p = scipy.special.expit(strength * features[:, 0] - 1)
    return features, rng.binomial(attempts.astype(int), p).astype(float), attempts


# ------------------------------------------------------------------------------------------------------- the measures
@pytest.mark.parametrize("seed", range(5))
def test_auroc_against_pairs(seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, 25) / 5, rng.random(25) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


def test_auroc_by_hand():
    assert auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    assert auroc(np.ones(4), np.array([True, False, True, True])) == 0.5
    assert auroc(np.arange(3.0), np.ones(3, bool)) is None


@pytest.mark.parametrize("seed", range(3))
def test_correlations_against_scipy(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, 30).astype(float), rng.random(30)
    assert correlation(x, y) == pytest.approx(scipy.stats.pearsonr(x, y)[0])
    assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y)[0])
    assert correlation(np.ones(4), np.arange(4.0)) is None


def test_log_loss_against_single_outcomes():
    predicted, successes, attempts = np.array([0.2, 0.9, 0.0]), np.array([1.0, 3, 0]), np.array([4.0, 3, 2])
    outcomes = [(0.2, 1), *[(0.2, 0)] * 3, *[(0.9, 1)] * 3, *[(1e-6, 0)] * 2]
    expected = -np.mean([np.log(m if right else 1 - m) for m, right in outcomes])
    assert log_loss(predicted, successes, attempts) == pytest.approx(expected)
    assert np.isfinite(log_loss(np.array([0.0, 1]), np.array([1.0, 0]), np.ones(2)))


def test_the_top_breaks_ties_at_random():
    scores, holds = np.array([3, 2, 2, 2, 1.0]), np.array([True, False, True, True, True])
    for count in (1, 2, 3, 4, 5):
        orders = [sorted(order, key=lambda i: -scores[i])[:count] for order in itertools.permutations(range(5))]
        assert share_at_top(scores, holds, count) == pytest.approx(np.mean([holds[order].mean() for order in orders]))


def test_measures_inside_folds_against_a_loop():
    _, successes, attempts = drawn(1)
    fold, predicted = folds_of(60, 4, 0), np.random.default_rng(2).random(60)
    rate = successes / attempts
    each = [
        measured(predicted[fold == k], successes[fold == k], attempts[fold == k], np.median(rate)) for k in range(4)
    ]
    found = dict(zip(MEASURES, over_folds(predicted, successes, attempts, fold), strict=True))
    assert found == pytest.approx({name: np.mean([one[name] for one in each]) for name in MEASURES})
    assert found["auroc"] == pytest.approx(
        np.mean([auroc(predicted[fold == k], rate[fold == k] > 0) for k in range(4)])
    )
    repeated = over_folds(predicted, successes, attempts, fold, np.tile(np.arange(60), 2))
    names = [list(MEASURES).index(name) for name in ("auroc", "spearman", "pearson", "log_loss")]
    np.testing.assert_allclose(repeated[names], [list(found.values())[i] for i in names])


def test_a_constant_ranks_nothing():
    _, successes, attempts = drawn(0)
    fold = folds_of(60, 5, 0)
    predicted = cross_validated(np.zeros((60, 1)), successes, attempts, fold)
    assert len(np.unique(predicted)) <= 5
    found = dict(zip(MEASURES, over_folds(predicted, successes, attempts, fold), strict=True))
    assert found["auroc"] == 0.5
    assert np.isnan(found["spearman"])
    assert predicted.mean() == pytest.approx(successes.sum() / attempts.sum(), abs=0.01)


def test_intervals_are_percentiles_of_what_is_known():
    draws = np.stack([np.arange(101.0), np.full(101, np.nan), np.where(np.arange(101) < 50, np.nan, 3.0)], axis=1)
    low, high = intervals(draws)
    np.testing.assert_allclose(low, [2.5, np.nan, 3])
    np.testing.assert_allclose(high, [97.5, np.nan, 3])


def test_folds_are_equal_parts_that_depend_on_the_seed():
    found = folds_of(23, 5, 0)
    assert sorted(np.bincount(found)) == [4, 4, 5, 5, 5]
    np.testing.assert_array_equal(found, folds_of(23, 5, 0))
    assert (found != folds_of(23, 5, 1)).any()


# ---------------------------------------------------------------------------------------------------- the regressions
@pytest.mark.parametrize("penalty", [0.01, 1.0, 1000.0])
def test_regressions_against_a_general_optimiser(penalty):
    features, successes, attempts = drawn(3)
    weights = attempts * (np.arange(60) % 3 > 0)
    rate = successes / attempts

    def loss(w):
        z = features @ w[:-1] + w[-1]
        return np.sum(weights * (np.logaddexp(0, z) - rate * z)) + penalty / 2 * w[:-1] @ w[:-1] + w[-1] ** 2 / 200

    best = scipy.optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    found = fitted_logits(*(np.asarray(x, np.float32) for x in (features, rate, weights[None], [penalty])))
    np.testing.assert_allclose(found[0, 0], features @ best[:-1] + best[-1], atol=2e-3)


def alone(features, successes, attempts, learns, penalty):
    """Predictions of one regression."""
    columns = (features, successes / attempts, (learns * attempts)[None], [penalty])
    return scipy.special.expit(np.asarray(fitted_logits(*(np.asarray(x, np.float32) for x in columns)), float)[0, 0])


def test_cross_validation_against_nested_loops():
    features, successes, attempts = drawn(4, questions=24, strength=0.5)
    fold = folds_of(24, 3, 0)
    expected = np.empty(24)
    chosen = set()
    for outer in range(3):
        losses = []
        for penalty in PENALTIES:
            predicted = np.full(24, np.nan)
            for inner in {0, 1, 2} - {outer}:
                learns = (fold != outer) & (fold != inner)
                predicted[fold == inner] = alone(features, successes, attempts, learns, penalty)[fold == inner]
            seen = fold != outer
            losses.append(log_loss(predicted[seen], successes[seen], attempts[seen]))
        best = PENALTIES[int(np.argmin(losses))]
        chosen.add(best)
        expected[fold == outer] = alone(features, successes, attempts, fold != outer, best)[fold == outer]
    np.testing.assert_allclose(cross_validated(features, successes, attempts, fold), expected, rtol=1e-4)
    assert len(chosen) > 1  # so that a wrong choice would show


def test_no_outcome_of_a_fold_reaches_its_predictions():
    features, successes, attempts = drawn(5, width=70)
    fold = folds_of(60, 5, 0)
    before = cross_validated(features, successes, attempts, fold)
    for held in (0, 3):
        turned = np.where(fold == held, attempts - successes, successes)
        after = cross_validated(features, turned, attempts, fold)
        np.testing.assert_array_equal(after[fold == held], before[fold == held])
        assert (after[fold != held] != before[fold != held]).any()


def test_noise_predicts_nothing_and_what_decides_p_predicts_all():
    scores = {"noise": [], "true": []}
    for seed in range(8):
        features, successes, attempts = drawn(10 + seed, questions=80, width=30)
        fold = folds_of(80, 5, seed)
        for name, columns in (("noise", features[:, 1:]), ("true", features[:, :1])):
            predicted = cross_validated(columns, successes, attempts, fold)
            scores[name].append(over_folds(predicted, successes, attempts, fold))
    noise, true = (dict(zip(MEASURES, np.nanmean(scores[name], axis=0), strict=True)) for name in ("noise", "true"))
    # One AUROC of 80 questions has a standard error of about 0.07.
    assert noise["auroc"] == pytest.approx(0.5, abs=4 * 0.07 / 8**0.5)
    at_best = ceiling(*drawn(10, questions=2000)[1:], seed=0)
    assert true["auroc"] == pytest.approx(at_best["auroc"], abs=0.05)
    assert true["spearman"] == pytest.approx(at_best["spearman"], abs=0.08)
    assert true["log_loss"] < noise["log_loss"] - 0.05


# --------------------------------------------------------------------------------------------------------- ceilings
def test_the_ceiling_is_that_of_the_distribution_of_p():
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 1.4, 4000)
    attempts = np.full(4000, 16.0)
    successes = rng.binomial(16, p).astype(float)
    expected = measured(p, successes, attempts, float(np.median(successes / 16)))
    found = ceiling(successes, attempts, seed=1, draws=5)
    assert found == pytest.approx(expected, abs=0.03)


def test_there_is_no_ceiling_where_counts_vary_less_than_chance():
    assert set(ceiling(np.full(20, 4.0), np.full(20, 8.0), 0)) == set(MEASURES)
    assert np.isnan(list(ceiling(np.full(20, 4.0), np.full(20, 8.0), 0).values())).all()


def test_halves_by_hand():
    correct = np.array([[1, 0, 1, 0], [0, 1, 0, np.nan], [1, 1, 0, 0.0], [0, 0, 0, 0]])
    # Rates of the first and third rollout 1, 0, .5, 0; of the second and fourth 0, 1, .5, 0.
    assert agreement_of_halves(correct) == pytest.approx(scipy.stats.spearmanr([1, 0, 0.5, 0], [0, 1, 0.5, 0])[0])
