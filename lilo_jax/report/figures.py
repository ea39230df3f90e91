"""The figures of a report, drawn from run directories as SVG that takes its colours from the page around it.

Needs matplotlib, which is imported when a figure is drawn.  Every function returns None if no run has what it shows.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.drawing import (
    BINS,
    MUTED,
    PANELS,
    Drawing,
    arm_colours,
    budget_axis,
    heat,
    heat_scale,
    legend_above,
    new_figure,
    percent,
    styled,
    svg_of,
)
from lilo_jax.report.speedup import WINDOW, Curve, smooth
from lilo_jax.report.summary import Arms, read_curve
from lilo_jax.report.tables import MAIN_BUDGETS
from lilo_jax.storage.budgets import spent

Metrics = Mapping[str, Mapping[int, list[dict[str, Any]]]]
"""Arm name to seed to the lines of metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """What curves over training are drawn against.

    Attributes:
        budget: one of `BUDGETS`.
        spent: {arm: [steps + 1]}, what it had spent after each step, mean over the seeds that took it.
    """

    budget: str
    spent: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, arms: Arms, budget: str) -> "Axis":
        """The axis of some runs."""
        return cls(
            budget, {arm: _mean_of_longest([spent(run)[budget] for run in own.values()]) for arm, own in arms.items()}
        )

    def at(self, arm: str, steps: np.ndarray) -> np.ndarray:
        """What an arm had spent after that many steps, which may lie between two."""
        return np.interp(steps, np.arange(len(self.spent[arm])), self.spent[arm])


def draw_all(summary: Mapping[str, Any], arms: Arms, against: Sequence[str] = MAIN_BUDGETS) -> dict[str, Drawing]:
    """Every figure that the runs have data for, by name, in the order of a report; a notebook shows one as it is.

    Args:
        summary: of the same runs, from `summarize`.  Its baseline gets the first colour, and a target line.
        arms: the runs; arms keep their colour in every figure.
        against: budgets of the panels of accuracy; the other curves are drawn against the first.
    """
    split, baseline = summary["split"], summary["baseline"]
    axis = Axis.of(arms, against[0])
    colours = arm_colours(list(arms), baseline)
    curves = {arm: {seed: read_curve(run, split) for seed, run in runs.items()} for arm, runs in arms.items()}
    metrics = {arm: {seed: run.read("metrics") for seed, run in runs.items()} for arm, runs in arms.items()}
    drawings = [
        accuracy_figure(curves, colours, split, baseline, against),
        histogram_figure(metrics),
        selection_figure(metrics, colours, axis),
        zero_variance_figure(metrics, colours, axis),
        level_figure(arms, colours, split),
    ]
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


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
    return Drawing("accuracy", f"Accuracy on {split} against what it cost", svg_of(figure, "accuracy"), caption)


@styled
def histogram_figure(metrics: Metrics) -> Drawing | None:
    """How many rollouts of a group are correct, over training: a panel per arm, collected above admitted."""
    panels: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
    for arm, runs in metrics.items():
        for row, kind in enumerate(("collected", "admitted")):
            if row and not _selects(runs):
                continue
            panel = _histogram_over_training(runs, f"curriculum/{kind}_histogram")
            if panel is not None:
                panels[row, arm] = panel
    if not panels:
        return None
    arms = [arm for arm in metrics if (0, arm) in panels or (1, arm) in panels]
    rows = 1 + max(row for row, _ in panels)
    most = max(float(np.nanmax(shares)) for _, shares in panels.values())
    figure, axes = new_figure(rows, len(arms), 2.5 * rows + 0.3)
    for row, kind in enumerate(("collected", "admitted")[:rows]):
        for ax, arm in zip(axes[row], arms, strict=True):
            if (row, arm) not in panels:
                ax.set_axis_off()
                continue
            edges, shares = panels[row, arm]
            heat(ax, edges, shares, most)
            ax.set_title(f"{arm}: {kind}")
            ax.set_xlabel("training steps")
            ax.xaxis.get_major_locator().set_params(integer=True, nbins=6)
            ax.set_ylabel(f"correct of {len(shares) - 1}")
    heat_scale(figure, axes, most)
    caption = (
        "Each column of cells is a stretch of training, each row the number of correct rollouts of a question; the "
        "colour is the share of groups with that many (summed over seeds; the scale is a square root, shared by all "
        "panels). In the bottom and top rows all rollouts have the same reward: comparing them teaches nothing."
    )
    if rows > 1:
        caption += " Below: the groups that a selecting arm trained on."
    return Drawing("histogram", "How many rollouts of a question are correct", svg_of(figure, "histogram"), caption)


