"""Runs contenders in alternation: ours, peer, ours, peer, each a process that waits for its turn."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.workload import Job

ROOT = Path(__file__).parent.parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}
EVERYWHERE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One contender at one job.

    Attributes:
        name: in the table.
        module: with LIBRARIES and WORKS.
        python: the interpreter that has the libraries.
        job: what to do.
        tokens: useful tokens of one round.
        flops: arithmetic that the round needs; 0 if not counted.
        traffic: bytes that its decoding must read; 0 if not counted.
    """

    name: str
    module: str
    python: str
    job: Job
    tokens: int
    flops: int = 0
    traffic: int = 0


@dataclasses.dataclass
class Outcome:
    """What an arm did.

    Attributes:
        arm: which.
        rounds: the worker's answers, the first call apart.
        first: the answer to the first call, which compiles.
        versions: of its libraries.
        problem: why there are no rounds, or "".
    """

    arm: Arm
    rounds: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    first: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ""

    @property
    def clock(self) -> str:
        """Which seconds count."""
        return "cpu_s" if self.arm.job.device == "cpu" else "wall_s"

    @property
    def seconds(self) -> list[float]:
        """Of each round."""
        return [answer[self.clock] for answer in self.rounds]

    @property
    def median(self) -> float:
        """Seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def compile_seconds(self) -> float:
        """What the first call took longer."""
        return self.first[self.clock] - self.median

    def per_token(self) -> list[float]:
        """Seconds per useful token, by round."""
        return [seconds / self.arm.tokens for seconds in self.seconds]


class _Contender:
    """The parent's end of a worker's pipes."""

    def __init__(self, arm: Arm, *, core: int | None, log: Path) -> None:
        self.outcome = Outcome(arm)
        self._log = log
        environment = os.environ | EVERYWHERE | (ONE_THREAD if arm.job.device == "cpu" else {})
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [
                    arm.python,
                    "-m",
                    "benchmarks.worker",
                    arm.module,
                    arm.job.to_json(),
                    *([] if core is None else [str(core)]),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env=environment,
            )

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            self.outcome.problem = f"failed: {' '.join(last) or 'no message'} (see {self._log})"
            return None
        return json.loads(line)

    def prepare(self) -> None:
        """Returns when the worker is ready or has said why it will not be."""
        answer = self._answer()
        if answer is not None:
            self.outcome.problem = f"skipped: {answer['skipped']}" if "skipped" in answer else ""
            self.outcome.versions = answer.get("versions", {})

    def go(self) -> dict[str, Any] | None:
        """One round."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows in its answer
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the worker."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def compete(arms: list[Arm], *, rounds: int, core: int | None, log_dir: Path) -> list[Outcome]:
    """Prepares all arms, calls each once to compile, then takes `rounds` rounds of one call per arm.

    Args:
        arms: contenders, in the order of a round.
        rounds: measured calls of each.
        core: all processes are pinned to it; None: not pinned.
        log_dir: what the workers print goes there.

    Returns:
        An outcome per arm, in order.  One that could not run has a `problem`.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    contenders: list[_Contender] = []
    try:
        for i, arm in enumerate(arms):
            contenders.append(_Contender(arm, core=core, log=log_dir / f"{arm.job.work}-{i}.log"))
            contenders[-1].prepare()
        for turn in range(rounds + 1):
            for contender in contenders:
                outcome = contender.outcome
                answer = None if outcome.problem else contender.go()
                if answer is not None and turn == 0:
                    outcome.first = answer
                elif answer is not None:
                    outcome.rounds.append(answer)
    finally:
        for contender in contenders:
            contender.close()
    return [contender.outcome for contender in contenders]


def here() -> str:
    """The interpreter that runs this."""
    return sys.executable
