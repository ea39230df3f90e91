"""A run's records as what sinks take: numbers and histograms by name, in the order in which they came about."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lilo_jax.storage.json_lines import finite
from lilo_jax.storage.run_directory import RunDirectory

EVALUATION, STEP = "evaluation", "step"
"""Kinds of entries.  The evaluation after n steps comes before step n, which is the one after it."""


class _Entry(NamedTuple):
    """What is logged at once.

    Attributes:
        kind: `EVALUATION` or `STEP`.
        step: of an evaluation the steps done, of a step its number.
        scalars, histograms: by name.
    """

    kind: str
    step: int
    scalars: dict[str, float]
    histograms: dict[str, Sequence[int]]


def of_step(step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float], ledger: Mapping[str, int]) -> _Entry:
    """The entry of a step: its metrics, `seconds/PHASE`, and the ledger so far as `ledger/PURPOSE/KIND`."""
    found = {name: value for name, value in metrics.items() if name != "step"}
    found |= {f"seconds/{phase}": value for phase, value in seconds.items() if phase != "step"}
    found |= {f"ledger/{entry}": value for entry, value in ledger.items() if entry != "step" and value}
    histograms = {name: value for name, value in found.items() if name.endswith("_histogram")}
    return _Entry(STEP, step, _numbers(found), histograms)


def of_evaluation(records: Sequence[Mapping[str, Any]]) -> _Entry:
    """The entry of an evaluation: the numbers of each split as `eval/SPLIT/NAME`."""
    found: dict[str, float] = {}
    for record in records:
        numbers = _numbers({name: value for name, value in record.items() if name != "step"})
        found |= {f"eval/{record['split']}/{name}": value for name, value in numbers.items()}
    return _Entry(EVALUATION, records[0]["step"], found, {})


def entries(directory: RunDirectory) -> Iterator[_Entry]:
    """Those of all records of a run so far."""
    seconds, ledger = ({r["step"]: r for r in directory.read(name)} for name in ("timings", "ledger"))
    evaluations: dict[int, list[dict[str, Any]]] = {}
    for record in directory.read("eval"):
        evaluations.setdefault(record["step"], []).append(record)
    for metrics in directory.read("metrics"):
        step = metrics["step"]
        if step in evaluations:
            yield of_evaluation(evaluations.pop(step))
        yield of_step(step, metrics, seconds.get(step, {}), ledger.get(step, {}))
    yield from (of_evaluation(records) for records in evaluations.values())


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers among some values, those of dictionaries in them by path."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and finite(value) is not None:
            found[prefix + name] = float(value)
    return found
