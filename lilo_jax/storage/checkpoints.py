"""Checkpoints of a whole `TrainState` with a record, through orbax; every array and record with its checksum.

orbax writes a step beside the others and renames it when all of it is there, so a save that was cut short is as if it
had not begun.  Readers open files and nothing else: they never disturb a run that is saving.

Written for orbax-checkpoint below 1: version 1 replaces CheckpointManager, its args and its handlers by
`orbax.checkpoint.v1` (`training.Checkpointer`, `save_pytree`), all of which this module alone would have to take up.
"""

import contextlib
import ctypes
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.array_checksums import checksums, kind
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.checked_files import FORMAT, hash_of
from lilo_jax.storage.paths import AnyPath
from lilo_jax.types import PyTree

STATE, RECORD = "state", "record"
COMMITTED = "commit_success.txt"
"""The object that a step in a bucket has once all others of it are there.  orbax writes a file of that name, so a run
that a person has copied there has it too."""
DAMAGED = "damaged"
"""Where damaged checkpoints are moved to, beside the directory of checkpoints."""
Found = TypeVar("Found")


class Checkpoints:
    """Saves and restores steps under one directory; the one writer there."""

    def __init__(self, path: pathlib.Path, *, keep: int, together: bool = True) -> None:
        """Opens the directory.

        Args:
            path: of the checkpoints.
            keep: the newest so many stay.
            together: whether all processes save to this directory; else each has its own.
        """
        self._path: AnyPath = path
        several = ocp.options.MultiprocessingOptions()
        if not together:
            own = jax.process_index()
            several = ocp.options.MultiprocessingOptions(
                primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
            )
            path.mkdir(parents=True, exist_ok=True)  # orbax makes it for all processes only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, create=together, multiprocessing_options=several
        )
        handlers = {STATE: ocp.StandardCheckpointHandler(), RECORD: ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*([RunError] if kind else [])):  # the first error is the one to tell
            self.wait()
        self._manager.close()

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        with saving(self._path):
            self._manager.wait_until_finished()

    def save(self, step: int, state: PyTree, record: Mapping[str, Any]) -> None:
        """Saves the state after `step` steps with a JSON record; returns before it is on disk."""
        if step in self._manager.all_steps():
            return
        arrays = _flat(state)
        _give_back()
        with saving(self._path):
            signed = _signed({"format": FORMAT, "arrays": checksums(arrays), "record": dict(record)})
            items = {STATE: ocp.args.StandardSave(arrays), RECORD: ocp.args.JsonSave(signed)}
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, step: int, like: PyTree) -> PyTree:
        """The state of a step.

        Args:
            step: a finished one.
            like: a tree of arrays or shape structs with the shapes, dtypes and shardings wanted.
        """
        wanted = _flat(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
        found = restore_arrays(self._path, step, wanted)
        return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _give_back() -> None:
    """Gives the system back what earlier saves have freed; glibc keeps it, in more and more pieces."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


# ---------------------------------------------------------------------------------------------------------- reading
def finished_steps(path: AnyPath) -> list[int]:
    """The steps that lie whole under `path`, in order."""
    steps = _steps(path)
    return [n for n in steps if (path / str(n) / COMMITTED).exists()] if isinstance(path, BucketPath) else steps


def unfinished_steps(path: BucketPath) -> list[int]:
    """The steps of which a part lies in a bucket, because a copy was cut short."""
    return [n for n in _steps(path) if not (path / str(n) / COMMITTED).exists()]


def _steps(path: AnyPath) -> list[int]:
    return sorted(int(p.name) for p in path.glob("*") if p.name.isdecimal() and p.is_dir())


def remove_step(path: BucketPath, step: int) -> None:
    """Deletes a step in a bucket, so that it never counts when a part of it is gone."""
    (path / str(step) / COMMITTED).unlink(missing_ok=True)
    (path / str(step)).unlink(missing_ok=True)


def read_record(path: AnyPath, step: int) -> dict[str, Any]:
    """The record of a step."""
    return _read(path, step)["record"]


def stream_arrays(path: AnyPath, step: int, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of a step, of those whose names begin with `prefix`; needs no knowledge of the model.

    One array at a time is on the host, whole and checked.
    """
    with _at_hand(path, step, STATE) as folder:
        for name, mark in _known(path, step, prefix).items():
            with _reading(path, step):
                found = _restored(folder, {name: 0}, {name: ocp.RestoreArgs(restore_type=np.ndarray)})
            _check(path, step, {name: mark}, found)
            yield name, found.pop(name)


def restore_arrays(
    path: AnyPath, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str = ""
) -> dict[str, jax.Array]:
    """The arrays of a step whose names begin with `prefix`, each process reading its own shards; all must call it.

    Args:
        path: of the checkpoints.
        step: a finished one.
        wanted: shape, dtype and sharding of every such array, by its whole name.
        prefix: "" for all.
    """
    known = _known(path, step, prefix)
    if different := _differences(known, wanted):
        raise RunError(f"the checkpoint {path}/{step} does not fit this model: {different}")
    how = ocp.checkpoint_utils.construct_restore_args(dict(wanted))
    with _at_hand(path, step, STATE) as folder, _reading(path, step):
        found = _restored(folder, dict(wanted), how)
    _check(path, step, known, found)
    return found


def _known(path: AnyPath, step: int, prefix: str) -> dict[str, str]:
    return {name: mark for name, mark in _read(path, step)["arrays"].items() if name.startswith(prefix)}


def _restored(folder: pathlib.Path, item: dict[str, Any], how: dict[str, Any]) -> dict[str, Any]:
    arguments = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
    with _reader(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(folder, args=arguments)


def newest(path: AnyPath) -> int:
    """The newest finished step under `path`; raises `UsageError` if there is none."""
    steps = finished_steps(path)
    if not steps:
        raise UsageError(f"no finished checkpoint in {path}: the run has not saved yet, or its checkpoints are lost")
    return steps[-1]


def at_newest(path: AnyPath, read: Callable[[int], Found]) -> Found:
    """What `read` finds in the newest step under `path`.

    A live run may delete a step while it is read: then the next one is taken.
    """
    while True:
        step = newest(path)
        try:
            return read(step)
        except RunError:
            if newest(path) == step:
                raise


def set_aside(path: AnyPath) -> list[int]:
    """Moves the newest steps that are damaged to `DAMAGED` beside `path`, until one is whole; returns those moved."""
    moved = []
    for step in reversed(finished_steps(path)):
        try:
            for _ in stream_arrays(path, step):
                pass
            break
        except RunError:
            target = path.with_name(DAMAGED)
            target.mkdir(exist_ok=True)
            names = {p.name for p in target.glob("*")}
            name = next(n for n in (str(step), *(f"{step}-{i}" for i in range(1, 10**6))) if n not in names)
            _move(path / str(step), target / name)
            moved.append(step)
    return moved


def _move(step: AnyPath, target: AnyPath) -> None:
    if isinstance(step, BucketPath) and isinstance(target, BucketPath):
        step.copy_to(target)
        remove_step(step.parent, int(step.name))
    elif isinstance(step, pathlib.Path):
        step.rename(target)


@contextlib.contextmanager
def _at_hand(path: AnyPath, step: int, item: str) -> Iterator[pathlib.Path]:
    """The directory of an item of a step; of one in a bucket a copy, for as long as the block lasts."""
    found = path / str(step) / item
    if isinstance(found, pathlib.Path):
        yield found
        return
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(folder, item)
        copied.mkdir()
        try:
            found.fetch(copied)
        except FileNotFoundError as error:
            raise _damaged(path, step, _first_line(error)) from None
        yield copied


def _reader(handler: ocp.CheckpointHandler) -> ocp.Checkpointer:
    """What reads without waiting for other processes: the first one may be the only one that reads."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


# -------------------------------------------------------------------------------------------------------- checksums
def weights_fingerprint(params: PyTree) -> str:
    """One hash of all weights of a model; all processes must call it."""
    return hash_of(checksums(_flat(params)))


def _check(path: AnyPath, step: int, known: Mapping[str, str], found: Mapping[str, Any]) -> None:
    whole = {name: array for name, array in found.items() if hasattr(array, "dtype")}  # or orbax has not found it
    marks = checksums({name: whole[name] for name in known if name in whole})
    for name, mark in known.items():
        if marks.get(name) != mark:
            raise _damaged(path, step, f"{name} is not what was written")


def _differences(known: Mapping[str, str], wanted: Mapping[str, Any]) -> str:
    """What the first array that differs is there and here; "" if none does."""
    kinds = {name: mark.split()[0] for name, mark in known.items()}
    for name in sorted(kinds.keys() | wanted.keys()):
        there, here = kinds.get(name, "missing"), kind(wanted[name]) if name in wanted else "missing"
        if there != here:
            return f"{name} is {there} there and {here} here"
    return ""


def _signed(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"checksum": _signature(content)}


def _signature(content: Mapping[str, Any]) -> str:
    return hash_of({name: value for name, value in content.items() if name != "checksum"})


def _read(path: AnyPath, step: int) -> dict[str, Any]:
    """What stands beside the arrays of a step: format, checksums and the record."""
    with (
        _at_hand(path, step, RECORD) as folder,
        _reading(path, step),
        _reader(ocp.JsonCheckpointHandler()) as checkpointer,
    ):
        content = checkpointer.restore(folder)
    version = content.get("format") if isinstance(content, dict) else None
    if version is None or not isinstance(version, int):
        raise RunError(f"the checkpoint {path}/{step} has no format: an earlier lilo_jax wrote it, or it is damaged")
    if content.get("checksum") != _signature(content):
        raise _damaged(path, step, "its record is not what was written")
    if version != FORMAT:
        raise RunError(
            f"the checkpoint {path}/{step} is of format {version}, and this version of lilo_jax reads {FORMAT}: take "
            f"the version that environment.json names"
        )
    return content


def _damaged(path: AnyPath, step: int, why: str) -> RunError:
    others = [other for other in finished_steps(path) if other < step]
    cure = f"--resume previous goes on from an earlier one ({others[-1]})" if others else "there is no earlier one"
    return RunError(f"the checkpoint {path}/{step} is damaged ({why}): put a copy of it back; {cure}")


@contextlib.contextmanager
def _reading(path: AnyPath, step: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever orbax and tensorstore raise at a file that is not theirs any more
        raise _damaged(path, step, _first_line(error)) from None


@contextlib.contextmanager
def saving(path: AnyPath) -> Iterator[None]:
    """Says what becomes of the run if a checkpoint cannot be written."""
    try:
        yield
    except Exception as error:  # a full disk, say, in whatever clothes
        cause = "" if isinstance(path, BucketPath) else ", perhaps for want of space"
        raise RunError(
            f"a checkpoint could not be written to {path} ({_first_line(error)}){cause}: {_intact(path)}, and the same "
            f"command goes on"
        ) from None


def _intact(path: AnyPath) -> str:
    try:
        whole = finished_steps(path)
    except OSError:  # the bucket cannot be reached
        return "what was saved before is intact"
    return f"the one of step {whole[-1]} is intact" if whole else "there is none yet"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, so that structs, tuples and None need no meaning on disk."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
