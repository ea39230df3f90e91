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
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from benchmarks.damage import Damage
from benchmarks.table import markdown
from lilo_jax import config as configuration
from lilo_jax.config import Options
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.processes.endings import FAULT, exit_with_message, message
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
    *("--model.num-layers", "1", "--model.embed-dim", "32", "--model.num-heads", "2", "--model.num-kv-heads", "2"),
    *("--model.mlp-dim", "64", "--task.pool", "64", "--task.validation", "16", "--task.test", "16"),
    *("--task.longer", "8", "--task.demonstrations", "200", "--sft.steps", "30", "--sft.batch", "32"),
    *("--rollout.questions", "4", "--rollout.samples", "4", "--evaluation.rows", "16", "--evaluation.every", "3"),
    *("--storage.rollouts-every", "2"),
]
RUN = [*MODEL, "--num-steps", "12", "--storage.save-every", "2", "--algorithm.kl-coefficient", "0.01"]
LIVE = [*MODEL, "--num-steps", "150", "--storage.save-every", "1"]
COMPARISON = [*MODEL, "--num-steps", "6", "--storage.save-every", "2", "--seeds", "1", "--arms", "uniform,lilo"]
PHASES = {
    "fine-tuning": "sft/tokenizer",
    "the first evaluation": "tokenizer",
    "a save": "checkpoints/*tmp*",
    "the end": "checkpoints/12",
}
"""What lies in the directory of a run as soon as a phase has begun."""
COMPARISON_PHASES = {
    "fine-tuning": "seed_*/sft/tokenizer",
    "the first evaluation": "seed_*/lilo/tokenizer",
    "a save": "seed_*/*/checkpoints/*tmp*",
    "the report": "summary.json",
}
NOT_YET = ("no finished checkpoint", "no checksums.json", "no tokenizer", "no config.json", "has no evaluation")
"""Why a run may be refused that has just begun."""
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

    def __init__(self, root: pathlib.Path, kinds: Collection[str]) -> None:
        """Makes what the trials of these kinds need."""
        self.root = root
        self.expected: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        if set(kinds) - {"comparisons", "reads"}:
            self._make("run", "train", RUN)
        if "comparisons" in kinds:
            self._make("comparison", "quickstart", COMPARISON)
        if "reads" in kinds:
            self._make("live", "train", LIVE)
        config = configuration.parse(Options(), RUN, prog="faults", description="").config
        self.damage = Damage(config, {"finished": root / "run", "half-way": root / "half"}, root)
        if HARMS.keys() & kinds:
            half = self.command("train", [*RUN, "--stop-at", "7"], root / "half")
            assert self.wait(self.start(half, root / "half")).code == 0

    def _make(self, name: str, experiment: str, options: list[str]) -> None:
        """An undisturbed run, twice, so that what is timed has its programs compiled."""
        for output in (self.root / f"{name}_first", self.root / name):
            started = time.monotonic()
            ended = self.wait(self.start(self.command(experiment, options, output), output))
            assert ended.code == 0, ended.errors
            self.seconds[name] = time.monotonic() - started
        self.expected[name] = findings(self.root / name)

    @staticmethod
    def command(experiment: str, options: list[str], output: pathlib.Path) -> list[str]:
        return [sys.executable, "-m", f"experiments.{experiment}", *options, "--output-dir", str(output)]

    def start(self, command: list[str], output: pathlib.Path) -> subprocess.Popen:
        """A process in a session of its own, whose stderr is kept beside its output."""
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.root / "programs"), **os.environ, "NPROC": "1"}
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
        found = findings(output)
        changed = sorted(set(found) ^ set(self.expected[expected]))
        return ("different", f"{what}: {changed[:4]}") if changed else ("equal", what)


