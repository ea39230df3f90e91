"""Settings from a command line, with mistakes in one sentence."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from lilo_jax.config.files import flat, settings_class
from lilo_jax.config.options import short_help
from lilo_jax.config.settings import TABLES
from lilo_jax.errors import UsageError
from lilo_jax.storage.paths import path_of
from lilo_jax.tasks.prompts import template_of

T = TypeVar("T")
SHOWN = 300
"""Characters of an argument that a message shows at most."""


def parse(options: T, args: Sequence[str], *, prog: str, description: str) -> T:
    """Overrides the fields of `options`, a dataclass with a `config: Config` field, from the command line.

    `--task NAME`, `--curriculum NAME` and `--algorithm NAME` choose settings first (those of `options` where it has
    that name already, else the defaults), which the rest then overrides;
    `--task.path` alone means the dataset task, and `--task.template-file FILE` the `--task.template` that the file
    holds: a config needs no other file.  Mistakes as in `command_line`.  `--help` shows the options that matter
    first, and those of the settings that are chosen by name; `--help-all` shows all.
    """
    args = _with_template(list(args))
    if not any(re.match(r"--task(=|$)", a) for a in args) and any(re.match(r"--task\.path(=|$)", a) for a in args):
        args += ["--task", "dataset"]
    config = options.config  # type: ignore[attr-defined]
    named = []
    for field in TABLES:
        name, args = _take_option(args, f"--{field}")
        if name is not None and type(getattr(config, field)) is not settings_class(field, name):
            config = dataclasses.replace(config, **{field: settings_class(field, name)()})
        named += [field] if name is not None else []
    options = dataclasses.replace(options, config=config)  # type: ignore[type-var]
    if "--help-all" in args:
        args = ["--help"]
    elif {"--help", "-h"} & set(args):
        print(short_help(options, prog=prog, description=description, named=named))
        raise SystemExit(0)
    return command_line(options, args, prog=prog, description=description)


def command_line(options: T, args: Sequence[str], *, prog: str, description: str) -> T:
    """Overrides the fields of a dataclass; `UsageError` in one sentence on anything that it does not understand.

    What is wrong with a long argument is said of its beginning: to look for similar options takes time with its square.
    """
    if any(len(arg) > SHOWN for arg in args):
        _parsed(options, [arg[:SHOWN] for arg in args], prog=prog, description=description)
    return _parsed(options, args, prog=prog, description=description)


def _parsed(options: T, args: Sequence[str], *, prog: str, description: str) -> T:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(type(options), default=options, args=args, prog=prog, description=description)
    except SystemExit as exit_:
        if exit_.code:
            raise UsageError(_one_sentence(printed.getvalue(), prog)) from None
        raise


def given_fields(options: T, default: T, args: Sequence[str]) -> frozenset[str]:
    """Dotted names of the fields of a config that somebody chose: on a command line, or in an experiment's own config.

    Args:
        options: with a `config` before the command line.
        default: with the library's own.
        args: of the command line.
    """
    there, here = (flat(dataclasses.asdict(each.config)) for each in (options, default))  # type: ignore[attr-defined]
    return named_fields(args) | {name for name in here if here[name] != there.get(name)}


def named_fields(args: Sequence[str]) -> frozenset[str]:
    """Dotted names of the fields that a command line names; of a choice such as `--algorithm` also "algorithm.name"."""
    named = [arg[2:].partition("=")[0].replace("-", "_") for arg in args if arg.startswith("--")]
    plain = [re.sub(r"(^|\.)no_(?=[^.]*$)", r"\1", name) for name in named]  # a switch that is turned off
    return frozenset([*named, *plain, *(f"{name}.name" for name in named)])


def option_value(args: Sequence[str], flag: str) -> str | None:
    """The value given to an option on a command line, or None."""
    return _take_option(list(args), flag)[0]


def _with_template(args: list[str]) -> list[str]:
    """The arguments with the text of a template in the place of its file."""
    file, args = _take_option(args, "--task.template-file")
    if file is None:
        return args
    if option_value(args, "--task.template") is not None:
        raise UsageError("--task.template and --task.template-file say the same twice: leave one out")
    return [*args, f"--task.template={template_of(path_of(file))}"]


def _take_option(args: list[str], flag: str) -> tuple[str | None, list[str]]:
    for i, arg in enumerate(args):
        if arg == flag:
            if i + 1 == len(args) or args[i + 1].startswith("--"):
                raise UsageError(f"{flag} needs a name")
            return args[i + 1], args[:i] + args[i + 2 :]
        if arg.startswith(flag + "="):
            return arg.removeprefix(flag + "="), args[:i] + args[i + 1 :]
    return None, args


def _one_sentence(message: str, prog: str) -> str:
    """Folds tyro's boxed message into one line: what was wrong, the nearest option, where help is."""
    lines = [line.strip(" │|╭╮╰╯") for line in re.sub(r"^╭─+ (.*?) ─*╮", r"\1\n---", message.strip()).splitlines()]
    sections = re.split(r"\n[─-]{3,}(?:\n|$)", "\n".join(lines))
    sections = [" ".join(section.split()) for section in sections if section.strip()]
    wrong = sections[1] if len(sections) > 1 else " ".join(sections)
    nearest = re.search(r"Perhaps you meant:?\s*(--\S+)", " ".join(sections))
    hint = f"; did you mean {nearest[1]}?" if nearest else ""
    return f"{wrong.rstrip('.')}{hint} (see {prog} --help)"
