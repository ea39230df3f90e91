"""Tables of the site that are made from the code: a page says `<!-- table: NAME -->`, and the build puts it there.

`mkdocs.yml` names this file as a hook; `tests/test_readme.py` reads the same tables.
"""

import importlib
import inspect
import itertools
import re

from lilo_jax import curriculum, types
from lilo_jax.config import TABLES, Options
from lilo_jax.config.options import FIRST, field_texts, options_of

MARK = re.compile(r"<!-- table: (\w+) -->")
PARTS = (
    *(
        "sources",
        "estimators",
        "regression",
        "histories",
        "traps",
        "dynamics",
        "values",
        "prices",
        "selectors",
        "allocators",
    ),
    *("rounds", "gates", "buffers", "controllers", "features"),
)
"""Modules of `lilo_jax.curriculum` that hold parts, in the order in which a step meets them."""


def on_page_markdown(markdown, **_):
    """Called by MkDocs with every page."""
    return MARK.sub(lambda mark: TABLE[mark[1]](), markdown)


def first_sentence(text):
    """The first sentence of a docstring, on one line, for a cell of a table."""
    head = " ".join((text or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)0-9])\.(?: |$)", head, maxsplit=1)[0].replace("|", "\\|").rstrip(".") + "."


def public_functions(module):
    """Functions that are defined in a module and meant for others, in the order of the file."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def parts():
    """Every part of a curriculum: where it lies, and whether `lilo_jax.curriculum` exports it."""
    lines = ["| part | what it is | exported |", "|---|---|---|"]
    for name in PARTS:
        for part in public_functions(importlib.import_module(f"lilo_jax.curriculum.{name}")):
            exported = "yes" if part.__name__ in curriculum.__all__ else ""
            lines.append(f"| `{name}.{part.__name__}` | {first_sentence(part.__doc__)} | {exported} |")
    return "\n".join(lines)


def options():
    """All options by group, the ten that matter first."""
    found = options_of(Options())
    first = sorted((o for o in found if o.name in FIRST), key=lambda option: FIRST.index(option.name))
    blocks = ["## The ten that matter first", _option_table(first)]
    for group, own in itertools.groupby(sorted(found, key=lambda o: _order(found, o.group)), key=lambda o: o.group):
        blocks += [f"## {group}", _option_table(list(own))]
    for kind, table in TABLES.items():
        blocks += [f"## Settings of every {kind}", _settings_table(kind, table)]
    return "\n\n".join(blocks)


def glossary():
    """The words of `lilo_jax/types.py`."""
    text = types.__doc__.split("The axes of arrays")[0]
    entries = re.findall(r"^    ([a-z][a-z-]*) {2,}(\S.*)$", text, re.MULTILINE)
    return "\n".join(["| word | means |", "|---|---|", *(f"| **{word}** | {means} |" for word, means in entries)])


def face():
    """The names of `lilo_jax.__all__`."""
    lilo_jax = importlib.import_module("lilo_jax")
    rows = (f"| `{name}` | {first_sentence(getattr(lilo_jax, name).__doc__)} |" for name in lilo_jax.__all__)
    return "\n".join(["| name | is |", "|---|---|", *rows])


def _order(found, group):
    return [option.group for option in found].index(group)


def _option_table(found):
    rows = (f"| `--{o.name}` | {_cell(o.default)} | {o.text.replace('|', '&#124;')} |" for o in found)
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def _settings_table(kind, table):
    lines = [f"| {kind} | option | default | |", "|---|---|---|---|"]
    for name, settings in table.items():
        texts = field_texts(settings)
        for field, value in vars(settings()).items() if name != "dataset" else []:
            text = texts.get(field, "").replace("|", "&#124;")
            lines.append(f"| `{name}` | `--{kind}.{field.replace('_', '-')}` | {_cell(value)} | {text} |")
    return "\n".join(lines)


def _cell(value):
    text = str(value).replace("|", "&#124;")
    return f"`{text}`" if text and "`" not in text else text


TABLE = {"parts": parts, "options": options, "glossary": glossary, "face": face}
