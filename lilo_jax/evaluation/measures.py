"""Accuracy measures over repeated samples of many questions, with their intervals; NumPy in, numbers out."""

import math
from collections.abc import Hashable, Sequence

import numpy as np

CONFIDENCE_Z = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""
RESAMPLES = 2000


def pass_at_k(attempts: np.ndarray, correct: np.ndarray, *, k: int) -> np.ndarray:
    """The unbiased estimate of the chance that one of k fresh samples is correct, for every question.

    pass@k = 1 - C(n - c, k) / C(n, k) with n = `attempts` and c = `correct`; for k = 1 it is c / n.

    Args:
        attempts: int [Q], graded samples.
        correct: int [Q], correct ones among them.
        k: samples that count.

    Returns:
        float64 [Q]; NaN where there are fewer than k attempts.

    Source: Chen et al. 2021 (Codex), equation 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    values = [
        math.nan if n < k else 1 - math.comb(int(n - c), k) / math.comb(int(n), k)
        for n, c in zip(attempts, correct, strict=True)
    ]
    return np.array(values, np.float64)


def majority(answers: Sequence[Hashable | None]) -> int | None:
    """The index of the sample that a vote over answers elects: the first one with the most frequent answer.

    A tie goes to the answer that occurs first.  None does not vote; without any vote the result is None.
    """
    first: dict[Hashable, int] = {}
    votes: dict[Hashable, int] = {}
    for i, answer in enumerate(answers):
        if answer is not None:
            first.setdefault(answer, i)
            votes[answer] = votes.get(answer, 0) + 1
    if not votes:
        return None
    elected = max(votes, key=lambda answer: (votes[answer], -first[answer]))
    return first[elected]


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool | None], *, k: int) -> float:
    """How often a vote among k samples is correct, over the disjoint blocks of k consecutive samples.

    Args:
        answers: one per sample, equal ones being the same answer; None has none.
        correct: of each sample; None if its grader failed, in which case it does not vote.
        k: samples of a vote; those beyond the last whole block are not used.

    Returns:
        A share; NaN if there are fewer than k samples.  A block without votes is wrong.
    """
    voters = [answer if ok is not None else None for answer, ok in zip(answers, correct, strict=True)]
    outcomes = []
    for start in range(0, len(voters) - k + 1, k):
        elected = majority(voters[start : start + k])
        outcomes.append(elected is not None and bool(correct[start + elected]))
    return float(np.mean(outcomes)) if outcomes else math.nan


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)

    Args:
        successes: need not be whole: a mean over several samples per question, times the questions, gives an interval
            that is too wide rather than too narrow.
        trials: n; 0 gives (0, 1).

    Source: Wilson 1927.
    """
    if not trials:
        return 0.0, 1.0
    share, z2 = successes / trials, CONFIDENCE_Z**2
    scale = 1 + z2 / trials
    centre = (share + z2 / (2 * trials)) / scale
    half = CONFIDENCE_Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / scale
    return max(centre - half, 0.0), min(centre + half, 1.0)


def bootstrap(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile interval of a mean over questions, from resampling the questions.

    Args:
        values: float [Q]; NaN is left out.
        seed: of the resampling.
    """
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
