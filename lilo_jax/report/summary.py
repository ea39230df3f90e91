"""Runs of several arms over seeds, as one JSON-ready dictionary and as text for the terminal."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from lilo_jax.report.collapse import collapses
from lilo_jax.report.speedup import ENOUGH, Curve, accuracy_at, area_under, smooth, speedup
from lilo_jax.report.tables import Table, build_tables
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.json_lines import finite
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.run import learning_curve

Arms = Mapping[str, Mapping[int, RunDirectory]]
"""Arm name to seed to run."""

NOTE_WIDTH = 106
"""Columns of the notes under a table of the terminal."""
NAME_WIDTH = 21
"""Longest arm name in a table of the terminal."""

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the baseline's budget, at which accuracies are compared."""
SUCCESS_BUDGETS = ("generated_tokens", "steps")
"""Budgets at whose shares they are."""
ACCURACY, DIFFERENCE, ANY = (0.0, 1.0), (-1.0, 1.0), (-math.inf, math.inf)
"""What an accuracy, the difference between two, and any other number can be."""


def summarize(arms: Arms, split: str, baseline: str | None) -> dict[str, Any]:
    """Everything a report says in numbers, as a dictionary that survives JSON unchanged.

    Args:
        arms: finished runs, or unfinished ones, which count as far as they got.
        split: held-out split whose accuracy is compared.
        baseline: the arm that others are compared with; None, or a name that is not in `arms`, compares nothing.

    Returns:
        `baseline` (or None) and `split`.
        `arms`: {arm: [{`seed`, `accuracy`, `steps`, `generated_tokens`, ...}]}, by seed, all but the seed lists with
            one entry per evaluation: unsmoothed accuracy, and what had been spent of every one of `BUDGETS`.
        `speedup`: {arm: {budget: {`mean`, `low`, `high`, `reached`, `of`, `by_seed`}}} as in `Speedup`, for every arm
            but the baseline and for every one of `BUDGETS`.
        `start`, `final`: {arm: {`mean`, `low`, `high`, `by_seed`}}, first and last smoothed accuracy, with the 95%
            t-interval over seeds (the range of fewer than `ENOUGH`, None for one seed).
        `gap_to_baseline`: the same of the final accuracy less the baseline's on the same seed.
        `questions`: numbers of held-out questions of `split`, where evaluations say so.
        `at_budget`: {budget: {arm: {`25%`, ..., `100%`, `area`: as in `final`}}}, smoothed accuracy when an arm had
            spent that share of what the baseline (or the first arm) spent in all, and its mean on the way there.
        `collapses`: {arm: {seed: [what happened]}}; see `lilo_jax.report.collapse`.
        `zero_variance`: {arm: {`collected`, `admitted`}}, share of groups of several rollouts that were all right or
            all wrong, mean over steps, then over seeds; None if nothing was measured.
        `audit`: {arm: {measure: value}}, of `audit_measures`, mean over audits, then over seeds, if any.
        `ledger`: {arm: {entry: tokens or FLOPs}}, last ledger, mean over seeds.
        `unfinished`: {arm: [seed]}, runs that have not reached their last step.
    Keys of every `by_seed` are strings.  What is not a finite number is None.

    Example: one run, `runs/tiny` of the example of `run`, compared with nothing.

        >>> import lilo_jax
        >>> tiny = lilo_jax.load("runs/tiny").directory
        >>> summary = summarize({"uniform": {0: tiny}}, split="test", baseline=None)
        >>> summary["arms"]["uniform"][0]["steps"], summary["speedup"]
        ([0, 1, 2], {})
    """
    arms = {name: dict(sorted(runs.items())) for name, runs in arms.items()}
    baseline = baseline if baseline in arms else None
    curves = {name: {seed: read_curve(run, split) for seed, run in runs.items()} for name, runs in arms.items()}
    smoothed = {name: {s: smooth(curve.accuracy) for s, curve in own.items()} for name, own in curves.items()}
    final = {name: {seed: float(values[-1]) for seed, values in own.items()} for name, own in smoothed.items()}
    start = {name: {seed: float(values[0]) for seed, values in own.items()} for name, own in smoothed.items()}
    others = [name for name in arms if baseline is not None and name != baseline]
    summary = {
        "baseline": baseline,
        "split": split,
        "arms": {name: [_curve_record(seed, c) for seed, c in own.items()] for name, own in curves.items()},
        "speedup": {name: speedups(curves[str(baseline)], curves[name]) for name in others},
        "start": {name: interval_of(values, ACCURACY) for name, values in start.items()},
        "final": {name: interval_of(values, ACCURACY) for name, values in final.items()},
        "gap_to_baseline": {name: _gap(final[name], final[str(baseline)]) for name in others},
        "questions": _questions(arms, split),
        "at_budget": {budget: _at_shares(curves, baseline or next(iter(arms)), budget) for budget in SUCCESS_BUDGETS},
        "collapses": {name: _collapsed(runs, curves[name]) for name, runs in arms.items()},
        "zero_variance": {name: _zero_variance(runs.values()) for name, runs in arms.items()},
        "audit": {name: found for name, runs in arms.items() if (found := _audit(runs.values()))},
        "ledger": {name: _last_ledger(runs.values()) for name, runs in arms.items()},
        "unfinished": {name: [s for s, run in runs.items() if not run.is_done()] for name, runs in arms.items()},
    }
    return finite(summary)


