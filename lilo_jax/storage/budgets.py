"""What a run has spent, in every budget that its curves can be drawn against."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lilo_jax.storage.ledger import PURPOSES, training_total
from lilo_jax.storage.run_directory import BEFORE, RunDirectory

_TOTALS = {
    "generated_tokens": "generated",
    "prefilled_tokens": "prefilled",
    "scored_tokens": "scored",
    "trained_tokens": "trained",
    "flops": "flops",
}
"""Budget of all of training to the kind that it adds up."""
_BY_PURPOSE = tuple(f"{purpose}/{kind}" for kind in ("generated", "prefilled") for purpose in PURPOSES)
BUDGETS = ("steps", "seconds", *_TOTALS, "grader_seconds", *_BY_PURPOSE)
"""Every budget; those of one purpose are named as on the ledger."""
_NOT_TRAINING = ("compile", "audit", "truth", "workers")
"""Phases of a step whose seconds are not training's."""


def spent(directory: RunDirectory) -> dict[str, np.ndarray]:
    """What had been spent before the first step and after each one, by budget.

    All but `steps` begin with what was paid to describe and grade the questions before the first step (`BEFORE`).

    `steps`; `seconds` of wall clock and `grader_seconds` of all graders together, both without compilation, evaluation,
    audit and exact success rates, a ceiling that studies have for nothing; tokens and FLOPs of training so far, for
    which evaluation and audit do not count (see `Ledger`); and tokens of each purpose, theirs included, as
    `train/generated`.

    Args:
        directory: of a run, finished or not.  Entries that an older one does not have are zero.

    Returns:
        {budget: [steps + 1], non-decreasing}, for all of `BUDGETS`.
    """
    steps = sum(r["step"] != BEFORE for r in directory.read("ledger"))
    ledger = _of(directory, "ledger", steps)
    seconds = [
        sum(s for phase, s in r.items() if phase not in ("step", *_NOT_TRAINING))
        for r in _of(directory, "timings", steps)
    ]
    graders = [r.get("seconds", 0.0) for r in _of(directory, "grading", steps)]
    found = {
        "steps": np.arange(steps + 1),
        "seconds": np.cumsum(seconds, dtype=np.float64),
        "grader_seconds": np.cumsum(graders, dtype=np.float64),
        **{budget: _whole([training_total(r, kind) for r in ledger], kind) for budget, kind in _TOTALS.items()},
        **{entry: _whole([r.get(entry, 0) for r in ledger], entry) for entry in _BY_PURPOSE},
    }
    return {budget: found[budget] for budget in BUDGETS}


def _of(directory: RunDirectory, name: str, steps: int) -> list[Mapping[str, Any]]:
    """The record from before the first step and of each step; an empty one where there is none."""
    records = {r["step"]: r for r in directory.read(name)}
    return [records.get(step, {}) for step in range(BEFORE, steps)]


def _whole(totals: list[int], kind: str) -> np.ndarray:
    """Whole numbers stay whole, but for operations, which 64 bits cannot count."""
    return np.array(totals, np.float64 if kind == "flops" else np.int64)
