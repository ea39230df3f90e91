"""JSON as all of it is written, and JSON-lines files of a user, read with the line of each mistake, written whole.


JSON is read strictly.  NaN and Infinity are none of it: they are what a data frame writes for a missing value.  Of a
key that stands twice in an object nobody knows which value is meant.  Half of a surrogate pair is no text.
"""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from lilo_jax.errors import UsageError
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.files import whole_file
from lilo_jax.storage.paths import AnyPath, path_of


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


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Written(float):
    """A number that is shown as it was written: 1.50 stays 1.50, and no digit is lost."""

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = str(text)
        return number

    def __str__(self) -> str:
        return self.text


def refuse(error: UsageError) -> NoReturn:
    """Raises the error: what a reader does with a broken row, if nobody collects them."""
    raise error


def read_records(
    path: AnyPath | str, broken: Callable[[UsageError], None] = refuse
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number, from 1, and object of every line that is not blank.

    Args:
        path: of the file.
        broken: is given the error of a line that cannot be read, before the next line is read.

    Raises:
        UsageError: the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    lines = read_bytes(path).split(b"\n")  # a text may hold other line separators
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = parse_record(path, number, decoded(f"{path}, line {number}", line))
            except UsageError as error:
                broken(error)
                continue
            yield number, record


def read_bytes(path: AnyPath | str) -> bytes:
    """What a file of text holds, without a byte order mark."""
    try:
        return path_of(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def decoded(where: str, line: bytes) -> str:
    """The text of a line."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start + 1})") from None


def parse_record(path: AnyPath | str, number: int, line: str) -> dict[str, Any]:
    """The object of one line; raises `UsageError` with its number if it is none."""
    record = parse_value(f"{path}, line {number}", line)
    if not isinstance(record, dict):
        raise UsageError(f"{path}, line {number}: expected a JSON object, got {line.strip()[:40]}")
    return record


def parse_value(where: str, text: str) -> Any:
    """The value that a JSON text holds; raises `UsageError` with its place if it is not one that can be used."""
    try:
        value = json.loads(
            text, parse_float=_number, parse_constant=_no_constant, object_pairs_hook=_object_of_different_keys
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeEncodeError:
        raise UsageError(f"{where}: half of a surrogate pair, which is not text") from None
    except RecursionError:
        raise UsageError(f"{where}: brackets are nested too deeply") from None
    except ValueError as error:
        reason = "a whole number with too many digits: write it as text" if "integer string" in str(error) else error
        raise UsageError(f"{where}: {reason}") from None
    return value


def _number(text: str) -> Written:
    number = Written(text)
    if math.isinf(number):
        raise ValueError(f"{text} is beyond any number that can be computed with: write it as text")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON: a value that is missing is null or left out")


def _object_of_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return found


def check_output(path: AnyPath) -> None:
    """Raises `UsageError` if a file cannot be written there; to be called before what it will hold is computed."""
    if not isinstance(path, BucketPath) and not path.parent.is_dir():
        raise UsageError(
            f"there is no directory {path.parent} to write {path.name} to: make it, or pass another --output"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a directory: pass a file as --output")


def check_new_directory(path: AnyPath) -> None:
    """Raises `UsageError` if a directory of results cannot be made there without touching other files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not empty: pass another --output")
    if isinstance(path, BucketPath):
        return
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{above} is a file: pass another --output")


def write_records(path: AnyPath, records: Iterable[dict[str, Any]]) -> None:
    """Writes one line per record; the file appears, or replaces an older one, when all of them are there."""
    with whole_file(path) as file:
        for record in records:
            file.write((to_json(record, ensure_ascii=False) + "\n").encode())
