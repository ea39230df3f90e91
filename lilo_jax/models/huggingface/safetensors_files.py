"""Directories of safetensors files: read one tensor at a time, and written in shards with an index."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lilo_jax.errors import UsageError
from lilo_jax.storage.hub import refuse_pointer
from lilo_jax.storage.json_lines import to_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F32", "BF16", "F16")


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
                    if piece.get_dtype() not in FLOATS:
                        raise UsageError(
                            f"{path}: {name} is stored as {piece.get_dtype()}, not as one of {', '.join(FLOATS)}: "
                            f"convert the model to floats"
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


def write_tensors(directory: pathlib.Path, tensors: Iterable[tuple[str, np.ndarray]], *, shard_bytes: int) -> None:
    """Writes `model.safetensors`, or shards of at most about `shard_bytes` with their index.

    No more than one shard is in memory.

    Args:
        directory: exists.
        tensors: name and array, one at a time.
        shard_bytes: a shard is closed before it would grow beyond this.

    Raises:
        UsageError: the directory has weights already.
    """
    if taken := sorted(directory.glob("model*.safetensors*")):
        raise UsageError(f"{directory} has {taken[0].name} already: write to another directory")
    shards: list[tuple[pathlib.Path, list[str]]] = []
    part: dict[str, np.ndarray] = {}
    size = total = 0

    def close() -> None:
        path = directory / f"shard-{len(shards):05d}.tmp"
        save_file(part, path, metadata={"format": "pt"})
        shards.append((path, list(part)))
        part.clear()

    for name, array in tensors:
        if part and size + array.nbytes > shard_bytes:
            close()
            size = 0
        part[name] = np.ascontiguousarray(array)
        size, total = size + array.nbytes, total + array.nbytes
    close()
    if len(shards) == 1:
        shards[0][0].rename(directory / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(shards, start=1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        path.rename(directory / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    temporary = directory / "index.tmp"
    temporary.write_text(to_json(index, indent=2) + "\n", encoding="utf-8")
    temporary.rename(directory / INDEX)  # last: without it, shards are an unfinished download to a reader


def write_one_file(
    path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Writes float32 tensors as one safetensors file; no more than one of them is in memory.

    Args:
        path: of the file.
        shapes: of all tensors, by name.
        tensors: name and array, one at a time, in the order of `shapes`.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = to_json(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of eight bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, array), (wanted, shape) in zip(tensors, shapes.items(), strict=True):
            assert (name, array.shape) == (wanted, shape), f"{name} is not {wanted} of {shape}"
            file.write(np.ascontiguousarray(array, "<f4").data)
