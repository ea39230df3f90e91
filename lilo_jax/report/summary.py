"""Runs of several arms over seeds, as one JSON-ready dictionary and as text for the terminal."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.speedup import Curve, smooth, speedup
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

_T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788)
"""97.5% quantiles of Student's t for 1 to 12 degrees of freedom."""


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
            t-interval over seeds (None for one seed).
        `gap_to_baseline`: the same of the final accuracy less the baseline's on the same seed.
        `zero_variance`: {arm: {`collected`, `admitted`}}, share of groups of several rollouts that were all right or
            all wrong, mean over steps, then over seeds; None if nothing was measured.
        `audit`: {arm: {measure: value}}, measures of `audit_measures`, mean over audits, then over seeds; None if
            nothing was measured.  Arms without an audit are left out.
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
        "start": {name: interval_of(values) for name, values in start.items()},
        "final": {name: interval_of(values) for name, values in final.items()},
        "gap_to_baseline": {name: interval_of(_paired(final[name], final[str(baseline)])) for name in others},
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
    Accuracy on test
    """
    return "\n\n".join(plain(table) for table in build_tables(summary)) + "\n"


def read_curve(run: RunDirectory, split: str) -> Curve:
    """The learning curve of a run, for speed-ups; `RunError` if it has no evaluation on `split`."""
    curve = learning_curve(run, split)
    return Curve(curve.pop("accuracy"), curve)


def mean_interval(values: Iterable[float]) -> tuple[float | None, float | None, float | None]:
    """Mean and 95% t-interval; no interval for one value, nothing for none."""
    x = np.array(list(values), np.float64)
    if not x.size:
        return None, None, None
    mean = float(x.mean())
    if x.size == 1:
        return mean, None, None
    half = _t_quantile(x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return mean, mean - half, mean + half


def _t_quantile(freedom: int) -> float:
    """97.5% quantile of Student's t: a table, then the first terms of its expansion about the normal quantile."""
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    z = 1.959964
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return z + first + second + third


def interval_of(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean over seeds with its 95% t-interval, and the values."""
    mean, low, high = mean_interval(values.values())
    return {"mean": mean, "low": low, "high": high, "by_seed": {str(seed): value for seed, value in values.items()}}


def _paired(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - others[seed] for seed, value in values.items() if seed in others}


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
