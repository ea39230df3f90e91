"""Files of rows, each value as it is written: no guessed types, no words that mean "missing", no rounded numbers.

A reader yields the place of every row and its values by column.  It gives the error of a row that cannot be read to
`broken` and goes on with the next one, or stops where the rest of the file makes no sense.
"""

import csv
import io
import json
import pathlib
import re
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.storage.json_lines import Written, parse_value, read_bytes, read_records

Broken = Callable[[UsageError], None]
Places = Iterator[tuple[str, dict[str, Any]]]

LONGEST_CELL = 2**31 - 1
_SPACE = re.compile(r"[ \t\n\r]*")


def json_lines(file: pathlib.Path, broken: Broken) -> Places:
    """An object a line."""
    for number, record in read_records(file, broken):
        yield f"{file}, line {number}", record


def json_list(file: pathlib.Path, broken: Broken) -> Places:
    """A list of rows; a file that does not begin as one is read as lines."""
    try:
        text = _text(file)
    except UsageError as error:
        broken(error)
        return
    if not text.lstrip().startswith("["):
        yield from json_lines(file, broken)
        return
    number = 0
    try:
        for number, element in enumerate(_elements(text), start=1):
            where = f"{file}, row {number}"
            try:
                value = parse_value(where, element)
            except UsageError as error:
                broken(error)
                continue
            yield where, value if isinstance(value, dict) else {"conversation": value}
    except json.JSONDecodeError as error:
        broken(UsageError(f"{file}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})"))
    except RecursionError:
        broken(UsageError(f"{file}, row {number + 1}: brackets are nested too deeply"))


def _elements(text: str) -> Iterator[str]:
    """The text of each element of a JSON list; what they hold is read, more strictly, by others."""
    decoder = json.JSONDecoder(parse_int=str)  # of any number of digits
    position = _after_space(text, text.index("[") + 1)
    more = text[position : position + 1] != "]"
    while more:
        end = decoder.raw_decode(text, position)[1]
        yield text[position:end]
        mark = _after_space(text, end)
        more = text[mark : mark + 1] == ","
        position = _after_space(text, mark + 1) if more else mark
    if text[position:].rstrip() != "]":
        raise json.JSONDecodeError("Expecting ',' or the end of the list", text, position)


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space
    return space.end()


def _text(file: pathlib.Path) -> str:
    content = read_bytes(file)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}, line {line}: not UTF-8 text ({error.reason})") from None


def csv_rows(file: pathlib.Path, broken: Broken) -> Places:
    """Comma-separated text under a line of column names, quoted as spreadsheets do; it has no other types."""
    csv.field_size_limit(LONGEST_CELL)
    columns: list[str] = []
    line = 1
    try:
        reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
        for cells in reader:
            where, line = f"{file}, line {line}", reader.line_num + 1
            if cells and not columns:
                columns = _different(where, cells)
            elif cells and len(cells) != len(columns):
                broken(UsageError(f"{where}: {len(cells)} cells under {len(columns)} column names"))
            elif cells:
                yield where, dict(zip(columns, cells, strict=True))
    except UsageError as error:
        broken(error)
    except csv.Error as error:
        broken(UsageError(f"{file}, line {line}: not CSV ({error})"))


def xml_rows(file: pathlib.Path, broken: Broken) -> Places:
    """Every element that holds texts alone: its attributes, and the text of each element in it."""
    try:
        root = xml.etree.ElementTree.fromstring(_text(file).encode())
    except UsageError as error:
        broken(error)
        return
    except xml.etree.ElementTree.ParseError as error:
        broken(UsageError(f"{file}, line {error.position[0]}: not XML ({error})"))
        return
    elements = (each for each in root.iter() if len(each) and not any(len(part) for part in each))
    for number, element in enumerate(elements, start=1):
        where = f"{file}, row {number}"
        names = [*element.attrib, *(part.tag for part in element)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            broken(UsageError(f"{where}: {twice!r} stands there twice"))
            continue
        yield where, element.attrib | {part.tag: part.text or "" for part in element}


def parquet_rows(file: pathlib.Path, broken: Broken) -> Places:
    """A Parquet file."""
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        yield from pyarrow.parquet.ParquetFile(file).iter_batches()

    return _table_rows(file, batches(), broken)


def arrow_rows(file: pathlib.Path, broken: Broken) -> Places:
    """An Arrow stream, as `datasets` saves it, or an Arrow file."""
    import datasets
    import pyarrow

    def batches() -> Iterator[Any]:
        try:
            yield from datasets.Dataset.from_file(str(file)).data.table.to_batches()
        except pyarrow.ArrowInvalid:
            whole = pyarrow.ipc.open_file(pyarrow.py_buffer(read_bytes(file)))
            yield from (whole.get_batch(i) for i in range(whole.num_record_batches))

    return _table_rows(file, batches(), broken)


def _table_rows(file: pathlib.Path, batches: Iterator[Any], broken: Broken) -> Places:
    number = 0
    for batch in _readable(file, batches):
        columns = _different(str(file), batch.schema.names)
        for cells in zip(*batch.columns, strict=True):
            number += 1
            where = f"{file}, row {number}"
            try:
                row = {name: _stored(cell) for name, cell in zip(columns, cells, strict=True)}
            except UnicodeDecodeError as error:
                broken(UsageError(f"{where}: not UTF-8 text ({error.reason})"))
                continue
            yield where, row


def _readable(file: pathlib.Path, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except Exception as error:  # whatever the reader of a format raises
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{file} cannot be read as {file.suffix[1:]}: {reason}") from None


def _stored(cell: Any) -> Any:
    """The value of an Arrow cell, numbers with the digits that their type has; what is no JSON stays a cell."""
    from pyarrow import types

    kind = cell.type
    if not cell.is_valid:
        return None
    if types.is_dictionary(kind):
        return _stored(cell.value)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_stored(each) for each in cell.values]
    if types.is_struct(kind):
        return {name: _stored(each) for name, each in cell.items()}
    if types.is_float16(kind) or types.is_float32(kind):
        return Written(str(np.dtype(kind.to_pandas_dtype()).type(cell.as_py())))
    if types.is_decimal(kind):
        return Written(format(cell.as_py(), "f"))
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    plain = text or types.is_integer(kind) or types.is_boolean(kind) or types.is_float64(kind)
    return cell.as_py() if plain else cell


def _different(where: str, columns: list[str]) -> list[str]:
    """The names of columns, each of which must stand once."""
    for name in columns:
        if columns.count(name) > 1:
            raise UsageError(f"{where}: two columns are called {name!r}")
    return columns


READERS: dict[str, Callable[[pathlib.Path, Broken], Places]] = {
    ".jsonl": json_lines,
    ".json": json_list,
    ".parquet": parquet_rows,
    ".csv": csv_rows,
    ".xml": xml_rows,
    ".arrow": arrow_rows,
}
"""By the end of a file's name."""
