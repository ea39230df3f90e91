"""What simulated runs say: the comparison of rules in one table, in JSON, in Markdown and as a page."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lilo_jax.report.accuracy_figures import accuracy_figure
from lilo_jax.report.drawing import arm_colours
from lilo_jax.report.page import figure_element, table_element, write_page
from lilo_jax.report.speedup import ENOUGH, WINDOW, Curve, accuracy_at, smooth
from lilo_jax.report.summary import ACCURACY, DIFFERENCE, interval_of, speedups
from lilo_jax.report.tables import MAIN_BUDGETS, SPREAD, Table, interval, markdown, number, speedup_cell, tokens
from lilo_jax.simulation.run import Trace
from lilo_jax.storage.json_lines import finite
from lilo_jax.storage.paths import AnyPath
from lilo_jax.types import Array

BASELINE, TOKENS = "uniform", "generated_tokens"
SHOWN = 6
"""Arms drawn beside the baseline: as many as there are colours."""
TOKENS_PER_SECOND = 1e4
"""Of the declared machine; a ratio of seconds does not depend on it."""


def read_curves(trace: Trace, seeds: Sequence[int], *, every: int, generation_share: float) -> dict[int, Curve]:
    """The learning curve of every seed.

        seconds = (f generated tokens + (1 - f) trained tokens) / rate

    so that generation is the share f of a step of the baseline, which trains on all that it generates.

    Args:
        trace: of the S seeds, leaves [S, ...].
        seeds: their names.
        every: steps between evaluations.
        generation_share: f.
    """
    graded = np.asarray(trace.graded, np.float64)[:, None]

    def spent(per_step: Array) -> np.ndarray:
        """[S, E], what had been spent when an evaluation was made."""
        return np.pad(np.cumsum(np.asarray(per_step, np.float64), axis=1), ((0, 0), (1, 0)))[:, ::every]

    generated, trained = spent(trace.steps.generated) + graded, spent(trace.steps.trained)
    seconds = (generation_share * generated + (1 - generation_share) * trained) / TOKENS_PER_SECOND
    steps = every * np.arange(generated.shape[1])
    return {
        seed: Curve(
            np.asarray(trace.accuracy[i], np.float64),
            {"steps": steps, "generated_tokens": generated[i], "seconds": seconds[i]},
        )
        for i, seed in enumerate(seeds)
    }


def summarize_cell(
    traces: Mapping[str, Trace], seeds: Sequence[int], *, every: int, generation_share: float
) -> dict[str, Any]:
    """Everything that is said of a cell, as a dictionary that survives JSON unchanged.

    Args:
        traces: arm to its runs, `BASELINE` among them.
        seeds, every, generation_share: as in `read_curves`.

    Returns:
        {arm: {`speedup`: {budget: as in `Speedup`}, `final`, `gap_at_steps`, `gap_at_tokens`: {`mean`, `low`, `high`,
        `by_seed`}, `flat_collected`, `flat_trained`, `coin_flips`: shares of groups, `groups`: trained on in a step,
        `generated_tokens`, `trained_tokens`: of a run, `curve`: means over seeds}}, best at equal tokens first.
    """
    curves = {
        arm: read_curves(trace, seeds, every=every, generation_share=generation_share) for arm, trace in traces.items()
    }
    rows = {arm: _row(traces[arm], own, curves[BASELINE]) for arm, own in curves.items()}
    return finite(dict(sorted(rows.items(), key=lambda row: -row[1]["gap_at_tokens"]["mean"])))


def _row(trace: Trace, own: Mapping[int, Curve], baseline: Mapping[int, Curve]) -> dict[str, Any]:
    totals = jax.tree.map(lambda x: float(np.sum(x, dtype=np.float64)), trace.steps)
    final = {seed: float(smooth(curve.accuracy)[-1]) for seed, curve in own.items()}
    target = {seed: float(smooth(curve.accuracy)[-1]) for seed, curve in baseline.items()}
    at_tokens = {seed: accuracy_at(own[seed], TOKENS, baseline[seed].budget(TOKENS)[-1]) for seed in own}
    mean = mean_curve(own)
    return {
        "speedup": speedups(baseline, own, MAIN_BUDGETS),
        "final": interval_of(final, ACCURACY),
        "gap_at_steps": interval_of({seed: final[seed] - target[seed] for seed in own}, DIFFERENCE),
        "gap_at_tokens": interval_of({seed: at_tokens[seed] - target[seed] for seed in own}, DIFFERENCE),
        "flat_collected": totals.collected_flat / max(totals.collected, 1),
        "flat_trained": totals.flat / max(totals.groups, 1),
        "coin_flips": totals.coin_flips / max(totals.groups, 1),
        "groups": totals.groups / trace.steps.groups.size,
        "generated_tokens": float(mean.budget("generated_tokens")[-1]),
        "trained_tokens": totals.trained / len(own),
        "curve": {name: values.tolist() for name, values in {"accuracy": mean.accuracy, **mean.spent}.items()},
    }


def mean_curve(curves: Mapping[int, Curve]) -> Curve:
    """Mean over seeds of cost and accuracy at every evaluation."""
    spent = {name: np.mean([c.budget(name) for c in curves.values()], axis=0) for name in MAIN_BUDGETS}
    return Curve(np.mean([c.accuracy for c in curves.values()], axis=0), spent)


def selection_table(summary: Mapping[str, Any], title: str) -> Table:
    """The comparison of a cell, a row per arm."""
    rows = []
    for arm, row in summary.items():
        gaps = [f"{row[gap]['mean']:+.3f}{interval(row[gap], '+.3f')}" for gap in ("gap_at_tokens", "gap_at_steps")]
        ratios = [speedup_cell(row["speedup"][budget]) for budget in ("generated_tokens", "steps", "seconds")]
        shares = [number(row[share], ".0%") for share in ("flat_trained", "flat_collected", "coin_flips")]
        rows.append(
            [arm, *ratios, *gaps, number(row["final"]["mean"], ".3f"), *shares, tokens(row["generated_tokens"])]
        )
    columns = ["arm", "tokens", "steps", "seconds", "gap at equal tokens", "at equal steps", "final"]
    notes = [
        f"tokens, steps, seconds: how many times less, or more, the arm spent until it reached {BASELINE}'s own final "
        f"accuracy than {BASELINE} did, on the same seed: geometric mean [95% bootstrap interval], or (least..most of "
        f"fewer than {ENOUGH} seeds), and seeds that reached it/seeds; * that includes 1; ! it was not reached on all "
        f"seeds, which the mean leaves out",
        f"gap: mean success on held-out clean questions (trailing mean of {WINDOW} evaluations) less {BASELINE}'s "
        f"final one {SPREAD}; at equal tokens: when the arm had generated what {BASELINE} did in all, or at "
        f"its end if it never did",
        "flat: groups whose rollouts were all right or all wrong; trained: of those trained on, rolled out: of all; "
        "coin flips: share of the groups trained on whose verdict is a coin flip; generated: tokens of a run, "
        "screening, rejected rollouts and grading included",
    ]
    return Table(title, [*columns, "flat, trained", "flat, rolled out", "coin flips", "generated"], rows, notes)


def markdown_section(table: Table) -> str:
    """A table in Markdown, its notes below."""
    body = markdown(table.columns, table.rows, text_columns=table.text_columns)
    return "\n\n".join([f"## {table.title}", body, *(note.replace("*", r"\*") for note in table.notes)]) + "\n"


def write_selection_page(
    path: AnyPath, cells: Mapping[str, Mapping[str, Any]], tables: Sequence[Table], command: str
) -> AnyPath:
    """Writes the page: a table and a figure per cell, and the command."""
    sections = ["<h1>Simulated selection</h1>"]
    drawable = importlib.util.find_spec("matplotlib") is not None
    for (name, cell), table in zip(cells.items(), tables, strict=True):
        sections.append(table_element(table))
        if drawable:
            sections.append(_figure(name, cell["arms"]))
    how = Table("How it was made", ["command"], [[command]])
    return write_page(path, "Simulated selection", [*sections, table_element(how)])


def _figure(cell: str, arms: Mapping[str, Any]) -> str:
    """Mean curves of the baseline and of the arms that are best at equal tokens."""
    shown = [BASELINE, *[arm for arm in arms if arm != BASELINE][:SHOWN]]
    values = {arm: {name: np.array(v) for name, v in arms[arm]["curve"].items()} for arm in shown}
    curves = {arm: {0: Curve(own.pop("accuracy"), own)} for arm, own in values.items()}
    drawing = accuracy_figure(curves, arm_colours(shown, BASELINE), f"held-out questions, {cell}", BASELINE)
    assert drawing is not None
    caption = (
        f"Means over seeds of {BASELINE} and the {len(shown) - 1} arms that are best at equal tokens; thick lines are "
        f"smoothed over {WINDOW} evaluations.  Seconds are those of the declared cost model."
    )
    name = f"accuracy-{cell.replace('_', '-')}"
    svg = drawing.svg.replace("accuracy-", f"{name}-").replace('aria-label="accuracy figure"', f'aria-label="{name}"')
    return figure_element(dataclasses.replace(drawing, name=name, svg=svg, caption=caption))
