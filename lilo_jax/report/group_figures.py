"""Figures of the groups of rollouts that a step collects and trains on.

Every function returns None if no run has what it shows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.drawing import (
    Drawing,
    budget_axis,
    heat,
    heat_scale,
    legend_above,
    new_figure,
    optional,
    percent,
    styled,
    svg_of,
)
from lilo_jax.report.over_training import Axis, Metrics, has, histogram_over_training, over_training, selects


@styled
def histogram_figure(metrics: Metrics) -> Drawing | None:
    """How many rollouts of a group are correct, over training: a panel per arm, collected above admitted."""
    panels: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
    for arm, runs in metrics.items():
        for row, kind in enumerate(("collected", "admitted")):
            if row and not selects(runs):
                continue
            panel = histogram_over_training(runs, f"curriculum/{kind}_histogram")
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
    title, svg = "How many rollouts of a question are correct", svg_of(figure, "histogram")
    return Drawing("histogram", title, svg, caption, *_cells(panels))


@styled
def selection_figure(metrics: Metrics, colours: Mapping[str, str], axis: Axis) -> Drawing | None:
    """Success rate, and level where the task has levels, of what was collected and of what was trained on."""
    shown = {"success_mean": "mean success rate", "difficulty_mean": "mean level of the questions"}
    shown = {key: label for key, label in shown.items() if has(metrics, f"curriculum/collected_{key}")}
    if not shown:
        return None
    figure, panels = new_figure(1, len(shown), 3.6)
    for ax, (key, label) in zip(panels.flat, shown.items(), strict=True):
        for arm, runs in metrics.items():
            for kind, line in (("collected", (0, (2, 2))), ("admitted", "-")):
                if kind == "collected" and not selects(runs):
                    continue
                steps, y = over_training(runs, f"curriculum/{kind}_{key}")
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
    title, svg = "What was chosen against what was on offer", svg_of(figure, "selection")
    return Drawing("selection", title, svg, caption, *_measured(metrics, axis, list(shown)))


@styled
def zero_variance_figure(metrics: Metrics, colours: Mapping[str, str], axis: Axis) -> Drawing | None:
    """Share of groups without any difference between rollouts, collected and admitted."""
    kinds = [kind for kind in ("collected", "admitted") if has(metrics, f"curriculum/{kind}_zero_variance_fraction")]
    if not kinds:
        return None
    figure, panels = new_figure(1, len(kinds), 3.2, sharey=True)
    for ax, kind in zip(panels.flat, kinds, strict=True):
        for arm, runs in metrics.items():
            steps, y = over_training(runs, f"curriculum/{kind}_zero_variance_fraction")
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
    title, svg = "Groups without variance", svg_of(figure, "zero-variance")
    return Drawing("zero-variance", title, svg, caption, *_measured(metrics, axis, ["zero_variance_fraction"]))


def _cells(panels: Mapping[tuple[int, str], tuple[np.ndarray, np.ndarray]]) -> tuple[list[str], list[list[Any]]]:
    """The shares of a heat map, those of the first stretch first."""
    rows = [
        [arm, ("collected", "admitted")[row], edges[i], edges[i + 1], correct, optional(share)]
        for (row, arm), (edges, shares) in panels.items()
        for i, column in enumerate(shares.T)
        for correct, share in enumerate(column)
    ]
    return ["arm", "groups", "from_step", "to_step", "correct", "share"], rows


def _measured(metrics: Metrics, axis: Axis, keys: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """Mean of some measures in every stretch of training."""
    rows: list[list[Any]] = []
    for arm, runs in metrics.items():
        for kind in ("collected", "admitted"):
            found = [over_training(runs, f"curriculum/{kind}_{key}") for key in keys]
            steps = found[0][0]
            for i, (step, at) in enumerate(zip(steps, axis.at(arm, steps), strict=True)):
                rows.append([arm, kind, step, at, *(optional(values[i]) for _, values in found)])
    return ["arm", "groups", "at_step", axis.budget, *keys], rows
