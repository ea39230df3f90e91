"""What a sink does."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from lilo_jax.storage.run_directory import RunDirectory

PROJECT = "lilo_jax"
"""Where runs stand in a sink whose own variables do not say otherwise."""


class Sink(Protocol):
    """A tracker that is open for one run.  Its module has `open_sink(directory, run) -> Sink`.

    It may raise anything: that is told once, and the run goes on without it.

    Attributes:
        run: what it calls the run.  `open_sink` is given this when the run is gone on with, and "" at first.
    """

    run: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes finite numbers by name, of a step or (`eval/...`) of an evaluation, which comes before its step."""

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        """Takes histograms by name: how many groups had 0, 1, 2, ... correct rollouts."""

    def close(self, *, failed: bool) -> None:
        """Ends it; `failed` says whether the run ended with an error."""


def run_name(directory: RunDirectory) -> str:
    """The path of a run as a person would write it here, under which a sink shows it."""
    here = pathlib.Path.cwd()
    return str(directory.path.relative_to(here) if directory.path.is_relative_to(here) else directory.path)
