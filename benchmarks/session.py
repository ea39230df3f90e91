"""One command: what is common to the CPU and the accelerator benchmarks, from experiments to printed tables."""

import dataclasses
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.arena import Outcome, compete
from benchmarks.suite import OURS, ROOFLINE, Experiment
from benchmarks.table import Limits


@dataclasses.dataclass
class Session:
    """Runs experiments and keeps what they showed.

    Attributes:
        rounds, core: see `arena.compete`.
        output_dir: for the results and the workers' logs.
        limits: of the machine.
        sections: (title, text) as printed.
        outcomes: by experiment.
        problems: what was skipped or failed; each is said once.
    """

    rounds: int
    core: int | None
    output_dir: Path
    limits: Limits = dataclasses.field(default_factory=Limits)
    sections: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    outcomes: dict[str, list[Outcome]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    def compete(self, experiment: Experiment) -> list[Outcome]:
        """The outcomes of an experiment; parity and the roofline need no repeats."""
        rounds = 0 if experiment.name == "parity" else self.rounds
        found = compete(
            experiment.arms, rounds=rounds, core=self.core, log_dir=self.output_dir / "logs" / experiment.name
        )
        self.outcomes[experiment.name] = found
        for line in (f"{outcome.arm.name}: {outcome.problem}" for outcome in found if outcome.problem):
            if line not in self.problems:
                self.problems.append(line)
                print(line, flush=True)
        return found

    def show(self, title: str, text: str) -> None:
        """Prints a section now, and keeps it for the file."""
        if text:
            self.sections.append((title, text))
            print(f"\n{title}\n{text}", flush=True)

    def run(self, experiments: Iterable[Experiment]) -> None:
        """Runs experiments in order and prints each when it is done."""
        for experiment in experiments:
            found = self.compete(experiment)
            if experiment.name == "parity":
                self.show(experiment.title, "\n".join(table.parity_lines(found)))
            else:
                self.show(experiment.title, table.table(found, self.limits))

    def finish(self, command: Sequence[str]) -> int:
        """Prints the versions and writes the files; the exit status is 1 if one of our own arms failed."""
        everyone = [outcome for found in self.outcomes.values() for outcome in found]
        versions: dict[str, dict[str, str]] = {}
        for outcome in everyone:
            if outcome.versions and outcome.arm.module != ROOFLINE:
                versions.setdefault(outcome.arm.module.rsplit(".", 1)[1], {}).update(outcome.versions)
        lines = [f"{name}: {', '.join(f'{k} {v}' for k, v in found.items())}" for name, found in versions.items()]
        self.show("Versions", "\n".join([f"Python {platform.python_version()}, {machine()}", *lines]))
        record: dict[str, Any] = {
            "command": list(command),
            "machine": machine(),
            "limits": dataclasses.asdict(self.limits),
            "versions": versions,
            "experiments": {name: [table.record(o) for o in found] for name, found in self.outcomes.items()},
        }
        table.write(self.output_dir, self.sections, record)
        print(f"\nwritten: {self.output_dir / 'results.md'}, {self.output_dir / 'results.json'}")
        failed = [o for o in everyone if o.arm.module == OURS and o.problem]
        if failed:
            print(f"failed: {', '.join(sorted({o.arm.job.work for o in failed}))}", file=sys.stderr)
        return 1 if failed else 0


def machine() -> str:
    """Processor and number of cores, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = found[0] if found else name
    return f"{name}, {os.cpu_count()} cores"
