"""All figures of a report, as SVG that takes its colours from the page around it, and as files.

Needs matplotlib, which is imported when a figure is drawn.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.report.accuracy_figures import accuracy_figure, level_figure
from lilo_jax.report.drawing import Drawing, arm_colours
from lilo_jax.report.group_figures import histogram_figure, selection_figure, zero_variance_figure
from lilo_jax.report.over_training import Axis
from lilo_jax.report.pool_figures import belief_figure, frontier_figure
from lilo_jax.report.summary import Arms, read_curve
from lilo_jax.report.tables import MAIN_BUDGETS
from lilo_jax.report.theme import LIGHT
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.paths import AnyPath, path_of


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
        frontier_figure(arms),
        belief_figure(arms, colours),
    ]
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def write_data(folder: AnyPath | str, drawings: Sequence[Drawing]) -> None:
    """Writes NAME.csv, the numbers, and NAME.svg, in the colours of a light screen, of every figure into a folder."""
    folder = path_of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([drawing.columns, *drawing.rows])
        write_whole(folder / f"{drawing.name}.csv", table.getvalue())
        write_whole(folder / f"{drawing.name}.svg", standalone(drawing.svg))


def standalone(svg: str) -> str:
    """A figure of a page as a file of its own, with the colours that the page would give it on a light screen."""
    colours = {f"var(--{name})": value for name, value in LIGHT.items()}
    colours |= {"currentColor": LIGHT["ink"], "var(--font)": "sans-serif"}
    text = re.sub(r"var\(--[\w-]+\)|currentColor", lambda found: colours[found[0]], svg)
    return text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
