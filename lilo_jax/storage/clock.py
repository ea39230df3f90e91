"""Wall-clock seconds by phase, with compilation kept apart."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax

_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class _Compilation:
    """Counts what this process spends on tracing, lowering and compiling."""

    def __init__(self) -> None:
        self.seconds, self.programs = 0.0, 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _COMPILE_EVENTS:
            self.seconds += duration_secs
            self.programs += event == _COMPILE_EVENTS[-1]


compilation = _Compilation()


class PhaseClock:
    """Adds up seconds by phase; what was spent compiling inside a phase is booked under "compile" instead."""

    def __init__(self, doing: Callable[[str], AbstractContextManager[Any]] | None = None) -> None:
        """`doing`: (name of a phase) -> a context for its body, such as one that shows it."""
        self._doing: Callable[[str], AbstractContextManager[Any]] = doing or contextlib.nullcontext
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the body of a `with` statement.  Phases do not nest."""
        start, compiled = time.perf_counter(), compilation.seconds
        try:
            with self._doing(name):
                yield
        finally:
            elapsed = time.perf_counter() - start
            compiling = min(compilation.seconds - compiled, elapsed)
            self.seconds[name] += elapsed - compiling
            self.seconds["compile"] += compiling

    def take(self) -> dict[str, float]:
        """The seconds since the last call, and starts over."""
        taken: dict[str, float] = dict(self.seconds)
        self.seconds.clear()
        return taken
