"""Metrics of several runs along training, as arrays."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lilo_jax.report.drawing import BINS
from lilo_jax.report.summary import Arms
from lilo_jax.storage.budgets import spent

Metrics = Mapping[str, Mapping[int, list[dict[str, Any]]]]
"""Arm name to seed to the lines of metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """What curves over training are drawn against.

    Attributes:
        budget: one of `BUDGETS`.
        spent: {arm: [steps + 1]}, what it had spent after each step, mean over the seeds that took it.
    """

    budget: str
    spent: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, arms: Arms, budget: str) -> "Axis":
        """The axis of some runs."""
        return cls(
            budget, {arm: _mean_of_longest([spent(run)[budget] for run in own.values()]) for arm, own in arms.items()}
        )

    def at(self, arm: str, steps: np.ndarray) -> np.ndarray:
        """What an arm had spent after that many steps, which may lie between two."""
        return np.interp(steps, np.arange(len(self.spent[arm])), self.spent[arm])


def _records(runs: Mapping[int, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for records in runs.values():
        yield from records


def has(metrics: Metrics, key: str) -> bool:
    """Whether any step of any run measured it."""
    return any(r.get(key) is not None for runs in metrics.values() for r in _records(runs))


def selects(runs: Mapping[int, list[dict[str, Any]]]) -> bool:
    """Whether an arm trained on fewer groups than it collected."""
    counts = [(r.get("curriculum/groups_collected", 0), r.get("curriculum/groups_admitted", 0)) for r in _records(runs)]
    return any(admitted < collected for collected, admitted in counts)


def _bin_edges(runs: Mapping[int, list[dict[str, Any]]]) -> np.ndarray:
    """At most `BINS` equal stretches of training, edges in steps."""
    steps = 1 + max((r["step"] for r in _records(runs)), default=0)
    width = -(-steps // BINS)
    return np.arange(0, steps + width, width)


def over_training(runs: Mapping[int, list[dict[str, Any]]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each stretch of training, and the mean of `key` over its steps and seeds; NaN where nothing is."""
    edges = _bin_edges(runs)
    measured = [(r["step"], r[key]) for r in _records(runs) if r.get(key) is not None]
    steps, values = np.array(measured, np.float64).reshape(-1, 2).T
    index = np.searchsorted(edges, steps, side="right") - 1
    count = np.bincount(index, minlength=len(edges) - 1)
    total = np.bincount(index, weights=values, minlength=len(edges) - 1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return (edges[:-1] + edges[1:]) / 2, means


def histogram_over_training(runs: Mapping[int, list[dict[str, Any]]], key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges [b + 1] in steps, and the share of groups with i correct rollouts in each stretch, [samples + 1, b]."""
    edges = _bin_edges(runs)
    records = [r for r in _records(runs) if r.get(key)]
    if not records:
        return None
    counts = np.zeros((max(len(r[key]) for r in records), len(edges) - 1))
    for record in records:
        counts[: len(record[key]), np.searchsorted(edges, record["step"], side="right") - 1] += record[key]
    total = counts.sum(axis=0, keepdims=True)
    if not total.any():
        return None
    return edges, np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _mean_of_longest(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of arrays at every place that any of them has."""
    table = np.full((len(values), max(map(len, values))), np.nan)
    for row, own in zip(table, values, strict=True):
        row[: len(own)] = own
    return np.nanmean(table, axis=0)
