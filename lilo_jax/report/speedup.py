"""Speed-up of an arm over a baseline: the one definition, pure NumPy.

Accuracy is smoothed by a trailing mean of 3 evaluations.  The target of a seed is the baseline's own final smoothed
accuracy on that seed.  A budget (steps, generated tokens, FLOPs, and others) is read where a curve first reaches the
target, by linear interpolation between the evaluations on either side; the baseline's own crossing is read in the same
way, so that a baseline which was there long before its end gets credit for it.  The ratio of a seed is the baseline's
budget over the arm's: above 1 the arm needed less.  Over seeds: the geometric mean of those that arrived, and the
median of all, in which a seed that never arrived counts as one that needs more than it was given (Kaplan and Meier
1958); both with a percentile bootstrap over seeds, or with their range where there are fewer than `ENOUGH`.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

WINDOW = 3
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
ENOUGH = 5
"""Seeds from which on an interval is given; a bootstrap of fewer covers far less than it says, so their range is."""
ROUND_OFF = 1e-12
"""A smoothed accuracy this little below the target has reached it: sums of equal numbers differ in the last bit."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracy of one run against what it had cost, one entry per evaluation, in the order of training.

    Attributes:
        accuracy: [E], unsmoothed.
        spent: [E] for each budget, non-decreasing; what had been spent when the evaluation was made.

    >>> Curve(np.array([0.4, 0.6, 0.8]), {"steps": np.array([0, 50, 100])}).budget("steps")
    array([  0.,  50., 100.])
    """

    accuracy: np.ndarray
    spent: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        shapes = {np.shape(values) for values in (self.accuracy, *self.spent.values())}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or shape[0] == 0:
            raise ValueError("a curve needs arrays of one equal, positive length")

    def budget(self, name: str) -> np.ndarray:
        """What had been spent of a budget, float64 [E]."""
        if name not in self.spent:
            raise ValueError(f"no budget {name!r}; there are {', '.join(self.spent)}")
        return np.asarray(self.spent[name], np.float64)


@dataclasses.dataclass(frozen=True)
class Speedup:
    """How much less of a budget an arm needs than the baseline to reach the baseline's final accuracy.

    Attributes:
        mean: geometric mean of the ratios; None if no seed has one.
        low, high: 95% percentile bootstrap interval of the mean; with fewer than `ENOUGH` ratios the smallest and the
            largest; None with fewer than two.
        median: of all compared seeds, those that never arrived being slower than what they were given; None if fewer
            than half are known to have arrived.
        median_low, median_high: 95% percentile bootstrap interval of the median; `median_low` is 0 where more than 2.5%
            of the resamples have none.  With fewer than `ENOUGH` seeds the smallest, 0 if one never arrived, and the
            largest ratio; None with fewer than two.
        reached: seeds with a ratio.
        of: seeds compared: those that both have.
        by_seed: ratio of each compared seed; None where it is censored.
    """

    mean: float | None
    low: float | None
    high: float | None
    median: float | None
    median_low: float | None
    median_high: float | None
    reached: int
    of: int
    by_seed: dict[int, float | None]


def smooth(accuracy: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Trailing mean of `window` entries, float64 [E]; the first entries average what there is."""
    accuracy = np.asarray(accuracy, np.float64)
    return np.array([accuracy[max(end - window, 0) : end].mean() for end in range(1, len(accuracy) + 1)])


def first_crossing(curve: Curve, budget: str, target: float) -> float | None:
    """What `curve` had spent of `budget` when its smoothed accuracy first reached `target`; None if it never did.

    The crossing lies on the straight line between the first evaluation at or above the target and the one before.
    A curve that is there at its first evaluation has spent what that evaluation says.  A curve that falls below the
    target later has still reached it.
    """
    smoothed, spent = smooth(curve.accuracy), curve.budget(budget)
    there = np.flatnonzero(smoothed >= target - ROUND_OFF)
    if not there.size:
        return None
    after = int(there[0])
    if after == 0:
        return float(spent[0])
    before = after - 1
    share = min((target - smoothed[before]) / (smoothed[after] - smoothed[before]), 1.0)
    return float(spent[before] + share * (spent[after] - spent[before]))


def accuracy_at(curve: Curve, budget: str, spent: float) -> float:
    """Smoothed accuracy when so much of a budget had been spent, by linear interpolation; at the end if never."""
    return float(np.interp(spent, curve.budget(budget), smooth(curve.accuracy)))


def area_under(curve: Curve, budget: str, total: float) -> float | None:
    """Mean smoothed accuracy while a budget is spent from 0 to `total`; None if `total` is 0.

    By trapezoids; before its first evaluation a curve is as high as there, and after its last one as it was then.

    >>> area_under(Curve(np.array([0.5, 0.5]), {"steps": np.array([0, 5])}), "steps", 10)
    0.5
    """
    if total <= 0:
        return None
    inside = [spent for spent in curve.budget(budget) if 0 < spent < total]
    knots = np.array([0.0, *inside, total])
    return float(np.trapezoid([accuracy_at(curve, budget, knot) for knot in knots], knots) / total)


