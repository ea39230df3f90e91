"""Reports of runs: what stands in the file, and in which order."""

import importlib.util
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.report.collapse import RULES
from lilo_jax.report.comparison import choose_baseline, choose_split, group_runs
from lilo_jax.report.completions import completions_element
from lilo_jax.report.figures import draw_all, write_data
from lilo_jax.report.page import figure_element, sentence, table_element, write_page
from lilo_jax.report.pool import pool_element
from lilo_jax.report.provenance import provenance_element, settings_element
from lilo_jax.report.sentences import headlines
from lilo_jax.report.summary import Arms, summarize
from lilo_jax.report.tables import (
    MAIN_BUDGETS,
    Table,
    audit_table,
    budget_share_table,
    budget_table,
    build_tables,
    ledger_table,
    listed,
)
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.redaction import redacted

PLOT = "lilo-jax[plot]"
"""What installs matplotlib."""


def write_report(
    path: AnyPath | str,
    summary: Mapping[str, Any],
    arms: Arms,
    title: str,
    command: str,
    against: Sequence[str] = MAIN_BUDGETS,
    data: AnyPath | str | None = None,
) -> AnyPath:
    """The path of a report of compared runs: one HTML file with tables, figures, completions and how it was made.

    Args:
        path: HTML file to write.
        summary: of the same runs, from `summarize`.
        arms: arm name to seed to run.
        title: shown at the top.
        command: what reproduces it, shown at the end.
        against: budgets that curves are drawn against: accuracy against each, the others against the first.
        data: folder that gets a CSV and an SVG file of every figure; None for none.

    Returns:
        The path written.  Without matplotlib the report has no figures and says so; `data` is refused.

    >>> import lilo_jax
    >>> arms = {"uniform": {0: lilo_jax.load("runs/tiny").directory}}
    >>> summary = lilo_jax.summarize(arms, split="test", baseline=None)
    >>> write_report("runs/tiny.html", summary, arms, title="Tiny", command="python tiny.py").name
    'tiny.html'
    """
    sections = [f"<h1>{sentence(title)}</h1>"]
    first, *others = headlines(summary)
    sections += [f'<p class="headline">{sentence(first)}</p>', *(f"<p>{sentence(line)}</p>" for line in others)]
    sections += ["<h2>Results</h2>", *map(table_element, _result_tables(summary))]
    sections += [] if any(summary["collapses"].values()) else [f'<p class="note">No run collapsed.  {RULES}.</p>']
    if not _can_draw():
        if data is not None:
            raise UsageError(f'--data needs matplotlib: pip install "{PLOT}"')
        sections.append(f'<p class="note">No figures: matplotlib is not installed (pip install "{PLOT}").</p>')
    else:
        drawings = [*draw_all(summary, arms, against).values()]
        sections += map(figure_element, drawings)
        if data is not None:
            write_data(data, drawings)
    sections += [pool_element(arms), completions_element(arms), "<h2>What it cost</h2>"]
    sections += [table_element(budget_table(summary))] if summary["speedup"] else []
    sections += [table_element(ledger_table(summary)), "<h2>Settings</h2>", settings_element(arms)]
    sections += [provenance_element(arms, command)]
    return write_page(path, title, sections)


def _result_tables(summary: Mapping[str, Any]) -> list[Table]:
    tables = build_tables(summary)
    tables.insert(1, budget_share_table(summary))
    return [*tables, audit_table(summary)] if summary["audit"] else tables


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def report_runs(
    paths: Iterable[AnyPath | str],
    output: AnyPath | str,
    against: Sequence[str] = MAIN_BUDGETS,
    data: AnyPath | str | None = None,
) -> AnyPath:
    """Reports run directories, or directories of them, grouped into arms by what their configs say.

    The baseline is a `uniform` arm if there is one; without it, or with one arm only, nothing is compared.  Raises
    `UsageError` if a path holds no run, two runs are the same, they share no evaluated split, a budget of `against` is
    unknown, or `data` is a file.
    """
    for name in against:
        if name not in BUDGETS:
            raise unknown_name("budget", name, BUDGETS)
    runs = [path_of(path) for path in paths]
    if path_of(output).is_dir():
        raise UsageError(f"--output {output} is a directory; pass a file, such as {output}/report.html")
    if data is not None and path_of(data).is_file():
        raise UsageError(f"--data {data} is a file; pass a folder, which gets the files of every figure")
    arms = group_runs(runs)
    baseline = choose_baseline(arms)
    arms = dict(sorted(arms.items(), key=lambda arm: arm[0] != baseline))
    summary = summarize(arms, choose_split(arms), baseline)
    chosen = [] if tuple(against) == MAIN_BUDGETS else ["--against", ",".join(against)]
    chosen += ["--data", str(data)] if data is not None else []
    command = shlex.join(redacted(["lilo", "report", *map(str, runs), "--output", str(output), *chosen]))
    return write_report(output, summary, arms, f"Report: {listed(list(arms))}", command, against, data)
