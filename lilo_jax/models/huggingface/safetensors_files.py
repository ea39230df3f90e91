"""Directories of safetensors files: read one tensor at a time, and written in shards with an index."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from lilo_jax.errors import UsageError
from lilo_jax.storage.hub import refuse_pointer
from lilo_jax.storage.json_lines import to_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Types of weights, and what a file calls them."""
SHARD_BYTES = 5 * 10**9


class SafetensorsFiles:
    """The tensors of a directory; nothing but headers is read before a tensor is asked for."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the headers of `model.safetensors`, or of the shards that the index names.

        Raises:
            UsageError: there is none, one is missing or cut short, or the index names what is not there.
        """
        self.directory = directory
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, pathlib.Path] = {}
        for path in _files(directory):
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118, not a dictionary
                    piece = file.get_slice(name)
                    if piece.get_dtype() not in STORED.values():
                        raise UsageError(
                            f"{path}: {name} is stored as {piece.get_dtype()}, not as one of "
                            f"{', '.join(STORED.values())}: convert the model to floats"
                        )
                    self.shapes[name], self._file_of[name] = tuple(piece.get_shape()), path
        _check_index(directory, self._file_of)

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, in the type that it is stored in."""
        with _opened(self._file_of[name]) as file:
            return file.get_tensor(name)

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors have the same bytes."""
        a, b = self.tensor(name), self.tensor(other)
        return a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8))


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    index = directory / INDEX
    if index.is_file():
        refuse_pointer(index)
        names = sorted(set(_weight_map(index).values()))
        if outside := [name for name in names if pathlib.PurePath(name).name != name]:
            raise UsageError(f"{index} names {outside[0]}, which is not a file of its own directory")
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise UsageError(f"{index} names {', '.join(missing[:3])}, not in {directory}: complete the download")
        return [directory / name for name in names]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if shards := sorted(directory.glob("model-*.safetensors")):
        raise UsageError(f"{directory} has {shards[0].name} but no {INDEX}: complete the download")
    if any(directory.glob("pytorch_model*.bin")):
        raise UsageError(
            f'{directory} holds pytorch_model.bin, which is code as much as data: convert it with `python -c "from '
            f"transformers import AutoModelForCausalLM as M; M.from_pretrained('{directory}').save_pretrained('NEW')\"`"
            f", and copy the tokenizer's files to NEW"
        )
    raise UsageError(f"{directory} holds no weights: neither {SINGLE} nor {INDEX}")


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in found.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{index} is not an index of safetensors files: it needs a weight_map") from None


def _check_index(directory: pathlib.Path, file_of: dict[str, pathlib.Path]) -> None:
    if (directory / INDEX).is_file():
        lost = [name for name, file in _weight_map(directory / INDEX).items() if file_of.get(name) != directory / file]
        if lost:
            raise UsageError(f"{directory / INDEX} lists {lost[0]}, which its file does not hold ({len(lost)} such)")


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[safe_open]:
    refuse_pointer(path)
    try:
        with safe_open(str(path), framework="np") as file:
            yield file
    except SafetensorError as error:
        raise UsageError(f"{path} is not a whole safetensors file ({error}): get it again") from None


class _Slot(NamedTuple):
    """Where a tensor is written.

    Attributes:
        file: its shard.
        begin: its first byte in the file.
        shape: it has.
    """

    file: pathlib.Path
    begin: int
    shape: tuple[int, ...]


def write_tensors(
    directory: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes `model.safetensors`, or shards of at most about `shard_bytes` with their index.

    Each tensor is written as it comes: no more than one of them is in memory.

    Args:
        directory: exists.
        shapes: of all tensors, by name, in the order in which they are to stand.
        tensors: name and array, one at a time, in any order.
        dtype: float32, bfloat16 or float16.
        shard_bytes: a shard is closed before it would grow beyond this.

    Raises:
        UsageError: the directory has weights already.
    """
    if taken := sorted(directory.glob("model*.safetensors*")):
        raise UsageError(f"{directory} has {taken[0].name} already: write to another directory")
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    shards = _divided({name: math.prod(shape) * kind.itemsize for name, shape in shapes.items()}, shard_bytes)
    files = [directory / f"shard-{number:05d}.tmp" for number in range(len(shards))]
    slots: dict[str, _Slot] = {}
    for path, names in zip(files, shards, strict=True):
        slots |= _begun(path, {name: shapes[name] for name in names}, kind)
    left = set(shapes)
    for name, array in tensors:
        left.remove(name)
        assert array.shape == slots[name].shape, f"{name} is {array.shape} and should be {slots[name].shape}"
        with open(slots[name].file, "r+b") as file:
            file.seek(slots[name].begin)
            file.write(np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8).data)
    assert not left, f"{len(left)} tensors have not come, such as {min(left)}"
    _named(directory, files, shards, kind.itemsize * sum(map(math.prod, shapes.values())))


def _divided(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in order, cut where a shard would have more than `most` bytes."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _begun(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], kind: np.dtype) -> dict[str, _Slot]:
    """A safetensors file with its header, as long as it will be; where its tensors go."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begins, end = {}, 0
    for name, shape in shapes.items():
        begins[name], end = end, end + kind.itemsize * math.prod(shape)
        header[name] = {"dtype": STORED[kind.name], "shape": list(shape), "data_offsets": [begins[name], end]}
    text = to_json(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of eight bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {name: _Slot(path, 8 + len(text) + begin, tuple(shapes[name])) for name, begin in begins.items()}


def _named(directory: pathlib.Path, files: list[pathlib.Path], shards: list[list[str]], total: int) -> None:
    """Gives whole files their names, and several an index."""
    if len(files) == 1:
        files[0].rename(directory / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(zip(files, shards, strict=True), start=1):
        final = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        path.rename(directory / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    temporary = directory / "index.tmp"
    temporary.write_text(to_json(index, indent=2) + "\n", encoding="utf-8")
    temporary.rename(directory / INDEX)  # last: without it, shards are an unfinished download to a reader
