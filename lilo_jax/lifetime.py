"""Processes that end when the process that started them does, however that ends.

A child holds one end of a socket whose other end its parent alone holds, and never writes to.  When the parent ends,
the system closes that end and sends the child SIGIO, which ends it at once, even in the middle of a computation that
never returns to Python.  It works alike on Linux and macOS, and whatever thread or server forks the child.
"""

import fcntl
import multiprocessing
import os
import signal
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
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    if line.poll():  # it was closed before
        os.kill(os.getpid(), signal.SIGKILL)