def findings(output: pathlib.Path) -> list[str]:
    """What equal runs have equal: the lines of `lilo digest`, and of a comparison its summary without the clock's."""
    summary = output / "summary.json"
    numbers = [f"{_timeless(json.loads(summary.read_text()))}  summary.json"] if summary.exists() else []
    return digest_lines(output) + numbers


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if "seconds" not in name}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def moment(rng: random.Random, phases: Mapping[str, str], output: pathlib.Path, seconds: float) -> "Moment":
    """In a quarter of the cases the begin of a phase, else a time up to `seconds`, in which the run ends."""
    if rng.random() < 0.25:
        phase = rng.choice(sorted(phases))
        return Moment(f"in {phase}", lambda: any(output.glob(phases[phase])))
    after = rng.uniform(0, seconds)
    until = time.monotonic() + after
    return Moment(f"after {after:.2f} s", lambda: time.monotonic() >= until)


class Moment(NamedTuple):
    """When a process is disturbed."""

    name: str
    has_come: Callable[[], bool]

    def wait(self, process: subprocess.Popen) -> bool:
        """Waits for it; whether the process still runs then."""
        while process.poll() is None and not self.has_come():
            time.sleep(0.002)
        return process.poll() is None


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
    process = lab.start(lab.command("train", RUN, output), output)
    when = moment(rng, PHASES, output, lab.seconds["run"])
    what = f"kill -9 {when.name}"
    if when.wait(process):
        process.kill()
    process.wait()
    if left := left_over(process.pid):
        return "left over", f"{what}: {left}"
    return lab.goes_on("train", RUN, output, "run", what)


def comparisons(lab: Lab, rng: random.Random, output: pathlib.Path) -> Outcome:
    """Kill -9 of a comparison: of the parent, of all its processes, of one worker."""
    process = lab.start(lab.command("quickstart", COMPARISON, output), output)
    victim, when = (
        rng.choice(["parent", "group", "worker"]),
        moment(rng, COMPARISON_PHASES, output, lab.seconds["comparison"]),
    )
    what = f"kill -9 of the {victim} {when.name}"
    if when.wait(process):
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
    after = rng.uniform(0, 0.5) * lab.seconds["run"]
    what = f"{number.name} {after:.2f} s after it had begun"
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    ended = lab.wait(process)
    last = ended.errors.splitlines()[-1]
    stopped = ended.code == 128 + number and last.startswith(f"error: stopped by {number.name} ")
    stopped = stopped and ended.errors.count("error:") == 1 and "Traceback" not in ended.errors
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
    time.sleep(rng.uniform(0, 0.3) * lab.seconds["run"])
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
            if kind == "refused" and not any(reason in found for reason in NOT_YET):
                kind = "different"
            seen[kind or "equal"] += 1
            if kind in FAULTS:
                print(f"reads: {kind}: {found}", flush=True)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the trials that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in COUNTS.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", default="", help="KIND:SEED, one trial again")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as root:
        kind, _, seed = options.only.partition(":")
        if options.only and (kind not in COUNTS or kind == "reads" or not seed.isdecimal()):
            raise unknown_name("trial", options.only, [f"{name}:0" for name in COUNTS if name != "reads"])
        lab = Lab(pathlib.Path(root), {kind} if options.only else {kind for kind in COUNTS if vars(options)[kind]})
        print(*(f"{name}: {seconds:.1f} s undisturbed" for name, seconds in lab.seconds.items()), sep="\n", flush=True)
        if options.only:
            print(*trial(lab, kind, int(seed)), sep=": ")
            return
        found = {kind: _all(lab, kind, vars(options)[kind], options) for kind in COUNTS if vars(options)[kind]}
    print(markdown([_row(kind, seen) for kind, seen in found.items()]))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{sum(each.ru_utime + each.ru_stime for each in used):.0f} CPU seconds, but for killed processes")
    if any(seen[outcome] for seen in found.values() for outcome in FAULTS):
        sys.exit(1)


def _row(kind: str, seen: collections.Counter[str]) -> dict[str, str]:
    trials = sum(seen[name] for name in OUTCOMES)
    return {"kind": kind, "trials": str(trials), **{name: str(seen[name]) for name in (*OUTCOMES, "seconds")}}


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
    seen["seconds"] = round(time.monotonic() - started)
    return seen


if __name__ == "__main__":
    exit_with_message(main)
