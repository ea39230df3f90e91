"""What an audit asks, and how good a belief about success rates is: NumPy in, numbers out.

An audit rolls out questions that nobody chose.  Of question i it knows the belief m_i that the curriculum had, and a
reference: s_i successes of n_i rollouts.  s (n - s) / (n (n - 1)) is the unbiased estimate of the question's
learnability p (1 - p).
"""

import dataclasses
from typing import Annotated

import numpy as np
from annotated_types import Ge

from lilo_jax.bounds import Count, Whole
from lilo_jax.errors import UsageError

BINS = 10
"""Bins of equal width for the calibration error."""
CHOSEN = 8
"""The regret is that of choosing one in so many of the audited questions."""


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Rollouts of training questions drawn uniformly, which measure what the curriculum believes and change nothing."""

    questions: Whole = 0
    """audited at a time; 0: none are"""
    every: Count = 1
    """steps between audits"""
    samples: Annotated[int, Ge(2)] = 64
    """rollouts per audited question, at least 2"""

    def check(self, pool_size: int) -> None:
        """Raises `UsageError` if a pool of that size cannot be audited so."""
        if self.questions > pool_size:
            raise UsageError(f"--audit.questions must be at most the {pool_size} of the pool, got {self.questions}")


def audit_measures(
    belief: np.ndarray | None, successes: np.ndarray, attempts: np.ndarray, rewards: np.ndarray
) -> dict[str, float | None]:
    """All measures of an audit by name; None where there is nothing to measure.

    `success_mean`, `reward_mean` and `learnability_mean` are unbiased estimates for the whole pool, whatever the
    curriculum trains on; `mixed_fraction` is the share of questions with right and wrong attempts.
    `brier`, `ece`, `auroc` (of being solved more often than not), `spearman` (of p (1 - p)) and `regret` judge the
    belief, and are absent without one.

    Args:
        belief: float [Q], in [0, 1]; NaN where nothing is believed: such questions are left out of the measures of the
            belief.  None: there is no belief.
        successes, attempts: [Q], of the reference; a question with fewer than two attempts is left out of everything.
        rewards: float [Q], sums over the attempts.
    """
    measured = attempts > 1
    successes, attempts, rewards = (np.asarray(x, np.float64)[measured] for x in (successes, attempts, rewards))
    learnability = reference_learnability(successes, attempts)
    found = {
        "success_mean": _mean(successes / attempts),
        "reward_mean": _mean(rewards / attempts),
        "learnability_mean": _mean(learnability),
        "mixed_fraction": _mean((successes > 0) & (successes < attempts)),
    }
    if belief is None:
        return found
    belief = np.asarray(belief, np.float64)[measured]
    known = ~np.isnan(belief)
    belief, successes, attempts, learnability = (x[known] for x in (belief, successes, attempts, learnability))
    variance = belief * (1 - belief)
    return found | {
        "brier": brier(belief, successes, attempts),
        "ece": calibration_error(belief, successes / attempts),
        "auroc": auroc(belief, successes / attempts > 0.5),
        "spearman": rank_correlation(variance, learnability),
        "regret": regret(variance, learnability, max(len(belief) // CHOSEN, 1)),
    }


def reference_learnability(successes: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """Unbiased estimate of p (1 - p), float64 [Q]: s (n - s) / (n (n - 1)); attempts of at least 2."""
    return successes * (attempts - successes) / (attempts * (attempts - 1))


def brier(belief: np.ndarray, successes: np.ndarray, attempts: np.ndarray) -> float | None:
    """Mean over questions of the mean squared error against single outcomes: of (m - 1)^2 s / n + m^2 (n - s) / n.

    Its expectation is that of (m - p)^2 + p (1 - p): the mean learnability is what the best belief would score.

    Source: Brier 1950.
    """
    rate = successes / attempts
    return _mean((belief - 1) ** 2 * rate + belief**2 * (1 - rate))


def calibration_error(belief: np.ndarray, rate: np.ndarray, bins: int = BINS) -> float | None:
    """Expected calibration error: |mean belief - mean rate| in each bin of beliefs, weighted by the bin's questions.

    Bins are of equal width and hold their lower edge, the last one both.  Sampling noise of the rates adds to it.

    Source: Guo et al. 2017, equation 3.
    """
    if not belief.size:
        return None
    index = np.minimum((belief * bins).astype(int), bins - 1)
    difference = np.bincount(index, weights=belief - rate, minlength=bins)
    return float(np.abs(difference).sum() / len(belief))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's: Pearson's correlation of the ranks, those of equal values averaged; None if all of one are equal."""
    a, b = (ranks(v) - (len(v) - 1) / 2 for v in (x, y))
    norm = np.sqrt(np.sum(a**2) * np.sum(b**2))
    return float(np.sum(a * b) / norm) if norm > 0 else None


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance that a positive question scores above a negative one, ties counting half; None without either kind.

    Source: Hanley and McNeil 1982.
    """
    ones, zeros = int(np.sum(positive)), int(np.sum(~positive))
    if not ones or not zeros:
        return None
    return float((ranks(scores)[positive].mean() - (ones - 1) / 2) / zeros)


def ranks(values: np.ndarray) -> np.ndarray:
    """Float64 [Q]: how many values are smaller, and half of the others that are equal."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - count + (count - 1) / 2)[index]


def regret(scores: np.ndarray, learnability: np.ndarray, count: int) -> float | None:
    """Mean learnability of the `count` most learnable questions, less that of the `count` of highest score.

    Equal scores are chosen in the order of the questions, which an audit draws at random.  The best are picked by a
    noisy reference, so that even the best scores have some regret.

    Args:
        scores: float [Q], what the belief ranks by.
        learnability: float [Q], of the reference.
        count: chosen questions, at most Q.
    """
    if not scores.size:
        return None
    chosen = np.argsort(-scores, kind="stable")[:count]
    best = np.sort(learnability)[::-1][:count]
    return float(best.mean() - learnability[chosen].mean())


def by_visits(
    belief: np.ndarray, successes: np.ndarray, attempts: np.ndarray, rewards: np.ndarray, visits: np.ndarray
) -> dict[str, float | None]:
    """`audit_measures` of the questions that were rolled out never, once, and often: `brier_never`, `brier_once`, ...

    Args:
        belief, successes, attempts, rewards: as there.
        visits: int [Q], how often each question was rolled out before.
    """
    found: dict[str, float | None] = {}
    for name, mask in {"never": visits == 0, "once": visits == 1, "often": visits > 1}.items():
        measures = audit_measures(belief[mask], successes[mask], attempts[mask], rewards[mask])
        found |= {f"{measure}_{name}": value for measure, value in measures.items()}
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
