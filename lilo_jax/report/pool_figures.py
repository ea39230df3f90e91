"""Figures of the questions of a pool, and of what was believed of them.

Every function returns None if no run has what it shows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.drawing import MUTED, PANELS, Axes, Drawing, legend_above, new_figure, percent, styled, svg_of
from lilo_jax.report.pool import FORGOTTEN, FRONTIER, LATEST, SOLVED, STATES, UNSOLVED, PoolHistory, pool_history
from lilo_jax.report.summary import Arms
from lilo_jax.storage.run_directory import RunDirectory

LINES = 1200
"""Most lines of all heat maps together, so that the file stays small."""
LINES_OF_ONE = 300
BELIEFS = 10
"""Bins of equal width of what was believed."""
FROM_TOP = (SOLVED, FRONTIER, FORGOTTEN, UNSOLVED)
"""States at the end of training, in the order in which lines stand."""
COLOURS = {UNSOLVED: "#01f000", FRONTIER: "#01f001", FORGOTTEN: "#01f002", SOLVED: "#01f003"}


# ------------------------------------------------------------------------------------------------------- the frontier
@styled
def frontier_figure(arms: Arms) -> Drawing | None:
    """What became of each question of the pool through the steps, of the first recorded seed of every arm."""
    found = {arm: first for arm, runs in arms.items() if (first := _first_history(runs))}
    if not found:
        return None
    columns = min(len(found), PANELS)
    rows = -(-len(found) // columns)
    figure, panels = new_figure(rows, columns, 4.0 * rows + 0.3)
    for ax in panels.flat[len(found) :]:
        ax.set_axis_off()
    most = min(LINES // len(found), LINES_OF_ONE)
    for ax, (arm, (seed, history)) in zip(panels.flat, found.items(), strict=False):
        _draw_history(ax, history.states[_shown(history.states, most)])
        ax.set_title(f"{arm}, seed {seed}: {len(history.places)} questions")
        ax.set_xlabel("training steps")
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    for ax in panels[:, 0]:
        ax.set_ylabel("share of the questions rolled out")
    legend_above(figure, panels.flat[0])
    caption = (
        f"A line is a question, its colour what its latest {LATEST} rollouts say after each step: on the frontier they "
        f"are right and wrong, solved all right, forgotten all wrong though an earlier one was right.  It begins where "
        f"the question was first rolled out.  Lines are sorted by their end, then by when they got there; of more than "
        f"{most} questions, that many evenly spaced ones are drawn."
    )
    return Drawing("frontier", "What became of the questions", svg_of(figure, "frontier"), caption, *_changes(found))


def sorted_rows(states: np.ndarray) -> np.ndarray:
    """Rows [Q] of states [Q, T] from the bottom up: by state at the end, then those that came to it last first."""
    last = states[:, -1]
    # The first of the columns at the end that are all alike.
    arrived = states.shape[1] - np.argmax((states != last[:, None])[:, ::-1], axis=1)
    return np.lexsort((-arrived, -np.array([FROM_TOP.index(state) for state in last])))


def _shown(states: np.ndarray, most: int) -> np.ndarray:
    rows = sorted_rows(states)
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]


def _draw_history(ax: Axes, states: np.ndarray) -> None:
    """Stretches of equal state as rectangles, one path for each state, from the bottom line up."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    height = 1 / len(states)
    for state in FROM_TOP:
        boxes = [
            Path([(x, y * height), (end, y * height), (end, (y + 1) * height), (x, (y + 1) * height), (x, y * height)],
                 closed=True)
            for y, line in enumerate(states)
            for x, end in _stretches(line == state)
        ]  # fmt: skip
        shape = Path.make_compound_path(*boxes) if boxes else Path([(0, 0)])
        ax.add_patch(PathPatch(shape, facecolor=COLOURS[state], edgecolor="none", label=STATES[state]))
    ax.set_xlim(0, states.shape[1] - 1)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(percent)
    ax.grid(visible=False)


