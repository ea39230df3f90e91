"""Figures of accuracy on held-out questions.

Every function returns None if no run has what it shows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.drawing import MUTED, PANELS, Drawing, budget_axis, legend_above, new_figure, styled, svg_of
from lilo_jax.report.speedup import WINDOW, Curve, smooth
from lilo_jax.report.summary import Arms
from lilo_jax.report.tables import MAIN_BUDGETS


@styled
def accuracy_figure(
    curves: Mapping[str, Mapping[int, Curve]],
    colours: Mapping[str, str],
    split: str,
    baseline: str | None,
    against: Sequence[str] = MAIN_BUDGETS,
) -> Drawing | None:
    """Accuracy, a panel for each budget: thin lines for seeds, thick ones for their mean."""
    if not any(curves.values()):
        return None
    rows = -(-len(against) // PANELS)
    figure, panels = new_figure(rows, min(len(against), PANELS), 3.3 * rows + 0.3, sharey=True)
    for ax in panels.flat[len(against) :]:
        ax.set_axis_off()
    for ax, budget in zip(panels.flat, against, strict=False):
        for arm, own in curves.items():
            for curve in own.values():
                ax.plot(curve.budget(budget), curve.accuracy, color=colours[arm], linewidth=0.7, alpha=0.55)
            mean_budget, mean_accuracy = _mean_curve(list(own.values()), budget)
            ax.plot(mean_budget, mean_accuracy, color=colours[arm], linewidth=2.4, label=arm)
        if baseline is not None:
            target = float(np.mean([smooth(curve.accuracy)[-1] for curve in curves[baseline].values()]))
            ax.axhline(target, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"final accuracy of {baseline}")
        budget_axis(ax, budget)
    for ax in panels[:, 0]:
        ax.set_ylabel(f"accuracy on {split}")
    legend_above(figure, panels.flat[0])
    caption = (
        f"Thin lines are seeds as evaluated; thick lines are their mean, smoothed over {WINDOW} evaluations, at the "
        f"mean cost of each evaluation. "
    )
    if baseline is not None:
        caption += (
            f"The dashed line is the mean final smoothed accuracy of {baseline}; a speed-up compares where lines "
            f"first reach it, seed by seed. "
        )
    caption += "Seconds, tokens and FLOPs leave evaluation and audit out, seconds compilation too."
    return Drawing(
        "accuracy", f"Accuracy on {split} against what it cost", svg_of(figure, "accuracy"), caption, *_points(curves)
    )


@styled
def level_figure(arms: Arms, colours: Mapping[str, str], split: str) -> Drawing | None:
    """Accuracy by level of question at the first and at the last evaluation, mean over seeds."""
    found = {}
    for arm, runs in arms.items():
        evaluations = [[r for r in run.read("eval") if r["split"] == split] for run in runs.values()]
        ends = [(own[0]["by_difficulty"], own[-1]["by_difficulty"]) for own in evaluations if own and _levelled(own)]
        if ends:
            levels = sorted(set.intersection(*(set(end) for pair in ends for end in pair)), key=float)
            means = [[float(np.mean([pair[i][level] for pair in ends])) for level in levels] for i in (0, 1)]
            found[arm] = ([float(level) for level in levels], *means)
    if not found:
        return None
    figure, panels = new_figure(1, 1, 3.4)
    ax = panels.flat[0]
    for arm, (levels, start, end) in found.items():
        ax.plot(levels, start, color=colours[arm], linewidth=1.2, linestyle=(0, (2, 2)), label=f"{arm}: start")
        ax.plot(levels, end, color=colours[arm], linewidth=2.2, marker="o", markersize=4.5, label=f"{arm}: end")
    shown = sorted({level for levels, *_ in found.values() for level in levels})
    if len(shown) <= 20:
        ax.set_xticks(shown, [f"{level:g}" for level in shown])
    ax.set_xlabel("level of the question")
    ax.set_ylabel(f"accuracy on {split}")
    ax.set_ylim(bottom=0)
    legend_above(figure, ax, columns=min(len(found), 5))
    caption = "Dotted: first evaluation; solid: last one; mean over seeds. It shows on which questions an arm gained."
    return Drawing("level", "Accuracy by level of question", svg_of(figure, "level"), caption, *_levels(found))


def _points(curves: Mapping[str, Mapping[int, Curve]]) -> tuple[list[str], list[list[Any]]]:
    """Every evaluation of every run, with what had been spent of every budget."""
    budgets = list(dict.fromkeys(name for own in curves.values() for curve in own.values() for name in curve.spent))
    rows = [
        [arm, seed, accuracy, smoothed, *(curve.spent[name][i] for name in budgets)]
        for arm, own in curves.items()
        for seed, curve in own.items()
        for i, (accuracy, smoothed) in enumerate(zip(curve.accuracy, smooth(curve.accuracy), strict=True))
    ]
    return ["arm", "seed", "accuracy", "smoothed", *budgets], rows


def _levels(found: Mapping[str, Sequence[Sequence[float]]]) -> tuple[list[str], list[list[Any]]]:
    rows = [[arm, *row] for arm, columns in found.items() for row in zip(*columns, strict=True)]
    return ["arm", "level", "start", "end"], rows


def _mean_curve(curves: list[Curve], budget: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs of budget and smoothed accuracy at the steps where all of them were evaluated."""
    shared = sorted(set.intersection(*(set(c.budget("steps").tolist()) for c in curves)))
    at = [np.searchsorted(c.budget("steps"), shared) for c in curves]
    spent = np.mean([c.budget(budget)[i] for c, i in zip(curves, at, strict=True)], axis=0)
    accuracy = np.mean([smooth(c.accuracy)[i] for c, i in zip(curves, at, strict=True)], axis=0)
    return spent, accuracy


def _levelled(evaluations: list[dict[str, Any]]) -> bool:
    return bool(evaluations[0].get("by_difficulty") and evaluations[-1].get("by_difficulty"))
