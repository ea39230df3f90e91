"""Fingerprints of runs: equal runs have equal fingerprints, wherever and whenever they ran."""

import hashlib
import pathlib

from lilo_jax.errors import UsageError
from lilo_jax.storage.checkpoints import digests
from lilo_jax.storage.run_directory import RunDirectory

_DETERMINISTIC = ("metrics", "eval", "ledger")


def digest_lines(path: pathlib.Path) -> list[str]:
    """`SHA-256  part` of every array of the newest checkpoint and of every deterministic record, sub-runs included.

    Sorted, without absolute paths or timings.
    """
    configs = sorted(path.rglob("config.json")) if path.is_dir() else []
    runs = [config.parent for config in configs if (config.parent / "checkpoints").is_dir()]
    if not runs:
        raise UsageError(f"no run with a checkpoint in {path}")
    lines = []
    for run in runs:
        directory, prefix = RunDirectory(run), "" if run == path else f"{run.relative_to(path).as_posix()}/"
        for name in _DETERMINISTIC:
            file = directory.path / f"{name}.jsonl"
            if file.exists():
                lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {prefix}{file.name}")
        parts = digests(directory.checkpoints_path)
        lines += [f"{value}  {prefix}checkpoint/{name}" for name, value in parts.items()]
    return lines
