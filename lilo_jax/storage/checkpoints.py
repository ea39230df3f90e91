"""Checkpoints of a whole `TrainState` with its ledger, through orbax."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lilo_jax.errors import RunError, UsageError
from lilo_jax.types import PyTree


class Checkpoints:
    """Saves and restores steps under one directory; a save that was cut short is as if it had not begun."""

    def __init__(self, path: pathlib.Path, *, keep: int) -> None:
        self._path = path
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, record: dict[str, Any]) -> None:
        """Saves the state after `step` steps with a JSON record; returns before it is on disk."""
        if step not in self._manager.all_steps():
            arguments = ocp.args.Composite(state=ocp.args.StandardSave(_flat(state)), record=ocp.args.JsonSave(record))
            self._manager.save(step, args=arguments, force=True)

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The state and record of a step.

        Args:
            step: a finished one.
            like: a tree of arrays or shape structs with the shapes, dtypes and shardings wanted.
        """
        state, record = self._restore(step, _flat(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)))
        return jax.tree.unflatten(jax.tree.structure(like), [state[name] for name in _flat(like)]), record

    def restore_arrays(self, step: int, prefix: str = "") -> dict[str, np.ndarray]:
        """The arrays of a step whose names begin with `prefix`, on the host; needs no knowledge of the model."""
        metadata = self._manager.item_metadata(step)["state"]
        names = [name for name in getattr(metadata, "tree", metadata) if name.startswith(prefix)]
        how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        arguments = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=how, partial_restore=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(self._path / str(step) / "state", args=arguments)

    def restore_record(self, step: int) -> dict[str, Any]:
        """The record of a step."""
        return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def _restore(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like), record=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=arguments)
        except ValueError as error:
            first_line = str(error).splitlines()[0]
            raise RunError(f"the checkpoint {self._path}/{step} does not fit this model: {first_line}") from None
        return restored["state"], restored["record"]


def _flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, so that structs, tuples and None need no meaning on disk."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def load_arrays(path: pathlib.Path, prefix: str = "") -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    """The newest step under `path`, its arrays by name, those that begin with `prefix`, and its record."""
    if not path.is_dir():
        raise UsageError(f"no checkpoints at {path}: is {path.parent} a run directory?")
    with Checkpoints(path, keep=1) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise UsageError(f"no finished checkpoint in {path}: the run has not saved yet")
        return step, checkpoints.restore_arrays(step, prefix), checkpoints.restore_record(step)


def digests(path: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every array of the newest checkpoint and of its record, by name, sorted."""
    _, arrays, record = load_arrays(path)
    found = {"record": hashlib.sha256(repr(sorted(record.items())).encode()).hexdigest()}
    for name, array in arrays.items():
        content = f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return dict(sorted(found.items()))