def speedup(baseline: Mapping[int, Curve], arm: Mapping[int, Curve], budget: str) -> Speedup:
    """Speed-up of `arm` over `baseline` in one budget, over the seeds that both have.

    A seed on which the arm never reaches the target is censored: counted in `of` and in the median, not in `reached`
    nor in the mean, which is then too favourable to the arm.  If both are there before anything is spent the ratio is
    1.  If only one of the two is, the ratio would be 0 or infinite and the seed is censored as well; in a budget that
    every step takes from, arms that start from the same weights come to this only if one of them paid before its first
    step.  What one of the two never spends has no ratio.

    Example: the arm is where the baseline ends after half of the steps.

        >>> slow = Curve(np.full(5, 0.5) + 0.1 * np.arange(5), {"steps": 20.0 * np.arange(5)})
        >>> fast = Curve(slow.accuracy, {"steps": 10.0 * np.arange(5)})
        >>> speedup({0: slow}, {0: fast}, "steps").mean
        2.0
    """
    seeds = sorted(baseline.keys() & arm.keys())
    by_seed = {seed: _ratio(baseline[seed], arm[seed], budget) for seed in seeds}
    ratios = np.array([ratio for ratio in by_seed.values() if ratio is not None])
    low, high = bootstrap_interval(ratios)
    most = {seed: _most(baseline[seed], arm[seed], budget) for seed in seeds if by_seed[seed] is None}
    bounds = np.array([bound for bound in most.values() if bound is not None])
    median, median_low, median_high = median_interval(ratios, bounds)
    return Speedup(
        mean=float(np.exp(np.log(ratios).mean())) if ratios.size else None,
        low=low,
        high=high,
        median=median,
        median_low=median_low,
        median_high=median_high,
        reached=ratios.size,
        of=len(by_seed),
        by_seed=by_seed,
    )


def bootstrap_interval(ratios: np.ndarray) -> tuple[float | None, float | None]:
    """95% percentile interval of the geometric mean of `ratios` [n] over resampled seeds.

    For n < `ENOUGH` their range, for n < 2 (None, None).  The resamples are the same for every call with the same n.
    """
    if len(ratios) < 2:
        return None, None
    if len(ratios) < ENOUGH:
        return float(ratios.min()), float(ratios.max())
    logs = np.log(ratios)
    chosen = np.random.default_rng(BOOTSTRAP_SEED).integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.percentile(logs[chosen].mean(axis=1), [2.5, 97.5])
    mean = logs.mean()
    return float(np.exp(min(low, mean))), float(np.exp(max(high, mean)))


def median_interval(ratios: np.ndarray, bounds: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Kaplan-Meier's median of ratios of which some are only known to be smaller, and its 95% bootstrap interval.

    Args:
        ratios: of the seeds that arrived [n].
        bounds: what the ratios of the others are smaller than [m].

    Example: a seed that never arrived, and had half of the baseline's budget, is the slowest of three.

        >>> median_interval(np.array([2.0, 3.0]), np.array([0.5]))[0]
        2.0
    """
    needed = 1 / np.concatenate([ratios, bounds])
    arrived = np.arange(len(needed)) < len(ratios)
    if not needed.size:
        return None, None, None
    median = float(_medians(needed[None], arrived[None])[0])
    if len(needed) < 2:
        return median or None, None, None
    if len(needed) < ENOUGH:
        return median or None, 0.0 if bounds.size else float(ratios.min()), float(ratios.max(initial=0))
    chosen = np.random.default_rng(BOOTSTRAP_SEED).integers(len(needed), size=(RESAMPLES, len(needed)))
    low, high = np.percentile(_medians(needed[chosen], arrived[chosen]), [2.5, 97.5], method="closest_observation")
    return median or None, float(low), float(high)


def _medians(needed: np.ndarray, arrived: np.ndarray) -> np.ndarray:
    """1 / Kaplan-Meier's median of each row; 0 where fewer than half are known to have arrived.

    Args:
        needed: share of the baseline's budget after which a seed arrived, or was given up, [rows, seeds].
        arrived: which of the two.
    """
    order = np.lexsort((~arrived, needed), axis=1)  # of equals those that arrived come first
    needed, arrived = (np.take_along_axis(x, order, axis=1) for x in (needed, arrived))
    waiting = np.arange(needed.shape[1], 0, -1)
    still = np.cumprod(np.where(arrived, 1 - 1 / waiting, 1), axis=1) <= 0.5 + ROUND_OFF
    first = np.argmax(still, axis=1)[:, None]
    return np.where(still.any(axis=1), 1 / np.take_along_axis(needed, first, axis=1)[:, 0], 0)


def _most(baseline: Curve, arm: Curve, budget: str) -> float | None:
    """What the ratio of an arm that never arrives is smaller than; None if that is not why it has none."""
    target = float(smooth(baseline.accuracy)[-1])
    own, given = first_crossing(baseline, budget, target), arm.budget(budget)[-1]
    if own is None or first_crossing(arm, budget, target) is not None:
        return None
    return own / float(given) if 0 < own < math.inf and 0 < given < math.inf else None


def _ratio(baseline: Curve, arm: Curve, budget: str) -> float | None:
    target = float(smooth(baseline.accuracy)[-1])
    own, other = first_crossing(baseline, budget, target), first_crossing(arm, budget, target)
    if own is None or other is None or not math.isfinite(own) or not math.isfinite(other):
        return None
    if not (baseline.budget(budget)[-1] > 0 and arm.budget(budget)[-1] > 0):
        return None
    if own == 0 and other == 0:
        return 1.0
    return own / other if own > 0 and other > 0 else None
