"""Fingerprints of runs: equal runs have equal fingerprints, wherever and whenever they ran."""

import hashlib

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.storage.checkpoints import at_newest, read_record, stream_arrays
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory

_DETERMINISTIC = ("metrics", "eval", "ledger", "groups")


def digest_lines(path: AnyPath) -> list[str]:
    """`SHA-256  part` of every array of the newest checkpoint and of every deterministic record, sub-runs included.

    Sorted, without absolute paths or timings.
    """
    configs: list[AnyPath] = sorted(path.rglob("config.json")) if path.is_dir() else []
    runs = [config.parent for config in configs if (config.parent / "checkpoints").is_dir()]
    if not runs:
        raise UsageError(f"no run with a checkpoint in {path}")
    lines = []
    for run in runs:
        directory, prefix = RunDirectory(run), "" if run == path else f"{run.relative_to(path).as_posix()}/"
        for name in _DETERMINISTIC:
            content = directory.files.read(f"{name}.jsonl")
            if content is not None:
                lines.append(f"{hashlib.sha256(content).hexdigest()}  {prefix}{name}.jsonl")
        lines += [f"{value}  {prefix}checkpoint/{name}" for name, value in digests(directory).items()]
    return lines


def digests(directory: RunDirectory) -> dict[str, str]:
    """SHA-256 of every array of a run's newest checkpoint, and of the ledger in its record, by name, sorted."""
    directory.newest_step()
    path = directory.checkpoints_path
    return at_newest(path, lambda step: _of_step(path, step))


def _of_step(path: AnyPath, step: int) -> dict[str, str]:
    """The digests of a step; one array at a time is on the host."""
    record = read_record(path, step)
    found = {"record": hashlib.sha256(repr(sorted(record["ledger"].items())).encode()).hexdigest()}
    for name, array in stream_arrays(path, step):
        hasher = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        found[name] = hasher.hexdigest()
    return dict(sorted(found.items()))
