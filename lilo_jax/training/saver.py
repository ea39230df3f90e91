"""What a checkpoint of a run holds beside its arrays, so that going on from it is going on with the same run."""

import time
from typing import Any

from lilo_jax.grading.journal import Journal
from lilo_jax.processes import hosts
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.types import TrainState


class Saver:
    """Saves a run's state with its ledger, what its records were then, and fingerprints of what it depends on."""

    def __init__(
        self, checkpoints: Checkpoints, directory: RunDirectory, journal: Journal, *, questions: str, origin: str
    ) -> None:
        """Sets it up.

        Args:
            checkpoints: to save to.
            directory: of the run.
            journal: of the verdicts since the checkpoint before the last.
            questions: fingerprint of the questions.
            origin: fingerprint of the weights that the run began with, if they are frozen in its state and can be read
                again; "" keeps what is frozen in every checkpoint.
        """
        self._checkpoints, self._directory, self._journal = checkpoints, directory, journal
        self._saved: int | None = None
        self._saved_at = time.monotonic()
        self._fixed = {"questions": questions, "origin": origin}

    def save(self, step: int, state: TrainState, ledger: Ledger) -> None:
        """Saves the state after `step` steps, unless it has been; returns before it is on disk."""
        if step == self._saved:
            return
        written: dict[str, Any] = {"ledger": ledger.to_dict(), "files": self._directory.written()}
        self._checkpoints.save(step, unfrozen(state) if self._fixed["origin"] else state, written | self._fixed)
        self._journal.forget_before(self._saved or 0)  # the save before this one is on disk by now
        self._saved, self._saved_at = step, time.monotonic()

    def is_due(self, seconds: float) -> bool:
        """Whether so many seconds have passed since the last save, by the clock of the first process; 0: never."""
        return bool(seconds) and hosts.gathered(time.monotonic() - self._saved_at >= seconds)[0]


def unfrozen(state: TrainState) -> TrainState:
    """The state, or its shapes, without the weights that never change."""
    return state.replace(base=None, reference=None)
