"""Writes a run's records one step late: fetching the numbers of a step would wait for the device to end it."""

import math
from collections.abc import Sequence
from typing import Any

import jax

from lilo_jax.errors import RunError
from lilo_jax.evaluation.held_out import Evaluation
from lilo_jax.sinks.feed import Feed
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.progress import Progress
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.types import Metrics

PATIENCE = 3
"""Steps in a row that may pass without a finite gradient."""
EMPTY_PATIENCE = 10
"""Steps in a row that may pass without a rollout to train on."""
_IN_VAIN = {
    "update/skipped_not_finite": (
        PATIENCE,
        f"no gradient of the last {PATIENCE} steps was finite, and the weights stayed as they were; try a lower "
        f"--optimizer.learning-rate, or float32 for --model.compute-dtype",
    ),
    "update/skipped_empty": (
        EMPTY_PATIENCE,
        f"the last {EMPTY_PATIENCE} steps had nothing to train on, because the curriculum admitted no group or no "
        f"grader came to a verdict, and the weights stayed as they were; take more --rollout.samples, other settings "
        f"of --curriculum or another one, questions that are less easy or less hard, or look at the grader",
    ),
}
"""Share of a step's optimiser steps that were not taken: how many steps in a row may have it at 1, and what then."""


class Recorder:
    """Holds back each step's records until the next step has been dispatched, or until `flush`."""

    def __init__(
        self, directory: RunDirectory, progress: Progress, feed: Feed | None = None, *, generations: str = "last"
    ) -> None:
        """Sets it up.

        Args:
            directory: to write to.
            progress: to show with.
            feed: what else gets the records.
            generations: which evaluations keep their responses: last, all or none.
        """
        self._directory, self.progress, self._generations = directory, progress, generations
        self._feed = feed or Feed({}, directory, {})
        self._in_vain = dict.fromkeys(_IN_VAIN, 0)
        self._pending: tuple[int, dict[str, Any], Metrics, dict[str, int], dict[str, float]] | None = None

    def write_step(
        self, step: int, description: dict[str, Any], metrics: Metrics, ledger: Ledger, seconds: dict[str, float]
    ) -> None:
        """Takes the records of a step just dispatched, and writes those of the step before."""
        self.flush()
        self._pending = (step, description, metrics, ledger.to_dict(), seconds)

    def flush(self) -> None:
        """Writes what is held back; raises `RunError` if the step's numbers are not finite, or if too many steps in a
        row have left the weights as they were.
        """
        if self._pending is None:
            return
        step, description, metrics, ledger, seconds = self._pending
        self._pending = None
        values = mean_values(metrics)
        self._directory.append("metrics", {"step": step, **description, **values})
        self._directory.append("timings", {"step": step, **seconds})
        self._directory.append("ledger", {"step": step, **ledger})
        self._feed.step(step, description | values, seconds, ledger)
        success = description.get("curriculum/collected_success_mean")
        note = f"success {success:.3f}" if success is not None else "nothing collected"
        if "curriculum/groups_wanted" in description:
            note += f", {description['curriculum/groups_admitted']}/{description['curriculum/groups_wanted']} groups"
        self.progress.step(step + 1, seconds, note)
        broken = [name for name, value in values.items() if value is not None and not math.isfinite(value)]
        if broken:
            raise RunError(
                f"step {step}: {', '.join(broken)} is not finite; the last checkpoint is intact, try a lower "
                f"--optimizer.learning-rate"
            )
        for name, (patience, why) in _IN_VAIN.items():
            self._in_vain[name] = self._in_vain[name] + 1 if values.get(name) == 1 else 0
            if self._in_vain[name] == patience:
                raise RunError(f"step {step}: {why}")

    def write_evaluation(self, evaluations: Sequence[Evaluation]) -> None:
        """Writes an evaluation, one line a split, and its responses if they are to be kept."""
        for record, generations in evaluations:
            self._directory.append("eval", record)
            if generations and self._generations != "none":
                self._directory.write_generations(
                    record["step"],
                    record["split"],
                    (one.record() for one in generations),
                    only=self._generations == "last",
                )
        records = [evaluation.record for evaluation in evaluations]
        self._feed.evaluation(records)
        self.progress.evaluation(records[0]["step"], {r["split"]: r["accuracy"] for r in records})


def mean_values(metrics: Metrics) -> dict[str, float | None]:
    """Metrics as numbers, None where nothing was measured."""
    fetched = jax.device_get(metrics)
    return {name: float(m.total / m.weight) if m.weight else None for name, m in sorted(fetched.items())}
