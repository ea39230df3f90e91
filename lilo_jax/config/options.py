"""Options as a reader meets them: the ten that matter first, then by group, each with its default and what it does."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lilo_jax.config.files import settings_name
from lilo_jax.config.settings import TABLES

FIRST = (
    "task",
    "model.path",
    "curriculum",
    "algorithm",
    "num-steps",
    "rollout.questions",
    "rollout.samples",
    "rollout.max-new-tokens",
    "optimizer.learning-rate",
    "output-dir",
)
"""The ten that matter first."""
WIDTH = 110
"""Columns of a help text."""


class _Option(NamedTuple):
    """One option of a command line.

    Attributes:
        name: as it is given, without the dashes in front.
        group: what it belongs to: `rollout`, `curriculum`, ...; `run` and `launch` for what has no group of its own,
            `command` for what only this command has.
        default: as it is written.
        text: what it does.
    """

    name: str
    group: str
    default: str
    text: str


def options_of(options: Any) -> list[_Option]:
    """Every option of a dataclass with the fields `config` and `launch`, in the order in which they are declared."""
    texts = field_texts(type(options))
    found = [*_options(options.config, "", "run"), *_options(options.launch, "", "launch")]
    for field in dataclasses.fields(options):
        if field.name not in ("config", "launch"):
            found.append(_option(field.name, "command", getattr(options, field.name), texts))
    return found


def short_help(options: Any, *, prog: str, description: str, named: Sequence[str] = ()) -> str:
    """The text of `--help`: the ten options that matter first, and those of what the command line names.

    Args:
        options: with their defaults.
        prog: how the command is called.
        description: what it does.
        named: of `task`, `curriculum` and `algorithm`, those whose own options are shown too.
    """
    found = options_of(options)
    first = sorted((o for o in found if o.name in FIRST), key=lambda option: FIRST.index(option.name))
    parts = [f"usage: {prog} [OPTIONS]", description.strip(), _block("The ten that matter first", first)]
    parts.append(_block("Of this command", [o for o in found if o.group == "command"]))
    for field in named:
        name = settings_name(field, getattr(options.config, field))
        own = [o for o in found if o.group == field and o.name != field]
        parts.append(_block(f"Of the {field} {name}", own) or f"The {field} {name} has no options.")
    parts.append(f"--help-all shows all {len(found)} options, --print-config their values.")
    return "\n\n".join(filter(None, parts))


def field_texts(settings: type) -> dict[str, str]:
    """What is written beneath each field of a dataclass, those of its bases included, by name."""
    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # built in, or made where no source is
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for pair in itertools.pairwise(body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _options(settings: Any, prefix: str, group: str) -> Iterator[_Option]:
    texts = field_texts(type(settings))
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name
        if not dataclasses.is_dataclass(value):
            yield _option(name, group, value, texts | {name: texts.get(field.name, "")})
            continue
        if name in TABLES:
            yield _Option(name, name, settings_name(name, value), texts.get(field.name, ""))
        yield from _options(value, f"{name}.", group if prefix else field.name)


def _option(name: str, group: str, value: Any, texts: dict[str, str]) -> _Option:
    if isinstance(value, tuple):
        default = " ".join(map(str, value)) or "none"
    elif isinstance(value, bool):
        default = "on" if value else "off"
    else:
        default = str(value) if value != "" else "none"
    return _Option(name.replace("_", "-"), group, default, texts.get(name, ""))


def _block(title: str, options: Sequence[_Option]) -> str:
    if not options:
        return ""
    left = [f"  --{option.name}" for option in options]
    width = min(max(map(len, left)), 36) + 2
    lines = []
    for head, option in zip(left, options, strict=True):
        text = f"{option.text} (default: {option.default})".strip()
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=head.ljust(width), subsequent_indent=" " * width, break_long_words=False
        )
    return "\n".join([f"{title}:", *lines])
