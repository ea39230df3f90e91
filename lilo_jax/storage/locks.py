"""One writer at a time in a directory.

On a disk the system keeps the lock and gives it up when its owner ends, in whatever way, on NFS too.  In a bucket it is
an object with its owner and the time, which the owner renews.  Whoever finds one that was not renewed for `STALE`
seconds, or one of a process of this machine that has ended, takes it over.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Protocol

import filelock

from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath

LOCK = "lock"
BEAT = 20.0
"""Seconds between two renewals of a lock in a bucket."""
STALE = 120.0
"""Seconds without one after which it is nobody's."""


class Lock(Protocol):
    """The right to write in a directory."""

    def check(self) -> None:
        """Raises `RunError` if another process has it by now."""
        ...

    def release(self) -> None:
        """Gives it up."""
        ...


def lock(directory: AnyPath) -> Lock:
    """The right to write in a directory; raises `UsageError` with its owner if another process has it."""
    return _BucketLock(directory / LOCK) if isinstance(directory, BucketPath) else _FileLock(directory / LOCK)


class _FileLock:
    def __init__(self, file: pathlib.Path) -> None:
        self._lock = filelock.FileLock(file)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise _taken(file, file.read_text(encoding="utf-8").strip() or "another process") from None
        file.write_text(f"{_owner()}\n", encoding="utf-8")

    def check(self) -> None:
        """Nothing: the system sees to it."""

    def release(self) -> None:
        self._lock.release()


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Who holds a lock in a bucket.

    Attributes:
        owner: for people.
        mark: of this lock and no other.
        process, machine: where it runs.
        renewed: when it last was, in seconds since 1970.
    """

    owner: str
    mark: str
    process: int
    machine: str
    renewed: float

    def content(self) -> bytes:
        """What stands in the object."""
        return (to_json(dataclasses.asdict(self)) + "\n").encode()

    def is_gone(self) -> bool:
        """Whether it has ended, as far as can be seen from here."""
        if time.time() - self.renewed > STALE:
            return True
        return self.machine == _machine() and (self.process == os.getpid() or not _is_alive(self.process))


class _BucketLock:
    def __init__(self, file: BucketPath) -> None:
        self._file, self._released, self._lost = file, threading.Event(), ""
        self._own = _Holder(_owner(), secrets.token_hex(8), os.getpid(), _machine(), time.time())
        self._take()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._lost:
            raise RunError(f"{self._lost} has taken over {self._file.parent}, and this process ends")

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it grows stale
            holder = self._holder()
            if holder is not None and holder.mark == self._own.mark:
                self._file.unlink(missing_ok=True)

    def _take(self) -> None:
        while True:
            try:
                self._file.create(self._own.content())
                return
            except FileExistsError:
                holder = self._holder()
            if holder is not None and not holder.is_gone():
                raise _taken(self._file, f"{holder.owner}, last seen {time.time() - holder.renewed:.0f} s ago,")
            self._file.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):  # whoever writes next says it better
                holder = self._holder()
                if holder is not None and holder.mark != self._own.mark:
                    self._lost = holder.owner
                    return
                self._own = dataclasses.replace(self._own, renewed=time.time())
                self._file.write_bytes(self._own.content())

    def _holder(self) -> _Holder | None:
        """Who has the lock; None if nobody has, or nobody can tell."""
        try:
            return _Holder(**json.loads(self._file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def _taken(file: AnyPath, owner: str) -> UsageError:
    return UsageError(f"{owner} writes {file.parent}: wait for it or stop it, or pass another --output-dir")


def _owner() -> str:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} (since {now})"


def _machine() -> str:
    """Name of the machine and of its last start; its name alone where the system has no name for that."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.is_file() else ''}".strip()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
