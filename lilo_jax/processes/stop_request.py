"""When a run is to stop before its end: at a signal, or when its time is up."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from lilo_jax.errors import Stopped
from lilo_jax.processes import hosts

STDERR = 2
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Whether the run has been asked to stop: `with StopRequest(...) as stop: ... if stop.asked: ...`.

    The first signal only asks; whoever trains then saves and ends.  Should that take longer than `grace` seconds, or
    should Ctrl-C come again, the process ends at once: what has been saved stays.  Outside of the main thread, where
    Python takes no signals, only the time counts.
    """

    def __init__(self, *, grace: float, max_seconds: float = 0.0, forward: Callable[[], Any] = lambda: None) -> None:
        """Sets it up.

        Args:
            grace: seconds from a signal to the end of the process.
            max_seconds: from now on, after which the run is to stop; 0 sets no limit.
            forward: called at the first signal, to pass it on to other processes.
        """
        self._grace, self._forward = grace, forward
        self._until = time.monotonic() + max_seconds if max_seconds else None
        self._signal: int | None = None
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether to stop as soon as nothing is lost by it."""
        return self.signalled or (self._until is not None and time.monotonic() >= self._until)

    def agreed(self) -> bool:
        """Whether any process of the run has been asked to stop; all must call it, and all then stop alike."""
        heard = hosts.gathered((self._signal or 0, self.asked))
        if self._signal is None and (number := max(signal for signal, _ in heard)):
            self._signal = number
        return any(asked for _, asked in heard)

    @property
    def signalled(self) -> bool:
        """Whether a signal asked."""
        return self._signal is not None

    @property
    def seconds_left(self) -> float:
        """Of `max_seconds`, as a part of the run may be given them: above 0, and 0 without a limit."""
        return 0.0 if self._until is None else max(self._until - time.monotonic(), 1e-6)

    def check(self, where: str) -> None:
        """Raises `Stopped` if a signal has asked; `where` says how far things are."""
        if self._signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self._signal).name} {where}", 128 + self._signal)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:  # whoever asked has been heard
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            if number == signal.SIGINT == self._signal:
                self._end("stopped at once")
            return
        self._signal = number
        self._timer = threading.Timer(
            self._grace, self._end, [f"stopped, not being ready after {self._grace:g} s (--grace)"]
        )
        self._timer.daemon = True
        self._timer.start()
        self._forward()

    def _end(self, how: str) -> None:
        assert self._signal is not None
        os.write(STDERR, f"error: {how}; what was saved is intact, and the same command goes on\n".encode())
        os._exit(128 + self._signal)