def _stretches(there: np.ndarray) -> list[tuple[int, int]]:
    """Starts and ends of the stretches of training in which a question was there, from states after each step."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(int)))
    return [(start - 1, end - 1) for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]


def _changes(found: Mapping[str, tuple[int, PoolHistory]]) -> tuple[list[str], list[list[Any]]]:
    """Every change of state of every question."""
    rows: list[list[Any]] = []
    for arm, (seed, history) in found.items():
        for place, line in zip(history.places.tolist(), history.states, strict=True):
            changed = np.flatnonzero(np.diff(line)) + 1
            rows += [[arm, seed, place, step, STATES[line[step]]] for step in changed.tolist()]
    return ["arm", "seed", "place_in_pool", "after_steps", "state"], rows


def _first_history(runs: Mapping[int, RunDirectory]) -> tuple[int, PoolHistory] | None:
    return next(((seed, found) for seed, run in runs.items() if (found := pool_history(run)) is not None), None)


# ------------------------------------------------------------------------------------------------------------- beliefs
@styled
def belief_figure(arms: Arms, colours: Mapping[str, str]) -> Drawing | None:
    """Believed against found success rates of the groups rolled out, and how many groups were believed to be what."""
    found = {arm: bins for arm, runs in arms.items() if (bins := reliability(runs.values())) is not None}
    if not found:
        return None
    figure, panels = new_figure(1, 2, 3.9)
    rates, counts = panels.flat
    rates.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="believed = found")
    for i, (arm, bins) in enumerate(found.items()):
        filled = bins[bins[:, 0] > 0]
        rates.plot(filled[:, 1], filled[:, 2], color=colours[arm], linewidth=2, marker="o", markersize=5, label=arm)
        width = 0.8 / BELIEFS / len(found)
        left = (np.arange(BELIEFS) + 0.1) / BELIEFS + i * width
        bars = counts.bar(left, bins[:, 0], width, align="edge", color=colours[arm])
        if len(found) == 1:
            counts.bar_label(bars, [f"{n:.0f}" for n in bins[:, 0]], fontsize=8)
    for ax in (rates, counts):
        ax.set_xlim(0, 1)
        ax.set_xlabel("believed success rate")
    rates.set_ylim(-0.02, 1.02)
    rates.set_ylabel("share of right rollouts")
    counts.set_ylabel("groups")
    legend_above(figure, rates)
    caption = (
        "Of each tenth of believed success rates the mean belief and the share of right rollouts (left), and how many "
        "groups it holds (right), of all seeds.  The belief is that before the rollouts.  These are no random "
        "questions: a curriculum rolls out those that it believes to be worth most, and its errors are among them."
    )
    return Drawing("belief", "What was believed, and what was found", svg_of(figure, "belief"), caption, *_bins(found))


def reliability(runs: Iterable[RunDirectory]) -> np.ndarray | None:
    """Groups, mean belief and share of right rollouts in `BELIEFS` equal bins, [bins, 3]; None without any belief.

    A bin holds its lower edge, the last one both.  Rollouts count alike, whichever group they are of.
    """
    groups = [
        (belief, right, graded)
        for run in runs
        for step in run.read("groups")
        if "belief" in step
        for belief, right, graded in zip(step["belief"], step["correct"], step["graded"], strict=True)
        if belief is not None and graded
    ]
    if not groups:
        return None
    belief, right, graded = np.array(groups, float).T
    index = np.minimum((belief * BELIEFS).astype(int), BELIEFS - 1)

    def total(values: np.ndarray | None) -> np.ndarray:
        return np.bincount(index, weights=values, minlength=BELIEFS)

    rollouts = np.maximum(total(graded), 1)
    return np.stack([total(None), total(belief * graded) / rollouts, total(right) / rollouts], axis=1)


def _bins(found: Mapping[str, np.ndarray]) -> tuple[list[str], Sequence[Sequence[Any]]]:
    rows = [
        [arm, i / BELIEFS, (i + 1) / BELIEFS, int(groups), *((believed, share) if groups else (None, None))]
        for arm, bins in found.items()
        for i, (groups, believed, share) in enumerate(bins.tolist())
    ]
    return ["arm", "from", "to", "groups", "believed", "right"], rows