def format_table(summary: Mapping[str, Any]) -> str:
    """A summary as plain text of at most 110 columns: arms, speed-ups, every seed, groups and tokens, footnotes.

    >>> import lilo_jax
    >>> tiny = lilo_jax.load("runs/tiny").directory
    >>> summary = summarize({"uniform": {0: tiny}, "lilo": {0: tiny}}, split="test", baseline="uniform")
    >>> print(format_table(summary).splitlines()[0])
    Accuracy on test (8 questions)
    """
    return "\n\n".join(plain(table) for table in build_tables(summary)) + "\n"


def read_curve(run: RunDirectory, split: str) -> Curve:
    """The learning curve of a run, for speed-ups; `RunError` if it has no evaluation on `split`."""
    curve = learning_curve(run, split)
    return Curve(curve.pop("accuracy"), curve)


def mean_interval(
    values: Iterable[float], within: tuple[float, float]
) -> tuple[float | None, float | None, float | None]:
    """Mean and 95% t-interval, no wider than what the values can be; nothing for no values.

    For fewer than `ENOUGH` values their range, for one none: a t-interval of three accuracies may be wider than all
    that accuracies can be.
    """
    x = np.array(list(values), np.float64)
    if not x.size:
        return None, None, None
    mean = float(x.mean())
    if x.size == 1:
        return mean, None, None
    if x.size < ENOUGH:
        return mean, float(x.min()), float(x.max())
    half = scipy.stats.t.ppf(0.975, x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return mean, float(max(mean - half, within[0])), float(min(mean + half, within[1]))


def interval_of(values: Mapping[int, float], within: tuple[float, float] = ANY) -> dict[str, Any]:
    """Mean over seeds with its 95% t-interval, or the range of fewer than `ENOUGH`, and the values."""
    mean, low, high = mean_interval(values.values(), within)
    return {"mean": mean, "low": low, "high": high, "by_seed": {str(seed): value for seed, value in values.items()}}


def _gap(values: Mapping[int, float], others: Mapping[int, float]) -> dict[str, Any]:
    return interval_of({seed: value - others[seed] for seed, value in values.items() if seed in others}, DIFFERENCE)


def _collapsed(runs: Mapping[int, RunDirectory], curves: Mapping[int, Curve]) -> dict[str, list[str]]:
    """What happened to each run that collapsed."""
    found = {str(seed): collapses(run, curves[seed]) for seed, run in runs.items()}
    return {seed: clauses for seed, clauses in found.items() if clauses}


def _curve_record(seed: int, curve: Curve) -> dict[str, Any]:
    spent = {budget: curve.spent[budget].tolist() for budget in BUDGETS}
    return {"seed": seed, "accuracy": curve.accuracy.tolist(), **spent}


def speedups(
    baseline: Mapping[int, Curve], arm: Mapping[int, Curve], budgets: Sequence[str] = BUDGETS
) -> dict[str, Any]:
    """`Speedup` in each budget, as dictionaries."""
    found = {}
    for budget in budgets:
        s = speedup(baseline, arm, budget)
        by_seed = {str(seed): ratio for seed, ratio in s.by_seed.items()}
        found[budget] = {
            "mean": s.mean,
            "low": s.low,
            "high": s.high,
            "median": s.median,
            "median_low": s.median_low,
            "median_high": s.median_high,
            "reached": s.reached,
            "of": s.of,
            "by_seed": by_seed,
        }
    return found


def _questions(arms: Arms, split: str) -> list[int]:
    """How many questions the held-out set has, in every run that says so."""
    runs = [run for own in arms.values() for run in own.values()]
    return sorted(
        {r["questions"] for run in runs for r in run.read("eval") if r["split"] == split and "questions" in r}
    )


def _at_shares(curves: Mapping[str, Mapping[int, Curve]], reference: str, budget: str) -> dict[str, Any]:
    """Accuracy of every arm at `SHARES` of the mean budget of the reference, and the mean up to there."""
    total = float(np.mean([curve.budget(budget)[-1] for curve in curves[reference].values()]))
    found: dict[str, Any] = {}
    for arm, own in curves.items():
        at = {
            f"{share:.0%}": interval_of({s: accuracy_at(c, budget, share * total) for s, c in own.items()}, ACCURACY)
            for share in SHARES
        }
        areas = {s: area for s, c in own.items() if (area := area_under(c, budget, total)) is not None}
        found[arm] = {**at, "area": interval_of(areas, ACCURACY)}
    return found


def _zero_variance(runs: Iterable[RunDirectory]) -> dict[str, float | None]:
    metrics = [run.read("metrics") for run in runs]
    kinds = ("collected", "admitted")
    return {kind: _mean_of_runs(metrics, f"curriculum/{kind}_zero_variance_fraction") for kind in kinds}


def _audit(runs: Iterable[RunDirectory]) -> dict[str, float | None]:
    metrics = [run.read("metrics") for run in runs]
    names = dict.fromkeys(key for records in metrics for r in records for key in r if key.startswith("audit/"))
    return {name.removeprefix("audit/"): _mean_of_runs(metrics, name) for name in names}


def _mean_of_runs(runs: list[list[dict[str, Any]]], key: str) -> float | None:
    """Mean over the steps of a run where `key` was measured, then over the runs that have any."""
    measured = [[r[key] for r in records if r.get(key) is not None] for records in runs]
    means = [float(np.mean(values)) for values in measured if values]
    return float(np.mean(means)) if means else None


def _last_ledger(runs: Iterable[RunDirectory]) -> dict[str, float]:
    last = [records[-1] for run in runs if (records := run.read("ledger"))]
    entries = [name for name in last[0] if name != "step"] if last else []
    return {name: float(np.mean([record.get(name, 0) for record in last])) for name in entries}


def plain(table: Table) -> str:
    """Aligned columns: those of text to the left, the others to the right."""
    rows = [table.columns, *([_cut(row[0]), *row[1:]] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < table.text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for note in table.notes:
        lines += textwrap.wrap(note, NOTE_WIDTH, subsequent_indent="  ")
    return "\n".join([table.title, *(f"  {line}" for line in lines)])


def _cut(name: str) -> str:
    """A name with its middle left out if it is too long: what tells arms apart stands at either end."""
    half = (NAME_WIDTH - 3) // 2
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}...{name[-half:]}"
