"""Weights & Biases.  Its own variables say where and how: WANDB_MODE=offline, WANDB_PROJECT, WANDB_DIR, ..."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.sinks.contract import PROJECT, run_name
from lilo_jax.storage.run_directory import RunDirectory


class Wandb:
    """Logs to a run, whose axis is `step`.

    W&B's own count of rows must rise: they are an evaluation, the step that follows it, and its histograms, so that
    what was logged offline before and after a stop fits together.
    """

    def __init__(self, directory: RunDirectory, run: str) -> None:
        import wandb

        self._histogram = wandb.Histogram
        self.run = run or secrets.token_hex(4)
        # Of the command line, which W&B would keep, secrets are left out in what the run's directory has.
        settings = wandb.Settings(x_disable_meta=True, console="off")
        self._run: Any = wandb.init(
            id=self.run,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run_name(directory)),
            config=directory.config_values() | {"environment": directory.environment()},
            settings=settings,
        )
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values}, step=3 * step + (not any(name.startswith("eval/") for name in values)))

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        edges = {name: [i - 0.5 for i in range(len(own) + 1)] for name, own in counts.items()}
        found = {name: self._histogram(np_histogram=(list(own), edges[name])) for name, own in counts.items()}
        self._run.log({"step": step, **found}, step=3 * step + 2)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def open_sink(directory: RunDirectory, run: str) -> Wandb:
    """A new run, or the one with that id."""
    return Wandb(directory, run)
