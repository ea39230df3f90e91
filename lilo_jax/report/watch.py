"""A run as a terminal shows it while it goes on: curves, the frontier, speed, tokens, time left."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lilo_jax.errors import RunError, UsageError
from lilo_jax.report.plots import Bars, Plot
from lilo_jax.storage.ledger import PURPOSES
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import BEFORE, RunDirectory

REFRESH = 2.0
"""Seconds between two looks at a run."""
RECENT = 20
"""Steps that speed is measured over."""
NARROW = 90
"""Columns below which one plot stands above the other."""
CURVES = {
    "reward": "curriculum/collected_reward_mean",
    "surprisal": "rollout/surprisal_mean",
    "zero-variance share": "curriculum/collected_zero_variance_fraction",
}
"""What is drawn beside accuracy, and the metric that it is."""
SHARES = ("unseen", "unsolved", "mixed", "solved")
"""Of the pool: never graded, never right, sometimes right, always right."""


def watch(path: AnyPath, *, once: bool, console: Console | None = None) -> None:
    """Shows a run until it has ended, or one time.

    Args:
        path: of the run.
        once: whether to look at it one time only; so it is where there is no terminal.
        console: to show it on.

    Raises:
        UsageError, RunError: there is no run, or it cannot be read.
    """
    console = console or Console(highlight=False)
    directory = RunDirectory(path)
    directory.must_exist()
    _refuse_several(directory)
    shown = frame(directory, time.time())
    if not once and console.is_terminal:
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while not _ended(directory):
                time.sleep(REFRESH)
                shown = _frame_or_trouble(directory)
                live.update(shown, refresh=True)
    console.print(shown)


def frame(directory: RunDirectory, now: float) -> RenderableType:
    """What a run looks like at a time, in seconds since 1970."""
    metrics, timings = directory.read("metrics"), directory.read("timings")
    config = directory.config_values()
    plots = [_accuracy(directory.read("eval")), *(_curve(title, metrics, name) for title, name in CURVES.items())]
    frontier = [_groups(metrics[-1]), _pool(metrics[-1])] if metrics else []
    return Group(
        _heading(directory, config, metrics, now),
        _Side(plots),
        _Side([*frontier, _tokens(directory.read("ledger")), _speed(config, timings, len(metrics))]),
    )


def _frame_or_trouble(directory: RunDirectory) -> RenderableType:
    """A frame; what is wrong where a run that is written just now cannot be read, which the next look may mend."""
    try:
        return frame(directory, time.time())
    except (RunError, UsageError) as error:
        return Text(str(error))


def _ended(directory: RunDirectory) -> bool:
    return any((directory.path / name).exists() for name in ("DONE", "FAILED"))


def _refuse_several(directory: RunDirectory) -> None:
    """Refuses the directory of a comparison, which holds runs and no records."""
    runs = sorted(found.parent for found in directory.path.glob("seed_*/*/config.json"))
    if runs and not (directory.path / "metrics.jsonl").exists():
        raise UsageError(f"{directory.path} holds {len(runs)} runs: pass one of them, such as {runs[-1]}")


class _Side:
    """Panels beside each other in two columns, or below each other in a narrow terminal."""

    def __init__(self, panels: Sequence[RenderableType]) -> None:
        self._panels = panels

    def __rich_console__(self, console: Console, options: Any) -> Any:
        columns = 1 if options.max_width < NARROW else 2
        table = Table.grid(expand=True)
        for _ in range(columns):
            table.add_column(ratio=1)
        for first in range(0, len(self._panels), columns):
            table.add_row(*self._panels[first : first + columns])
        yield table


def _heading(directory: RunDirectory, config: dict[str, Any], metrics: Sequence[Any], now: float) -> RenderableType:
    name = f"{config['curriculum']['name']} with {config['algorithm']['name']} on {config['task']['name']}"
    return Text(f"{directory.path}\n{name}; step {len(metrics)} of {config['num_steps']}; {_status(directory, now)}")


def _status(directory: RunDirectory, now: float) -> str:
    failed, records = directory.path / "FAILED", directory.path / "metrics.jsonl"
    if directory.is_done():
        return "done"
    if failed.exists():
        return f"failed: {failed.read_text(encoding='utf-8').strip()}"
    if not records.exists():
        return "before the first step"
    if not isinstance(records, pathlib.Path):
        return "not done"  # when an object was written last is not asked of every bucket
    return f"last step ended {duration(now - records.stat().st_mtime)} ago"


def _accuracy(evaluations: Sequence[dict[str, Any]]) -> Panel:
    splits = list(dict.fromkeys(record["split"] for record in evaluations))
    split = "test" if "test" in splits else (splits or ["-"])[-1]
    return _plot(f"accuracy on {split}", [(r["step"], r["accuracy"]) for r in evaluations if r["split"] == split])


def _curve(title: str, metrics: Sequence[dict[str, Any]], name: str) -> Panel:
    return _plot(title, [(record["step"], record.get(name)) for record in metrics])


def _plot(title: str, points: Sequence[tuple[int, float | None]]) -> Panel:
    found = [(x, y) for x, y in points if y is not None]
    now = f" {found[-1][1]:.3f}" if found else ""
    return Panel(Plot([x for x, _ in found], [y for _, y in found]), title=title + now)


def _groups(record: dict[str, Any]) -> Panel:
    counts = record["curriculum/collected_histogram"]
    names = [f"{i}/{len(counts) - 1}" for i in range(len(counts))]
    return Panel(Bars(names, counts, [str(count) for count in counts]), title="groups of the step, by correct rollouts")


def _pool(record: dict[str, Any]) -> Panel:
    shares = [record.get(f"curriculum/pool_{name}_fraction") for name in SHARES]
    known = [(name, share) for name, share in zip(SHARES, shares, strict=True) if share is not None]
    names, sizes = [name for name, _ in known], [share for _, share in known]
    shown = Bars(names, sizes, [f"{share:.1%}" for share in sizes]) if known else Text("this run did not record it")
    return Panel(shown, title="share of the pool, so far")


def _tokens(ledger: Sequence[dict[str, Any]]) -> Panel:
    last = ledger[-1] if ledger else {}
    found = {purpose: last.get(f"{purpose}/generated", 0) for purpose in PURPOSES}
    found = {purpose: tokens for purpose, tokens in found.items() if tokens}
    return Panel(Bars([*found], [*found.values()], [f"{n:,}" for n in found.values()]), title="tokens generated")


def _speed(config: dict[str, Any], timings: Sequence[dict[str, Any]], done: int) -> Panel:
    recent = [record for record in timings if record["step"] != BEFORE][-RECENT:]
    if not recent:
        return Panel(Text("nothing yet"), title="speed")
    phases = {phase: 0.0 for record in recent for phase in record if phase not in ("step", "compile")}
    medians = {phase: float(np.median([record.get(phase, 0.0) for record in recent])) for phase in phases}
    step = float(np.median([sum(record.get(phase, 0.0) for phase in phases) for record in recent]))
    left = max(config["num_steps"] - done, 0) * step
    title = f"{step:.3g} s a step{f', {duration(left)} left' if left else ''}"
    medians = {phase: seconds for phase, seconds in medians.items() if seconds >= 5e-4}
    return Panel(Bars([*medians], [*medians.values()], [f"{s:.3f} s" for s in medians.values()]), title=title)


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    >>> duration(8), duration(150), duration(9000)
    ('8 s', '2 min', '2 h 30 min')
    """
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if hours < 1 else f"{hours} h {minutes % 60} min"
