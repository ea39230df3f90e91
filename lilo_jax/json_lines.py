"""JSON as all of it is written, and JSON-lines files of a user, read with the line of each mistake, written whole."""

import json
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.files import whole_file


def to_json(value: Any, **form: Any) -> str:
    """The text of a value, always valid JSON: a number that is not finite is a missing one, null.

    Args:
        value: of dictionaries, lists, texts and numbers.
        **form: as of `json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **form)


def finite(value: Any) -> Any:
    """The same structure, with None for what JSON cannot say."""
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(path: pathlib.Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number, from 1, and object of every line that is not blank.

    Raises:
        UsageError: a line is not a JSON object, or the file is not UTF-8.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").split("\n")  # a text may hold other line separators
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, parse_record(path, number, line)


def parse_record(path: pathlib.Path | str, number: int, line: str) -> dict[str, Any]:
    """The object of one line; raises `UsageError` with its number if it is none."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise UsageError(f"{path}, line {number}: expected a JSON object, got {line.strip()[:40]}")
    return record


def check_output(path: pathlib.Path) -> None:
    """Raises `UsageError` if a file cannot be written there; to be called before what it will hold is computed."""
    if not path.parent.is_dir():
        raise UsageError(
            f"there is no directory {path.parent} to write {path.name} to: make it, or pass another --output"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a directory: pass a file as --output")


def check_new_directory(path: pathlib.Path) -> None:
    """Raises `UsageError` if a directory of results cannot be made there without touching other files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not empty: pass another --output")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{above} is a file: pass another --output")


def write_records(path: pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes one line per record; the file appears, or replaces an older one, when all of them are there."""
    with whole_file(path) as file:
        for record in records:
            file.write((to_json(record, ensure_ascii=False) + "\n").encode())