@styled
def selection_figure(metrics: Metrics, colours: Mapping[str, str], axis: Axis) -> Drawing | None:
    """Success rate, and level where the task has levels, of what was collected and of what was trained on."""
    shown = {"success_mean": "mean success rate", "difficulty_mean": "mean level of the questions"}
    shown = {key: label for key, label in shown.items() if _has(metrics, f"curriculum/collected_{key}")}
    if not shown:
        return None
    figure, panels = new_figure(1, len(shown), 3.6)
    for ax, (key, label) in zip(panels.flat, shown.items(), strict=True):
        for arm, runs in metrics.items():
            for kind, line in (("collected", (0, (2, 2))), ("admitted", "-")):
                if kind == "collected" and not _selects(runs):
                    continue
                steps, y = _over_training(runs, f"curriculum/{kind}_{key}")
                width = 1.4 if kind == "collected" else 2.2
                name = f"{arm}: {'trained on' if kind == 'admitted' else 'collected'}"
                ax.plot(axis.at(arm, steps), y, color=colours[arm], linestyle=line, linewidth=width, label=name)
        budget_axis(ax, axis.budget)
        ax.set_ylabel(label)
    legend_above(figure, panels.flat[0])
    caption = (
        "Solid: the groups trained on; dotted: all groups collected, for arms that train on only some of them. A "
        "curriculum that seeks variance trains near a success rate of one half."
    )
    if "difficulty_mean" in shown:
        caption += " The level is the task generator's own; no curriculum sees it."
    return Drawing("selection", "What was chosen against what was on offer", svg_of(figure, "selection"), caption)


@styled
def zero_variance_figure(metrics: Metrics, colours: Mapping[str, str], axis: Axis) -> Drawing | None:
    """Share of groups without any difference between rollouts, collected and admitted."""
    kinds = [kind for kind in ("collected", "admitted") if _has(metrics, f"curriculum/{kind}_zero_variance_fraction")]
    if not kinds:
        return None
    figure, panels = new_figure(1, len(kinds), 3.2, sharey=True)
    for ax, kind in zip(panels.flat, kinds, strict=True):
        for arm, runs in metrics.items():
            steps, y = _over_training(runs, f"curriculum/{kind}_zero_variance_fraction")
            ax.plot(axis.at(arm, steps), y, color=colours[arm], linewidth=2, label=arm)
        ax.set_title("collected" if kind == "collected" else "trained on")
        budget_axis(ax, axis.budget)
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(percent)
    panels.flat[0].set_ylabel("groups without variance")
    legend_above(figure, panels.flat[0])
    caption = (
        "Groups whose rollouts are all right or all wrong: a method that compares the rollouts of a group learns "
        "nothing from them, so the lower, the less is wasted."
    )
    return Drawing("zero-variance", "Groups without variance", svg_of(figure, "zero-variance"), caption)


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
    return Drawing("level", "Accuracy by level of question", svg_of(figure, "level"), caption)


# ------------------------------------------------------------------------------------------------ from runs to arrays
def _mean_curve(curves: list[Curve], budget: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs of budget and smoothed accuracy at the steps where all of them were evaluated."""
    shared = sorted(set.intersection(*(set(c.budget("steps").tolist()) for c in curves)))
    at = [np.searchsorted(c.budget("steps"), shared) for c in curves]
    spent = np.mean([c.budget(budget)[i] for c, i in zip(curves, at, strict=True)], axis=0)
    accuracy = np.mean([smooth(c.accuracy)[i] for c, i in zip(curves, at, strict=True)], axis=0)
    return spent, accuracy


def _mean_of_longest(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of arrays at every place that any of them has."""
    table = np.full((len(values), max(map(len, values))), np.nan)
    for row, own in zip(table, values, strict=True):
        row[: len(own)] = own
    return np.nanmean(table, axis=0)


def _records(runs: Mapping[int, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for records in runs.values():
        yield from records


def _has(metrics: Metrics, key: str) -> bool:
    return any(r.get(key) is not None for runs in metrics.values() for r in _records(runs))


def _selects(runs: Mapping[int, list[dict[str, Any]]]) -> bool:
    """Whether an arm trained on fewer groups than it collected."""
    counts = [(r.get("curriculum/groups_collected", 0), r.get("curriculum/groups_admitted", 0)) for r in _records(runs)]
    return any(admitted < collected for collected, admitted in counts)


def _bin_edges(runs: Mapping[int, list[dict[str, Any]]]) -> np.ndarray:
    """At most `BINS` equal stretches of training, edges in steps."""
    steps = 1 + max((r["step"] for r in _records(runs)), default=0)
    width = -(-steps // BINS)
    return np.arange(0, steps + width, width)


def _over_training(runs: Mapping[int, list[dict[str, Any]]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each stretch of training, and the mean of `key` over its steps and seeds; NaN where nothing is."""
    edges = _bin_edges(runs)
    measured = [(r["step"], r[key]) for r in _records(runs) if r.get(key) is not None]
    steps, values = np.array(measured, np.float64).reshape(-1, 2).T
    index = np.searchsorted(edges, steps, side="right") - 1
    count = np.bincount(index, minlength=len(edges) - 1)
    total = np.bincount(index, weights=values, minlength=len(edges) - 1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return (edges[:-1] + edges[1:]) / 2, means


def _histogram_over_training(
    runs: Mapping[int, list[dict[str, Any]]], key: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges [b + 1] in steps, and the share of groups with i correct rollouts in each stretch, [samples + 1, b]."""
    edges = _bin_edges(runs)
    records = [r for r in _records(runs) if r.get(key)]
    if not records:
        return None
    counts = np.zeros((max(len(r[key]) for r in records), len(edges) - 1))
    for record in records:
        counts[: len(record[key]), np.searchsorted(edges, record["step"], side="right") - 1] += record[key]
    total = counts.sum(axis=0, keepdims=True)
    if not total.any():
        return None
    return edges, np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _levelled(evaluations: list[dict[str, Any]]) -> bool:
    return bool(evaluations[0].get("by_difficulty") and evaluations[-1].get("by_difficulty"))


# ------------------------------------------------------------------------------------------------------------ drawing
