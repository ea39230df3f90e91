"""MLflow.  Its own variables say where: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ..."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.config import flat
from lilo_jax.sinks.contract import PROJECT, run_name
from lilo_jax.storage.run_directory import RunDirectory

RETRIES = "2"
"""Times that a request is tried again, which the run waits for."""
LONGEST = 500
"""Characters of a parameter."""
MOST = 100
"""Parameters of a request."""


class MLflow:
    """Logs to a run.  MLflow has no histograms: each of their bars is a metric."""

    def __init__(self, directory: RunDirectory, run: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
        from mlflow import entities
        from mlflow.tracking import MlflowClient

        self._entities, self._client = entities, MlflowClient()
        self.run = run or self._new(directory)
        self._client.update_run(self.run, status="RUNNING")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_spelt(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.run, metrics=metrics)

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        bars = {f"{name}/{i}": float(count) for name, own in counts.items() for i, count in enumerate(own)}
        self.scalars(step, bars)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.run, "FAILED" if failed else "FINISHED")

    def _new(self, directory: RunDirectory) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run: Any = self._client.create_run(number, run_name=run_name(directory))
        settings = flat(directory.config_values() | {"environment": directory.environment()})
        params = [self._entities.Param(_spelt(path), str(value)[:LONGEST]) for path, value in settings.items()]
        for first in range(0, len(params), MOST):
            self._client.log_batch(run.info.run_id, params=params[first : first + MOST])
        return run.info.run_id


def open_sink(directory: RunDirectory, run: str) -> MLflow:
    """A new run, or the one with that id."""
    return MLflow(directory, run)


def _spelt(name: str) -> str:
    """A name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)
