"""What verbs are given: files of JSON lines, templates, tasks; each mistake in one sentence."""

from collections.abc import Iterator, Sequence
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.storage.classes import class_named
from lilo_jax.storage.json_lines import read_records
from lilo_jax.storage.paths import AnyPath, path_of


def template_text(template: str, file: AnyPath | None) -> str:
    """The text of --template, or that of --template-file."""
    from lilo_jax.tasks.prompts import template_of

    if file is not None and template:
        raise UsageError("--template and --template-file say the same twice: leave one out")
    return template if file is None else template_of(file)


def stops(stop: Sequence[str]) -> tuple[str, ...]:
    """The strings of --stop, each once."""
    if "" in stop:
        raise UsageError("--stop must not be empty: leave it out, or give the text to stop at")
    return tuple(dict.fromkeys(stop))


def check_system(system: str, *, chat: bool) -> None:
    """Refuses --system where there is no chat."""
    if system and not chat:
        raise UsageError("--system is a turn of a chat template: add --chat, or leave it out")


def task_of(source: str, **settings: str) -> Any:
    """The settings of a task, NAME, NAME=PATH or a file."""
    from lilo_jax.tasks import TASKS
    from lilo_jax.tasks.suites import with_settings

    name, _, path = source.partition("=")
    if path_of(source).exists() and name not in TASKS:
        name, path = "dataset", source
    return with_settings(class_named("task (or file)", name, TASKS)(), path=path, **settings)


def records_of(path: AnyPath) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and records of a file of JSON lines."""
    if not path.is_file():
        raise UsageError(f"no input file at {path}: pass --input FILE with one JSON object a line")
    return read_records(path)


def rows_of(path: AnyPath, ids: Any, *, most: int) -> list[list[int]]:
    """Token ids of every line, none of them longer than `most` (0: any length)."""
    rows = []
    for number, record in records_of(path):
        rows.append(ids(number, record))
        if not rows[-1]:
            raise UsageError(f"{path}, line {number}: no tokens; a line needs at least one")
        if most and len(rows[-1]) > most:
            raise UsageError(f"{path}, line {number}: {len(rows[-1])} tokens, but the model has room for {most}")
    return rows


def tokens_of(path: AnyPath, number: int, record: dict[str, Any], vocab_size: int) -> list[int]:
    """The token ids of a line."""
    tokens = record.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(t, int) and not isinstance(t, bool) for t in tokens):
        raise UsageError(f'{path}, line {number}: expected {{"tokens": [whole numbers]}}')
    if any(not 0 <= t < vocab_size for t in tokens):
        raise UsageError(f"{path}, line {number}: token ids must be from 0 to {vocab_size - 1}, the model's vocabulary")
    return tokens
