"""What kills, signals, second writers, damage and readers do to runs: nothing may be lost or accepted in silence.

    python -m benchmarks.faults                                  # all kinds, about half an hour on two cores
    python -m benchmarks.faults --kills 6 --comparisons 0        # fewer
    python -m benchmarks.faults --only kills:3                   # one trial again

Every trial is a function of its kind and seed, but for the moment at which a process gets a signal.  After a kill or a
signal the same command goes on, and `lilo digest` must print what it prints of an undisturbed run.  Exit status 1 if
anything differs, a traceback is shown, or a process is left over.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from benchmarks.damage import Damage
from benchmarks.table import markdown
from lilo_jax import config as configuration
from lilo_jax.config import Options
from lilo_jax.endings import FAULT, exit_with_message, message
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.storage.checkpoints import finished_steps
from lilo_jax.storage.digest import digest_lines

COUNTS = {
    "kills": 60, "comparisons": 30, "signals": 20, "writers": 10, "flips": 200, "cuts": 60, "deletions": 60,
    "reads": 200,
}  # fmt: skip
HARMS = {"flips": "flip", "cuts": "cut", "deletions": "delete"}
OUTCOMES = ("equal", "refused", "different", "traceback", "left over", "wrong end")
FAULTS = OUTCOMES[2:]
MODEL = [
    "--model.num-layers",
    "1",
    "--model.embed-dim",
    "32",
    "--model.num-heads",
    "2",
    "--model.num-kv-heads",
    "2",
    "--model.mlp-dim",
    "64",
    "--task.pool",
    "64",
    "--task.validation",
    "16",
    "--task.test",
    "16",
    "--task.longer",
    "8",
    "--task.demonstrations",
    "200",
    "--sft.steps",
    "30",
    "--sft.batch",
    "32",
    "--rollout.questions",
    "4",
    "--rollout.samples",
    "4",
    "--evaluation.rows",
    "16",
    "--evaluation.every",
    "3",
    "--storage.rollouts-every",
    "2",
]
RUN = [*MODEL, "--num-steps", "12", "--storage.save-every", "2", "--algorithm.kl-coefficient", "0.01"]
LIVE = [*MODEL, "--num-steps", "150", "--storage.save-every", "1"]
COMPARISON = [*MODEL, "--num-steps", "6", "--storage.save-every", "2", "--seeds", "1", "--arms", "uniform,lilo"]
ENDS_WITHIN = 5.0
"""Seconds after a kill in which nobody may be left."""
LIMIT = 300.0
"""Seconds for a run: more is a hang."""

Outcome = tuple[str, str]
"""One of `OUTCOMES`, and what was done."""


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    errors: str


class Lab:
    """A directory with what undisturbed runs have left, and the trials beside it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.seconds = self._make("run", "train", RUN)
        self._make("live", "train", LIVE)
        self.comparison_seconds = self._make("comparison", "quickstart", COMPARISON)
        half = self.command("train", [*RUN, "--stop-at", "7"], root / "half")
        assert self.wait(self.start(half, root / "half")).code == 0
        config = configuration.parse(Options(), RUN, prog="faults", description="").config
        self.damage = Damage(config, {"finished": root / "run", "half-way": root / "half"}, root)
        self.expected = {name: digest_lines(root / name) for name in ("run", "live", "comparison")}

    def _make(self, name: str, experiment: str, options: list[str]) -> float:
        """An undisturbed run, twice, so that what is timed has its programs compiled."""
        for output in (self.root / f"{name}_first", self.root / name):
            started = time.monotonic()
            ended = self.wait(self.start(self.command(experiment, options, output), output))
            assert ended.code == 0, ended.errors
        return time.monotonic() - started

    @staticmethod
    def command(experiment: str, options: list[str], output: pathlib.Path) -> list[str]:
        return [sys.executable, "-m", f"experiments.{experiment}", *options, "--output-dir", str(output)]

    def start(self, command: list[str], output: pathlib.Path) -> subprocess.Popen:
        """A process in a session of its own, whose stderr is kept beside its output."""
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(self.root / "programs"), "NPROC": "1"}
        with open(output.with_name(f"{output.name}.stderr"), "ab") as errors:
            return subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True, env=environment
            )

    def wait(self, process: subprocess.Popen) -> Ended:
        output = pathlib.Path(process.args[-1])  # type: ignore[index, arg-type]
        code = process.wait(LIMIT)
        return Ended(code, output.with_name(f"{output.name}.stderr").read_text(errors="replace"))

    def goes_on(self, experiment: str, options: list[str], output: pathlib.Path, expected: str, what: str) -> Outcome:
        """Whether the same command ends as if nothing had happened."""
        ended = self.wait(self.start(self.command(experiment, options, output), output))
        if "Traceback" in ended.errors:
            return "traceback", f"{what}: {ended.errors[-800:]}"
        if ended.code:
            return "wrong end", f"{what}; then exit {ended.code}: {ended.errors.splitlines()[-1:]}"
        found = digest_lines(output)
        changed = sorted(set(found) ^ set(self.expected[expected]))
        return ("different", f"{what}: {changed[:4]}") if changed else ("equal", what)


