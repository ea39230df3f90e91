"""The process of one contender: prepares its work, then does it once for every line that the parent sends.

    python -m benchmarks.worker benchmarks.contenders.hf '{"work": "rollout", ...}'

The answers are one JSON object a line: first {"ready": ...} or {"skipped": why}, then one per round with wall and CPU
seconds and the process's peak memory.  What a library prints goes to stderr.  Only the standard library is imported
before the contender.
"""

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.workload import Job

Clock = tuple[float, float]


def clock() -> Clock:
    """(wall, CPU) seconds; CPU is user and system time of this process and its finished children, all threads."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_mb() -> float:
    """Peak resident memory of this process, MB of 2^20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Gate:
    """The worker's end of the pipes: `wait` for a round to begin, `answer` when it is over."""

    def __init__(self, began: Clock) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not mix with the answers
        self._began, self._announced = began, False
        self.versions: dict[str, str] = {}

    def _say(self, **fields: Any) -> None:
        print(json.dumps(fields, allow_nan=False), file=self._out, flush=True)

    def skip(self, reason: str) -> None:
        """Says that this contender cannot run here."""
        self._say(skipped=reason)

    def wait(self) -> None:
        """Returns when a round begins; ends the process when there are no more."""
        if not self._announced:
            self._say(ready=True, versions=self.versions, setup_cpu_s=clock()[1] - self._began[1])
            self._announced = True
        if not sys.stdin.readline():
            os._exit(0)  # a trainer's threads need not be asked
        self._began = clock()

    def answer(self, **extra: Any) -> None:
        """Reports the round that has just ended."""
        wall, cpu = (now - then for now, then in zip(clock(), self._began, strict=True))
        self._say(wall_s=wall, cpu_s=cpu, peak_mb=peak_mb(), **extra)

    def repeat(self, run: Callable[[], dict[str, Any] | None]) -> None:
        """Does `run` in every round; what it returns is reported too."""
        while True:
            self.wait()
            self.answer(**(run() or {}))


def main(module_name: str, job_line: str, core: str | None = None) -> None:
    """Pins the process, imports the contender and hands it the job: its WORKS are functions of (job, gate)."""
    if core is not None:
        os.sched_setaffinity(0, {int(core)})
    gate, job = Gate(clock()), Job.from_json(job_line)
    try:
        contender = importlib.import_module(module_name)
        gate.versions = {name: importlib.metadata.version(name) for name in contender.LIBRARIES}
        contender.WORKS[job.work](job, gate)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("benchmarks", "lilo_jax"):
            raise
        gate.skip(f"{error.name} is not installed in {sys.executable}")


if __name__ == "__main__":
    main(*sys.argv[1:])
