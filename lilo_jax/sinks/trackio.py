"""Trackio.  Its own variables say where: TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL, ..."""

import contextlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.sinks.contract import PROJECT, run_name
from lilo_jax.storage.run_directory import RunDirectory


class Trackio:
    """Logs to a run, which is found again by its name."""

    def __init__(self, directory: RunDirectory, run: str) -> None:
        import trackio

        self._histogram, self._finish = trackio.Histogram, trackio.finish
        self.run = run or f"{run_name(directory)} {secrets.token_hex(2)}"
        with contextlib.redirect_stdout(sys.stderr):  # what it says is no result of a command
            self._run: Any = trackio.init(
                PROJECT,
                name=self.run,
                resume="must" if run else "never",
                config=directory.config_values() | {"environment": directory.environment()},
                embed=False,
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        edges = {name: [i - 0.5 for i in range(len(own) + 1)] for name, own in counts.items()}
        found = {name: self._histogram(np_histogram=(list(own), edges[name])) for name, own in counts.items()}
        self._run.log(found, step=step)

    def close(self, *, failed: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._finish()


def open_sink(directory: RunDirectory, run: str) -> Trackio:
    """A new run, or the one of that name."""
    return Trackio(directory, run)
