"""Which program is being compiled, and how long it took: whoever watches can tell a person, who else waits in silence.

Every compilation begins with tracing, that is with a call of the function itself, which a cached call never makes: so
nothing is looked at or counted where nothing is compiled.  The end is an event of JAX.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"
F = TypeVar("F", bound=Callable[..., Any])


class Watcher(Protocol):
    """Whoever is told."""

    def compiling(self, name: str) -> None:
        """The program of that name is traced, and will then be compiled."""

    def compiled(self, name: str, seconds: float) -> None:
        """It is ready, after so many seconds; or it could not be made."""


class _Watch:
    """Who is told, and what is being compiled since when."""

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []
        self._current: tuple[str, float] | None = None
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def begin(self, name: str) -> None:
        self.end()
        self._current = name, time.perf_counter()
        for watcher in self.watchers:
            watcher.compiling(name)

    def end(self) -> None:
        if self._current is None:
            return
        (name, begun), self._current = self._current, None
        for watcher in self.watchers:
            watcher.compiled(name, time.perf_counter() - begun)

    def forget(self) -> None:
        """Of a program that was traced and then not compiled, as for a plan, nobody is to hear."""
        self._current = None

    def _hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED and self._current and kwargs.get("fun_name") == f"jit({self._current[0]})":
            self.end()


_WATCH = _Watch()


def announced(name: str, function: F) -> F:
    """The function, to be given to `jax.jit`, whose compilation is told under this name."""

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        _WATCH.begin(name)
        try:
            return function(*args, **kwargs)
        except BaseException:
            _WATCH.end()
            raise

    traced.__name__ = traced.__qualname__ = name  # of the compiled module, and of JAX's events
    return traced  # type: ignore[return-value]


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tells a watcher of what is compiled until the block ends."""
    if not _WATCH.watchers:
        _WATCH.forget()
    _WATCH.watchers.append(watcher)
    try:
        yield
    finally:
        _WATCH.watchers.remove(watcher)
