"""How well success is predicted before a question is rolled out: cross-validation and measures, NumPy in, numbers out.

Of question i there are s_i successes in n_i rollouts, its rate is r_i = s_i / n_i, and what is predicted is m_i.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from lilo_jax.device.regressions import fitted_logits
from lilo_jax.evaluation.calibration import CHOSEN, auroc, rank_correlation, reference_learnability

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the ridge; the one that predicts best inside the training folds is taken."""
SAFE = 1e-6
"""Predictions stay so far from 0 and 1 in the log loss."""


# ----------------------------------------------------------------------------------------------------- predictions
def folds_of(questions: int, folds: int, seed: int) -> np.ndarray:
    """A fold of every question, int [Q], drawn at random; sizes differ by one at most."""
    return np.random.default_rng([seed, questions]).permutation(questions) % folds


def cross_validated(features: np.ndarray, successes: np.ndarray, attempts: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Predicted success rates, float64 [Q], each by a ridge regression that saw no outcome of the question's fold.

    The regression is binomial and logistic.  Its penalty is chosen without that fold as well: the one of least log loss
    over the other folds, when each of these is predicted from the rest.

    Args:
        features: [Q, D].
        successes, attempts: [Q].
        fold: [Q], 0 to K - 1; K at least 3.
    """
    last = int(fold.max()) + 1
    pairs = list(itertools.combinations_with_replacement(range(last), 2))
    learns = np.array([(fold != a) & (fold != b) for a, b in pairs])
    rate = successes / attempts
    logits = fitted_logits(
        features.astype(np.float32),
        rate.astype(np.float32),
        (learns * attempts).astype(np.float32),
        np.array(PENALTIES, np.float32),
    )
    found = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    without = {pair: found[:, i] for i, pair in enumerate(pairs)}
    predicted = np.empty(len(fold))
    for held in range(last):
        inner = np.empty((len(PENALTIES), len(fold)))
        for other in set(range(last)) - {held}:
            of = fold == other
            inner[:, of] = without[min(held, other), max(held, other)][:, of]
        seen = fold != held
        losses = [log_loss(m[seen], successes[seen], attempts[seen]) for m in inner]
        predicted[~seen] = without[held, held][np.argmin(losses)][~seen]
    return predicted


# -------------------------------------------------------------------------------------------------------- measures
def log_loss(predicted: np.ndarray, successes: np.ndarray, attempts: np.ndarray) -> float:
    """Mean over all rollouts of -log of the probability that was given to the outcome, in nats."""
    m = np.clip(predicted, SAFE, 1 - SAFE)
    return float(-np.sum(successes * np.log(m) + (attempts - successes) * np.log1p(-m)) / np.sum(attempts))


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's; None if all of one are equal."""
    a, b = x - x.mean(), y - y.mean()
    norm = np.sqrt(np.sum(a**2) * np.sum(b**2))
    return float(np.sum(a * b) / norm) if norm > 0 else None


def share_at_top(scores: np.ndarray, holds: np.ndarray, count: int) -> float:
    """The share of the `count` questions of highest score of which something holds; of equal scores a random order."""
    edge = np.sort(scores)[::-1][count - 1]
    above, level = scores > edge, scores == edge
    return float((holds[above].sum() + (count - above.sum()) * holds[level].mean()) / count)


MEASURES: Mapping[str, str] = {
    "auroc": "AUROC, p > 0",
    "auroc_median": "AUROC, p > median",
    "spearman": "Spearman, p",
    "pearson": "Pearson, p",
    "spearman_learnability": "Spearman, p(1-p)",
    "log_loss": "log loss",
    "mixed_at_top": "mixed in the top eighth",
}
"""What is measured, by name, as a table calls it."""


def measured(predicted: np.ndarray, successes: np.ndarray, attempts: np.ndarray, median: float) -> dict[str, float]:
    """`MEASURES` of predictions; NaN where there is nothing to measure.

    Args:
        predicted: m, [Q].
        successes, attempts: [Q].
        median: of the rates of all questions.
    """
    rate, variance = successes / attempts, predicted * (1 - predicted)
    mixed = (successes > 0) & (successes < attempts)
    found = {
        "auroc": auroc(predicted, rate > 0),
        "auroc_median": auroc(predicted, rate > median),
        "spearman": rank_correlation(predicted, rate),
        "pearson": correlation(predicted, rate),
        "spearman_learnability": rank_correlation(variance, reference_learnability(successes, attempts)),
        "log_loss": log_loss(predicted, successes, attempts),
        "mixed_at_top": share_at_top(variance, mixed, max(len(rate) // CHOSEN, 1)),
    }
    return {name: np.nan if value is None else value for name, value in found.items()}


def over_folds(
    predicted: np.ndarray,
    successes: np.ndarray,
    attempts: np.ndarray,
    fold: np.ndarray,
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """`measured` inside each fold, mean over the folds: float64 [measures].

    Questions of different folds are not compared: their predictions come from different regressions.  A constant
    would else rank below one half, for where a fold has more successes the others, from which it is predicted, have
    fewer.

    Args:
        predicted, successes, attempts, fold: [Q].
        chosen: places of the questions that count, repeated ones as often; None: all, once.
    """
    chosen = np.arange(len(fold)) if chosen is None else chosen
    median = float(np.median(successes / attempts))
    parts = [chosen[fold[chosen] == k] for k in np.unique(fold)]
    each = [list(measured(predicted[p], successes[p], attempts[p], median).values()) for p in parts if p.size]
    return _mean(np.array(each))


def intervals(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% percentile intervals over the first axis; NaN is left out."""
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(np.where(np.isnan(draws).all(axis=0), 0, draws), [2.5, 97.5], axis=0)
    unknown = np.isnan(draws).all(axis=0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without what is NaN; NaN where all are."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))


# ---------------------------------------------------------------------------------------------------------- ceilings
def agreement_of_halves(correct: np.ndarray) -> float | None:
    """Spearman's correlation of the rates in every other rollout with those in the rest; NaN marks no outcome."""
    halves = [np.nanmean(correct[:, start::2], axis=1) for start in (0, 1)]
    return rank_correlation(*halves)


def ceiling(successes: np.ndarray, attempts: np.ndarray, seed: int, draws: int = 200) -> dict[str, float]:
    """What a prediction would score that is the question's p itself: no feature can be expected to do better.

    Rates are taken to follow a Beta distribution, whose mean and variance are the unbiased estimates of the counts'
    own; questions and outcomes are drawn from it.

    Args:
        successes, attempts: [Q].
        seed: of the draws.
        draws: sets of Q questions.
    """
    rng = np.random.default_rng(seed)
    mean = float(np.mean(successes / attempts))
    spread = float(np.mean(successes * (successes - 1) / (attempts * (attempts - 1)))) - mean**2
    if not 0 < spread < mean * (1 - mean):
        return dict.fromkeys(MEASURES, np.nan)
    strength = mean * (1 - mean) / spread - 1
    found = []
    for _ in range(draws):
        p = rng.beta(mean * strength, (1 - mean) * strength, len(attempts))
        drawn = rng.binomial(attempts.astype(int), p).astype(float)
        found.append(list(measured(p, drawn, attempts, float(np.median(drawn / attempts))).values()))
    return dict(zip(MEASURES, _mean(np.array(found)).tolist(), strict=True))
