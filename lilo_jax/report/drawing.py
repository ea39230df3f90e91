"""How a report's figures look: SVG that takes its colours from the page around it.

Needs matplotlib, which is imported when a figure is drawn.
"""

import dataclasses
import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import numpy as np

from lilo_jax.report.tables import budget_title
from lilo_jax.report.theme import LIGHT, css
from lilo_jax.types import Array

P = ParamSpec("P")
Axes = Any
"""A matplotlib `Axes`: matplotlib is optional, so its types are not named."""

ARM_COLOURS = 7
"""Distinct colours of arms, `--arm-0` to `--arm-6` of the page; the baseline has the first."""
BINS = 50
"""Most bins along training."""
HEAT = (42 / 255, 120 / 255, 214 / 255)
"""Colour of a full cell of a heat map; emptier cells let the page shine through."""
INK, MUTED, GRID = "#010203", "#010204", "#010205"
WIDTH = 11.0
PANELS = 3
"""Most panels beside each other."""
_LABELS = {"steps": "training steps", "generated_tokens": "tokens generated for training"}
_PAGE_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    f"#01f00{i}": f"var(--arm-{i})" for i in range(ARM_COLOURS)
}
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure with what it takes to read it.

    Attributes:
        name: unique in a report; letters and hyphens.
        title: a few words.
        svg: an `<svg>` element.
        caption: how to read it.
        columns, rows: the numbers that it shows.
    """

    name: str
    title: str
    svg: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def _repr_html_(self) -> str:
        """How a notebook shows it: on a light ground, whatever the notebook's own colours are."""
        return (
            f'<figure style="--font: system-ui, sans-serif; {css(LIGHT)} margin: 0; padding: 12px; '
            f'background: var(--surface); color: var(--ink); font-family: var(--font)"><b>{html.escape(self.title)}</b>'
            f'{self.svg}<figcaption style="color: var(--muted)">{html.escape(self.caption)}</figcaption></figure>'
        )


def arm_colours(arms: Sequence[str], baseline: str | None) -> dict[str, str]:
    """A placeholder colour per arm: the first for the baseline, the others in turn (repeating when they run out)."""
    others = [arm for arm in arms if arm != baseline]
    numbers = {arm: 1 + i % (ARM_COLOURS - 1) for i, arm in enumerate(others)}
    return {arm: f"#01f00{numbers.get(arm, 0)}" for arm in arms}


def styled(draw: Callable[P, Drawing | None]) -> Callable[P, Drawing | None]:
    """Draws in the report's style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Drawing | None:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return styled


def optional(value: float) -> float | None:
    """A number of a file: None, an empty cell, for NaN."""
    return None if np.isnan(value) else float(value)


# ------------------------------------------------------------------------------------------------------- the figures


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    """A figure of the page's width and its panels [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in panels.flat:
        ax.patch.set_alpha(0)
    return figure, panels


def svg_of(figure: Any, name: str) -> str:
    """The figure as an `<svg>` element with the page's colours and fonts, and ids that no other figure uses."""
    import matplotlib

    buffer = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]*)', text))
    text = re.sub(r'\sid="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text).replace("xlink:href=", "href=")
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)  # the short form of older versions
    for placeholder, colour in _PAGE_COLOURS.items():
        text = text.replace(placeholder, colour)
    return text.replace("<svg", f'<svg role="img" aria-label="{name} figure"', 1).strip()


def legend_above(figure: Any, ax: Axes, columns: int = 4) -> None:
    """One legend for the whole figure, above its panels."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), columns))


def budget_axis(ax: Axes, budget: str) -> None:
    """A horizontal axis from zero on."""
    ax.set_xlabel(_LABELS.get(budget) or budget_title(budget))
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(short_numbers)
    ax.xaxis.get_major_locator().set_params(integer="seconds" not in budget, nbins=5)


def heat(ax: Axes, edges: np.ndarray, shares: np.ndarray, most: float) -> None:
    """Cells of one colour whose opacity is the square root of the share, so that they suit any background."""
    image = np.empty((*shares.shape, 4))
    image[..., :3] = HEAT
    image[..., 3] = np.sqrt(np.nan_to_num(shares) / most)
    extent = (edges[0], edges[-1], -0.5, len(shares) - 0.5)
    ax.imshow(image, origin="lower", aspect="auto", interpolation="none", extent=extent)
    ax.grid(visible=False)
    ax.set_yticks(range(0, len(shares), max((len(shares) - 1) // 8, 1)))


def heat_scale(figure: Any, axes: Array, most: float) -> None:
    """The colour scale at the right of all panels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colours = LinearSegmentedColormap.from_list("heat", [(*HEAT, 0.0), (*HEAT, 1.0)])
    scale = ScalarMappable(norm=PowerNorm(0.5, vmin=0, vmax=most), cmap=colours)
    bar = figure.colorbar(scale, ax=axes, pad=0.015, fraction=0.03, format=percent)
    bar.set_label("share of groups", color=INK)
    bar.ax.patch.set_alpha(0)
    bar.outline.set_edgecolor(MUTED)
    bar.ax.tick_params(color=MUTED, labelcolor=INK)


def percent(value: float, position: int | None = None) -> str:
    """0.25 as 25%, for an axis."""
    del position
    return f"{value:.0%}"


def short_numbers(value: float, position: int | None = None) -> str:
    """12000 as 12k, for an axis."""
    del position
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
