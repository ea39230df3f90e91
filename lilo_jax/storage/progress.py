"""What a person sees while a run goes on: a bar with phase times in a terminal, plain lines elsewhere.

Nothing takes more than a minute in silence: a terminal shows what is being done with a running clock, elsewhere a line
says so once a minute.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

import tqdm

from lilo_jax.storage.files import append_line
from lilo_jax.storage.paths import AnyPath

PATIENCE = 60.0
"""Seconds after which something is said where there is no terminal."""
TICK = 1.0
"""Seconds between looks at the clock."""
WORTH_A_LINE = 1.0
"""Seconds of a compilation that is told when it is over."""


class Progress:
    """A progress bar over steps, or lines where there is no terminal."""

    def __init__(self, name: str, *, total: int, every: int = 1, bar: bool = True, file: AnyPath | None = None) -> None:
        """Sets it up.

        Args:
            name: of what goes on.
            total: steps.
            every: steps between two lines.
            bar: whether it may be a bar.
            file: where the lines go; None: to stderr.
        """
        self._name, self._total, self._every, self._file = name, total, every, file
        self._doing: list[tuple[str, float]] = []
        self._said = self._last_step = time.monotonic()
        self._closed = threading.Event()
        self._clock: threading.Thread | None = None
        self._bar = None
        if bar and file is None and sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, desc=name, unit="step", file=sys.stderr)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Says what is being done in a block, if that takes long."""
        self._begin(what)
        try:
            yield
        finally:
            self._end(what)

    def compiling(self, name: str) -> None:
        """Reports that a program is being compiled."""
        self._begin(f"compiling {name}")

    def compiled(self, name: str, seconds: float) -> None:
        """Reports that it has been."""
        self._end(f"compiling {name}")
        if self._bar is None and seconds >= WORTH_A_LINE:
            self.line(f"compiled {name} in {seconds:.1f} s")

    def step(self, step: int, seconds: dict[str, float], note: str) -> None:
        """Reports that `step` steps are done; `seconds` are the phases of the last one."""
        phases = " ".join(f"{name} {1000 * value:.0f}ms" for name, value in seconds.items() if value >= 5e-4)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{note} | {phases}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif step % self._every == 0 or step == self._total or time.monotonic() - self._last_step >= PATIENCE:
            self.line(f"step {step}/{self._total}: {note} | {phases}")
            self._last_step = time.monotonic()

    def evaluation(self, step: int, accuracies: dict[str, float]) -> None:
        """Reports accuracies after `step` steps."""
        if self._bar is not None or step % self._every == 0 or step == self._total:
            self.line(f"after {step} steps: accuracy " + ", ".join(f"{k} {v:.4f}" for k, v in accuracies.items()))

    def line(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self._said = time.monotonic()
        if self._file is not None:
            append_line(self._file, f"{self._name}: {text}")
        elif self._bar is not None:
            self._bar.write(f"{self._name}: {text}", file=sys.stderr)
        else:
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar and the clock."""
        self._closed.set()
        if self._clock is not None:
            self._clock.join()
        if self._bar is not None:
            self._bar.close()

    def _begin(self, what: str) -> None:
        self._doing.append((what, time.monotonic()))
        if self._clock is None:
            self._clock = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._clock.start()

    def _end(self, what: str) -> None:
        """Forgets what was being done, and what was begun within it."""
        places = [i for i, (other, _) in enumerate(self._doing) if other == what]
        del self._doing[places[-1] if places else len(self._doing) :]

    def _tick(self) -> None:
        while not self._closed.wait(TICK):
            self._show()

    def _show(self) -> None:
        """Shows the innermost of what is being done with its clock, in place in a terminal."""
        doing, now = list(self._doing), time.monotonic()
        text = f"{doing[-1][0]} ... {now - doing[-1][1]:.0f} s" if doing else ""
        if self._bar is not None:
            self._bar.set_description_str(f"{self._name}: {text}" if text else self._name)
        elif text and now - self._said >= PATIENCE:
            self.line(text)
