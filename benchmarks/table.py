"""From outcomes to numbers, and from numbers to tables and files."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena import Outcome

PARITY_BOUND = 1e-4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the machine can do: FLOP/s and bytes/s; 0 where unknown."""

    flops: float = 0.0
    traffic: float = 0.0


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A median with its range over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


def ratio(of: Sequence[float], to: Sequence[float]) -> Ratio:
    """The quotient, round by round."""
    rounds = [a / b for a, b in zip(of, to, strict=True)]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def row(outcome: Outcome, first: Outcome, limits: Limits) -> dict[str, str]:
    """The cells of one arm; `first` is the arm it is compared with."""
    arm, seconds = outcome.arm, outcome.median
    unit = "CPU s" if outcome.clock == "cpu_s" else "wall s"
    answers = [outcome.first, *outcome.rounds]
    memory = max(answer.get("device_peak_mb", answer["peak_mb"]) for answer in answers)
    cells = {
        "": arm.name,
        unit: f"{seconds:.3g}",
        f"tokens/{unit}": f"{arm.tokens / seconds:.0f}",
        "time per token against the first row": "1" if outcome is first else str(_against(outcome, first)),
        "of matmul rate": _share(arm.flops / seconds, limits.flops),
        "of bandwidth": _share(arm.traffic / seconds, limits.traffic),
        "predicted MB": f"{predicted:.1f}" if (predicted := outcome.first.get("predicted_peak_mb")) else "-",
        "peak MB": f"{memory:.0f}",
        "first call minus steady": f"{outcome.compile_seconds:.1f}",
    }
    parts = [answer["parts"] for answer in outcome.rounds if "parts" in answer]
    if parts:
        index = 1 if outcome.clock == "cpu_s" else 0
        generate = statistics.median(part["generate"][index] for part in parts)
        cells["generate + rest"] = f"{generate:.3g} + {seconds - generate:.3g}"
    return cells


def _against(outcome: Outcome, first: Outcome) -> Ratio:
    return ratio(outcome.per_token(), first.per_token())


def _share(rate: float, limit: float) -> str:
    return f"{rate / limit:.2f}" if rate and limit else "-"


def table(outcomes: Sequence[Outcome], limits: Limits) -> str:
    """A Markdown table with a row per arm that ran; "" if none did."""
    ran = [outcome for outcome in outcomes if not outcome.problem]
    return markdown([row(outcome, ran[0], limits) for outcome in ran])


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Rows with the same keys as an aligned Markdown table."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, *([cells.get(name, "") for name in names] for cells in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(names))]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def parity_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence per peer: the largest difference of a log-prob from ours."""
    logprobs = {o.arm.name: o.first["logprobs"] for o in outcomes if not o.problem}
    ours = logprobs.pop("ours", None)
    if ours is None:
        return []
    lines = []
    for name, theirs in logprobs.items():
        largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        verdict = "same model" if largest < PARITY_BOUND else "NOT the same model"
        lines.append(f"parity with {name}: largest difference of {len(ours)} log-probs {largest:.1e}, {verdict}")
    return lines


def write(directory: Path, sections: Sequence[tuple[str, str]], record: dict[str, Any]) -> None:
    """Writes `results.md` (headed sections) and `results.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections if body)
    (directory / "results.md").write_text(f"# Benchmarks\n\n{text}\n")
    (directory / "results.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def record(outcome: Outcome) -> dict[str, Any]:
    """Everything measured of one arm, for the JSON file."""
    return dataclasses.asdict(outcome)
