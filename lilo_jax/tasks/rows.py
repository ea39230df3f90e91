"""Rows of a data set: from a file, a directory, a hub repository or what the package ships.

A path is, in this order: empty (the data set's own hub repository), "sample" (rows of our own in its schema, which
come with the package), a file, a directory whose files name their split, or a hub id.
"""

import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lilo_jax.errors import UsageError
from lilo_jax.storage import hub
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.json_lines import refuse
from lilo_jax.storage.paths import path_of
from lilo_jax.tasks.formats import READERS, Broken

SAMPLES = pathlib.Path(__file__).parent / "samples"
SAMPLE = "sample"
SPLITS = ("train", "validation", "test")
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])")
_SAME = {"valid": "validation", "val": "validation", "dev": "validation"}


class Source(NamedTuple):
    """Where a data set is published.

    Attributes:
        name: of the directory of its sample rows; "" if none ship.
        repository: hub id.
        files: patterns of the files to fetch; () for all data files.
    """

    name: str
    repository: str
    files: tuple[str, ...] = ()


class Row(NamedTuple):
    """One row with its place, for messages."""

    where: str
    values: dict[str, Any]

    def first(self, *columns: str) -> Any:
        """The value of the first of these columns that the row has.

        Raises:
            UsageError: it has none of them, or they are null or no finite number.
        """
        for column in columns:
            value = self.values.get(column)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{self.where}: {column!r} is {value}, it must be a string or a finite number")
            if value is not None:
                return value
        if empty := [column for column in columns if column in self.values]:
            raise UsageError(f"{self.where}: {empty[0]!r} is null, it must be a string or a number")
        found = ", ".join(sorted(self.values)) or "none"
        raise UsageError(f"{self.where}: no column {' or '.join(map(repr, columns))} (it has {found})")

    def text(self, *columns: str) -> str:
        """The same as text that is not blank; a list is joined with commas."""
        value = self.first(*columns)
        parts = value if isinstance(value, list) else [value]
        text = ", ".join(map(str, parts)).strip() if all(map(is_plain, parts)) else ""
        if not text:
            raise UsageError(f"{self.where}: {columns[0]!r} must be a text or a number, and not empty")
        return text

    def number(self, column: str) -> float:
        """The same as a number; text is read as one."""
        value = self.first(column)
        try:
            number = float(value) if is_plain(value) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"{self.where}: {column!r} must be a number")
        return number

    @property
    def id(self) -> str:
        """What the data set calls it; "" if it has no such column."""
        return self.text("id", "ID") if {"id", "ID"} & self.values.keys() else ""


def is_plain(value: Any) -> bool:
    """Whether a value is a text or a number."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def split_files(source: Source, path: str, split: str, *, revision: str = "") -> list[pathlib.Path]:
    """The files of a split; a directory whose files name no split is all of it."""
    named = _named_files(source, path, revision)
    found = named.get(split) or named.get("")
    if not found:
        has = ", ".join(sorted(named))
        raise UsageError(f"{path or source.repository} holds no file of the split {split!r}: it has {has}")
    return found


def split_names(source: Source, path: str, *, revision: str = "") -> set[str]:
    """The splits that files are named after; none if they name no split."""
    return set(_named_files(source, path, revision)) - {""}


def _named_files(source: Source, path: str, revision: str) -> dict[str, list[pathlib.Path]]:
    """Files by the split that they are named after; "" if none of them is named after one."""
    place = path_of(path)
    if isinstance(place, BucketPath) and place.is_file():
        return {"": [hub.local_copy(place) / place.name]}
    if path and _expanded(path).is_file():
        return {"": [_expanded(path)]}
    directory = _directory(source, path, revision)
    files = sorted(f for f in directory.rglob("*") if f.suffix in READERS and _holds_rows(f))
    # A copy of a whole repository may hold more than this data set.
    files = [f for f in files if any(f.relative_to(directory).match(p) for p in source.files)] or files
    if not files:
        raise UsageError(f"{directory} holds no data file ({', '.join(READERS)})")
    named: dict[str, list[pathlib.Path]] = {}
    for file in files:
        named.setdefault(_split_of(file.relative_to(directory)), []).append(file)
    if len(named) > 1:
        named.pop("", None)  # files beside those of the splits
    return named


def read_rows(file: pathlib.Path, broken: Broken = refuse) -> Iterator[Row]:
    """The rows of one file.

    Args:
        file: of one of the known formats.
        broken: is given the error of each row that cannot be read.

    Raises:
        UsageError: the file cannot be read at all.
    """
    if file.suffix not in READERS:
        raise UsageError(f"{file} is of no known format: its name must end in {', '.join(READERS)}")
    return (Row(where, values) for where, values in READERS[file.suffix](file, broken))


def _directory(source: Source, path: str, revision: str) -> pathlib.Path:
    if path == SAMPLE:
        if not source.name:
            raise UsageError("no sample rows ship for this task: pass a file, a directory or a hub id")
        return SAMPLES / source.name
    if not path and not source.repository:
        raise UsageError("no data: pass --task.path FILE, a directory or a hub id")
    if path.startswith(("/", ".", "~")) and not _expanded(path).exists():
        raise UsageError(f"no data file or directory at {path!r}")
    kind = hub.DATASET._replace(patterns=source.files) if source.files and not path else hub.DATASET
    try:
        return hub.local_directory(path or source.repository, revision, kind=kind)
    except UsageError as error:
        if path:
            raise
        cure = f"; the path {SAMPLE!r} takes rows of our own that ship with the package" if source.name else ""
        raise UsageError(f"{error}{cure}") from None


def _expanded(path: str) -> pathlib.Path:
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"no data at {path}: there is no such user") from None


def _holds_rows(file: pathlib.Path) -> bool:
    return file.is_file() and file.name not in (
        "dataset_dict.json",
        "dataset_info.json",
        "dataset_infos.json",
        "state.json",
    )


def _split_of(file: pathlib.Path) -> str:
    found = _SPLIT.search(file.as_posix().lower())
    return _SAME.get(found[1], found[1]) if found else ""
