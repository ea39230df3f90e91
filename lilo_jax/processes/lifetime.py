"""Processes that end when the process that started them does, however that ends.

A child holds one end of a socket whose other end its parent alone holds, and never writes to.  When the parent ends,
whatever thread or server forked the child, the system closes that end, and a thread of the child that waits for it ends
the child.  On Linux the system also sends SIGIO, which ends a child that never returns to Python from a computation.
"""

import fcntl
import multiprocessing
import os
import signal
import threading
import weakref
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, ForkServerProcess, SpawnProcess
from multiprocessing.process import BaseProcess


class MortalProcess(BaseProcess):
    """A process with such a socket, each its own: a signal has one address."""

    _line: Connection

    def start(self) -> None:
        self._line, kept = multiprocessing.Pipe()
        weakref.finalize(self, kept.close)  # a process that runs is not forgotten
        super().start()
        self._line.close()

    def run(self) -> None:
        _end_with(self._line)
        super().run()


class MortalSpawnProcess(MortalProcess, SpawnProcess):
    """Begins as a new interpreter."""


class MortalForkServerProcess(MortalProcess, ForkServerProcess):
    """Is forked from a server that has loaded what is needed."""


def context_of(process: type[MortalProcess]) -> BaseContext:
    """A context that starts such processes; `multiprocessing`'s own stays as it is."""
    method = "spawn" if issubclass(process, SpawnProcess) else "forkserver"
    own = type(multiprocessing.get_context(method))()
    own.Process = process  # type: ignore[attr-defined]
    return own


def _end_with(line: Connection) -> None:
    """Lets this process end when the other end of the line is closed."""
    threading.Thread(target=_wait, args=[line], daemon=True).start()
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # ends a process on Linux; others ignore it
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)


def _wait(line: Connection) -> None:
    line.poll(None)  # nothing is ever sent
    os.kill(os.getpid(), signal.SIGKILL)
