"""Our figures under the summary of those who find that no data policy works, beside our own.

    python -m experiments.sceptics docs/results/quickstart.json docs/results/rloo.json

DataFlex-RL (arXiv 2609.06107) compares final accuracy after equal steps, with a 95% interval over 12 paired seeds, and
asks whether it excludes zero.  The files are those that `experiments.quickstart --results FILE` writes: every seed's
accuracy stands in them.  Prints the table of docs/results/sceptics.md.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tyro

from lilo_jax.config import command_line
from lilo_jax.errors import UsageError
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import interval_of
from lilo_jax.report.tables import interval, markdown, speedup_cell, tokens
from lilo_jax.storage.ledger import training_total

LEAST_SEEDS = 12
"""Of DataFlex-RL."""
COLUMNS = (
    *("file", "arm", "seeds", "points above uniform at equal steps", "excludes zero", "seeds above"),
    *("tokens of a run", "steps to uniform's accuracy", "tokens to uniform's accuracy"),
)


@dataclasses.dataclass(frozen=True)
class ScepticOptions:
    """The command line."""

    results: tyro.conf.Positional[tuple[str, ...]] = ()
    """files that `experiments.quickstart --results` wrote"""


def read(path: str) -> Mapping[str, Any]:
    """A file of results; a `UsageError` if it is none, or of fewer seeds than the summary wants."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        seeds = len(found["final"][found["baseline"]]["by_seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no file of results ({error}): write one with experiments.quickstart --results"
        ) from None
    if seeds < LEAST_SEEDS:
        raise UsageError(f"{path} has {seeds} seeds, and the summary wants {LEAST_SEEDS}: run more --seeds")
    return found


def rows(path: str, found: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line of the table for every arm but the baseline."""
    baseline = found["final"][found["baseline"]]["by_seed"]
    for arm, needed in found["speedup"].items():
        own = found["final"][arm]["by_seed"]
        points = {int(seed): 100 * (own[seed] - baseline[seed]) for seed in own if seed in baseline}
        gap = interval_of(points)
        excludes = gap["low"] > 0 or gap["high"] < 0
        generated = (training_total(found["ledger"][name], "generated") for name in (arm, found["baseline"]))
        yield [
            pathlib.Path(path).name,
            f"`{arm}`",
            str(len(points)),
            f"{gap['mean']:+.2f}{interval(gap, '+.2f')}",
            "yes" if excludes else "no",
            f"{sum(value > 0 for value in points.values())}/{len(points)}",
            " against ".join(map(tokens, generated)),
            speedup_cell(needed["steps"]),
            speedup_cell(needed["generated_tokens"]),
        ]


def table(paths: tuple[str, ...]) -> str:
    """All files, as Markdown."""
    return markdown(COLUMNS, [row for path in paths for row in rows(path, read(path))], text_columns=2)


def main() -> None:
    """Prints the table."""
    options = command_line(
        ScepticOptions(), sys.argv[1:], prog="python -m experiments.sceptics", description=__doc__ or ""
    )
    if not options.results:
        raise UsageError("name the files of results, as docs/results/quickstart.json docs/results/rloo.json")
    print(table(options.results))


if __name__ == "__main__":
    exit_with_message(main)
