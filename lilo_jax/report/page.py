"""A report as one HTML file: nothing outside of it is loaded; it suits light and dark, wide and narrow screens."""

import html
import importlib.resources
import re
from collections.abc import Sequence

from lilo_jax.report.drawing import Drawing
from lilo_jax.report.tables import Table
from lilo_jax.report.theme import variables
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.paths import AnyPath, path_of

LONG_WORD = 20
"""Characters from which on a word may be broken at its punctuation, so that it fits on a phone."""
LONG_CELL = 48
"""Characters from which on a cell of a table may have several lines, so that the other columns are seen."""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def write_page(path: AnyPath | str, title: str, sections: Sequence[str]) -> AnyPath:
    """Writes a page of elements in the report's style; returns its path."""
    path = path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = importlib.resources.files(__package__)
    style, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = _PAGE.format(title=escaped(title), style=variables() + style, script=script, body="\n".join(sections))
    write_whole(path, page)
    return path


def escaped(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text), quote=True)


def sentence(text: str) -> str:
    """A sentence as HTML, in which long names may be broken after their punctuation."""

    def breakable(found: re.Match[str]) -> str:
        return "<wbr>".join(escaped(part) for part in re.findall(r"[^+/=@.,:_-]*[+/=@.,:_-]?", found[0]) if part)

    return "".join(
        re.sub(rf"\S{{{LONG_WORD},}}", breakable, part) if len(part) >= LONG_WORD else escaped(part)
        for part in re.split(r"(\s+)", text)
    )


def scrolling(label: str, content: str) -> str:
    """What may be wider than a phone, in a box that scrolls by itself, by keys too."""
    return f'<div class="wide" role="region" aria-label="{escaped(label)}" tabindex="0">{content}</div>'


def table_element(table: Table) -> str:
    """A table with its title and notes."""

    def row(cells: Sequence[str], tag: str) -> str:
        parts = []
        for i, cell in enumerate(cells):
            kinds = " ".join(["text"] * (i < table.text_columns) + ["long"] * (len(cell) >= LONG_CELL))
            marked = f'<{tag} class="{kinds}">' if kinds else f"<{tag}>"
            parts.append(f"{marked}{escaped(cell)}</{tag}>")
        return f"<tr>{''.join(parts)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    notes = "".join(f'<p class="note">{sentence(note)}</p>' for note in table.notes)
    content = f"<table><thead>{row(table.columns, 'th')}</thead><tbody>{rows}</tbody></table>"
    return f"<h3>{sentence(table.title)}</h3>{scrolling(table.title, content)}{notes}"


def folded(title: str, content: str) -> str:
    """What is shown when its title is opened."""
    return f"<details><summary>{escaped(title)}</summary>{content}</details>"


def figure_element(drawing: Drawing) -> str:
    """A figure with its title and caption."""
    return (
        f'<h2>{sentence(drawing.title)}</h2>\n<figure id="{drawing.name}">{scrolling(drawing.title, drawing.svg)}'
        f"<figcaption>{sentence(drawing.caption)}</figcaption></figure>"
    )