def left_over(session: int) -> list[psutil.Process]:
    """Processes of a session that are still there after a while; they are killed then."""
    deadline = time.monotonic() + ENDS_WITHIN
    while found := [p for p in psutil.process_iter() if _session(p.pid) == session]:
        if time.monotonic() > deadline:
            for process in found:
                process.kill()
            return found
        time.sleep(0.1)
    return []


def _session(pid: int) -> int:
    try:
        is_zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return -1 if is_zombie else os.getsid(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return -1


def kills(lab: Lab, rng: random.Random, output: pathlib.Path) -> Outcome:
    """Kill -9 of a run at any time."""
    process, after = lab.start(lab.command("train", RUN, output), output), rng.uniform(0.3, 1) * lab.seconds
    what = f"kill -9 after {after:.2f} s"
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if left := left_over(process.pid):
        return "left over", f"{what}: {left}"
    return lab.goes_on("train", RUN, output, "run", what)


def comparisons(lab: Lab, rng: random.Random, output: pathlib.Path) -> Outcome:
    """Kill -9 of a comparison: of the parent, of all its processes, of one worker."""
    process, victim = (
        lab.start(lab.command("quickstart", COMPARISON, output), output),
        rng.choice(["parent", "group", "worker"]),
    )
    after = rng.uniform(0.2, 1) * lab.comparison_seconds
    what = f"kill -9 of the {victim} after {after:.2f} s"
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        if victim == "worker":
            workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
            for worker in rng.sample(workers, min(len(workers), 1)):
                worker.kill()
        elif victim == "parent":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        ended = lab.wait(process)
        if victim == "worker" and (ended.code not in (0, 1) or "Traceback" in ended.errors):
            return "wrong end", f"{what}: exit {ended.code}: {ended.errors[-400:]}"
    if left := left_over(process.pid):
        return "left over", f"{what}: {left}"
    return lab.goes_on("quickstart", COMPARISON, output, "comparison", what)


def signals(lab: Lab, rng: random.Random, output: pathlib.Path) -> Outcome:
    """A signal at any time after the run has begun."""
    process, number = (
        lab.start(lab.command("train", RUN, output), output),
        rng.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT]),
    )
    errors = output.with_name(f"{output.name}.stderr")
    while not errors.stat().st_size and process.poll() is None:
        time.sleep(0.02)
    after = rng.uniform(0, 0.5) * lab.seconds
    what = f"{number.name} {after:.2f} s after it had begun"
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    ended = lab.wait(process)
    last = ended.errors.splitlines()[-1]
    stopped = ended.code == 128 + number and last.startswith(f"error: stopped by {number.name} ")
    if not stopped and not (output / "DONE").exists():
        return "wrong end", f"{what}: exit {ended.code}: {last}"
    if left := left_over(process.pid):
        return "left over", f"{what}: {left}"
    return lab.goes_on("train", RUN, output, "run", f"{what}: {last}")


