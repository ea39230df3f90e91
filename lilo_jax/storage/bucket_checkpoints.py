"""Checkpoints in a bucket: orbax saves to a directory of this machine, and a thread copies from there.

orbax 0.12 knows gs:// itself, but of s3:// it makes a directory called `s3:`; so every bucket is served alike.  With
several processes the first one copies, and holds the whole state in its memory while it saves.
"""

import concurrent.futures
import hashlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.checkpoints import (
    COMMITTED,
    Checkpoints,
    finished_steps,
    remove_step,
    saving,
    unfinished_steps,
)
from lilo_jax.storage.compilation_cache import cache_directory
from lilo_jax.storage.paths import AnyPath
from lilo_jax.types import PyTree


def checkpoints_in(path: AnyPath, *, keep: int) -> Checkpoints:
    """The writer of checkpoints under `path`, wherever that is; the newest `keep` stay."""
    return BucketCheckpoints(path, keep=keep) if isinstance(path, BucketPath) else Checkpoints(path, keep=keep)


class BucketCheckpoints(Checkpoints):
    """Saves and restores steps under one path of a bucket; the one writer there.

    A step counts once it has a file `COMMITTED`, which comes last and goes first.
    """

    def __init__(self, path: BucketPath, *, keep: int) -> None:
        name = hashlib.sha256(f"{path} {jax.process_index()}".encode()).hexdigest()[:16]
        self._local = cache_directory() / "checkpoints" / name
        shutil.rmtree(self._local, ignore_errors=True)  # what a killed process has left
        super().__init__(self._local, keep=1, together=False)
        self._bucket, self._keep = path, keep
        self._path = path
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._copying: concurrent.futures.Future[None] | None = None
        self._is_first = jax.process_index() == 0
        for step in unfinished_steps(path) if self._is_first else ():
            remove_step(path, step)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            super().__exit__(kind, *rest)
        finally:
            self._thread.shutdown()
            shutil.rmtree(self._local, ignore_errors=True)

    def wait(self) -> None:
        """Returns when everything saved is in the bucket."""
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.result()

    def save(self, step: int, state: PyTree, record: Mapping[str, Any]) -> None:
        """Saves the state after `step` steps with a JSON record; returns before it is in the bucket."""
        self.wait()
        if jax.process_count() > 1:
            state = _whole(state, kept=self._is_first)
        if self._is_first:
            super().save(step, state, record)
            self._copying = self._thread.submit(self._copy, step)

    def _copy(self, step: int) -> None:
        super().wait()
        with saving(self._bucket):
            if (self._bucket / str(step) / COMMITTED).exists():
                return
            (self._bucket / str(step)).put(self._local / str(step), but=COMMITTED)
            (self._bucket / str(step) / COMMITTED).write_text(f"step {step} is all here\n")
            for old in finished_steps(self._bucket)[: -self._keep]:
                remove_step(self._bucket, old)


def _whole(tree: PyTree, *, kept: bool) -> PyTree:
    """The arrays of all processes' shards on this host, one after the other; None for each that is not `kept`."""

    def whole(array: Any) -> Any:
        if array.is_fully_replicated:
            return np.asarray(array.addressable_data(0)) if kept else None
        found = multihost_utils.process_allgather(array, tiled=True)
        return found if kept else None

    return jax.tree.map(whole, tree)
