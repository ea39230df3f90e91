"""Small plots of characters, as wide as the terminal leaves room for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from lilo_jax.types import Array

LEVELS, PLAIN_LEVELS = " ▁▂▃▄▅▆▇█", " .-=#"
"""A cell that is filled by so many parts; the second where the terminal has no blocks."""
ROWS = 4
"""Of a curve."""
LABEL = 10
"""Columns of its numbers."""


class Plot:
    """A curve, to be printed by rich."""

    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Takes its points, in the order of x."""
        self.x, self.y = x, y

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        levels = PLAIN_LEVELS if options.ascii_only else LEVELS
        if not self.y:
            yield Segment("nothing yet")
            return
        columns = columns_of(self.x, self.y, max(options.max_width - LABEL, 1))
        low, high = float(np.min(self.y)), float(np.max(self.y))
        numbers = [f"{high:.3g}", *[""] * (ROWS - 2), f"{low:.3g}"]
        for number, cells in zip(numbers, curve(columns, low, high, levels), strict=True):
            yield Segment(f"{number[: LABEL - 1]:>{LABEL - 1}} {cells}"[: options.max_width])
            yield Segment.line()


class Bars:
    """A bar for each of some names, with a text behind it, to be printed by rich; the largest fills the room."""

    def __init__(self, names: Sequence[str], sizes: Sequence[float], texts: Sequence[str]) -> None:
        self.names, self.sizes, self.texts = names, sizes, texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        full = "#" if options.ascii_only else "█"
        names, texts = (max(map(len, cells), default=0) for cells in (self.names, self.texts))
        room, largest = max(options.max_width - names - texts - 2, 1), max(self.sizes, default=0) or 1
        for name, size, text in zip(self.names, self.sizes, self.texts, strict=True):
            length = round(room * size / largest) or int(size > 0)
            yield Segment(f"{name:>{names}} {full * length:<{room}} {text:>{texts}}"[: options.max_width])
            yield Segment.line()


def columns_of(x: Sequence[float], y: Sequence[float], width: int) -> Array:
    """The value of each column, [width]: the mean of the points in it, and of an empty one that of the column before.

    The first column begins at the first x, and the last one ends at the last.
    """
    place, span = np.asarray(x, float) - x[0], x[-1] - x[0]
    column = np.minimum((place / span * width).astype(int), width - 1) if span else np.zeros(len(y), int)
    counts = np.bincount(column, minlength=width)
    sums = np.bincount(column, weights=y, minlength=width)
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(width), 0))
    return (sums / np.maximum(counts, 1))[filled]


def curve(columns: Array, low: float, high: float, levels: str) -> list[str]:
    """`ROWS` lines, the highest first, of columns that are filled from below: `low` is the least that can be seen."""
    most = ROWS * (len(levels) - 1)
    heights = np.full(len(columns), most // 2) if high == low else 1 + (columns - low) / (high - low) * (most - 1)
    lines = []
    for row in reversed(range(ROWS)):
        parts = np.clip(np.round(heights) - row * (len(levels) - 1), 0, len(levels) - 1).astype(int)
        lines.append("".join(levels[part] for part in parts))
    return lines