def writers(lab: Lab, rng: random.Random, output: pathlib.Path) -> Outcome:
    """A second process on the same directory."""
    first = lab.start(lab.command("train", RUN, output), output)
    while not ((output / "lock").exists() and (output / "lock").read_text()) and first.poll() is None:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3) * lab.seconds)
    second = subprocess.run(lab.command("train", RUN, output), capture_output=True, text=True, check=False)
    lines = second.stderr.splitlines()
    refused = second.returncode == 2 and len(lines) == 1 and f"process {first.pid} on" in lines[0]
    was_late = (output / "DONE").exists() and second.returncode == 0
    ended = lab.wait(first)
    if not (refused or was_late) or ended.code:
        return "wrong end", f"exits {ended.code} and {second.returncode}: {lines[-1:]}"
    return lab.goes_on("train", RUN, output, "run", f"refused: {lines[-1:]}")


def reads(lab: Lab, count: int, output: pathlib.Path) -> collections.Counter[str]:
    """Reads live runs that save at every step, so many times in all; each run must end as if unread."""
    seen: collections.Counter[str] = collections.Counter()
    verbs = ("digest", "export", "eval", "report")
    for number in range(10**6):
        if sum(seen.values()) >= count:
            break
        own = output.with_name(f"{output.name}_{number}")
        process = lab.start(lab.command("train", LIVE, own), own)
        while process.poll() is None and not finished_steps(own / "checkpoints"):
            time.sleep(0.02)
        while process.poll() is None and sum(seen.values()) < count:
            with tempfile.TemporaryDirectory(dir=lab.root) as place:
                kind, found = lab.damage.read(verbs[sum(seen.values()) % len(verbs)], own, pathlib.Path(place))
            seen[kind or "equal"] += 1
            if kind == "traceback":
                print(f"reads: traceback: {found}", flush=True)
        ended = lab.wait(process)
        outcome, what = lab.goes_on("train", LIVE, own, "live", "read while it ran")
        if ended.code or outcome != "equal":
            seen["different"] += 1
            print(f"reads: {outcome}: exit {ended.code}: {what}", flush=True)
    return seen


PROCESSES: dict[str, Callable[[Lab, random.Random, pathlib.Path], Outcome]] = {
    "kills": kills, "comparisons": comparisons, "signals": signals, "writers": writers,
}  # fmt: skip


def trial(lab: Lab, kind: str, seed: int) -> Outcome:
    """One trial of a kind."""
    if kind in HARMS:
        return lab.damage.trial(HARMS[kind], seed)
    try:
        return PROCESSES[kind](lab, random.Random(f"{kind} {seed}"), lab.root / f"{kind}_{seed}")
    except Exception as error:
        said = message(error)
        return ("traceback" if FAULT in said else "wrong end"), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in COUNTS.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", default="", help="KIND:SEED, one trial again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        lab = Lab(pathlib.Path(root))
        print(f"a run takes {lab.seconds:.1f} s, a comparison {lab.comparison_seconds:.1f} s", flush=True)
        if options.only:
            kind, _, seed = options.only.partition(":")
            if kind not in COUNTS or kind == "reads" or not seed.isdecimal():
                raise unknown_name("trial", options.only, [f"{name}:0" for name in COUNTS if name != "reads"])
            print(*trial(lab, kind, int(seed)), sep=": ")
            return
        found = {kind: _all(lab, kind, vars(options)[kind], options) for kind in COUNTS if vars(options)[kind]}
    print(markdown([{"kind": kind, **{name: str(seen[name]) for name in OUTCOMES}} for kind, seen in found.items()]))
    if any(seen[outcome] for seen in found.values() for outcome in FAULTS):
        sys.exit(1)


def _all(lab: Lab, kind: str, count: int, options: argparse.Namespace) -> collections.Counter[str]:
    """All trials of a kind; those that fail are printed."""
    if count < 0:
        raise UsageError(f"--{kind} must be at least 0, got {count}")
    started = time.monotonic()
    if kind == "reads":
        seen = reads(lab, count, lab.root / "reads")
    else:
        seen = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(1 if kind in HARMS else options.jobs) as threads:
            seeds = range(options.seed, options.seed + count)
            for seed, (outcome, what) in zip(seeds, threads.map(lambda s: trial(lab, kind, s), seeds), strict=True):
                seen[outcome] += 1
                if outcome in FAULTS:
                    print(f"{kind}:{seed}: {outcome}: {what}", flush=True)
    print(f"{kind}: {dict(seen)} in {time.monotonic() - started:.0f} s", flush=True)
    return seen


if __name__ == "__main__":
    exit_with_message(main)
