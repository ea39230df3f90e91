"""Thousands of hostile inputs, each to be taken, or refused in one line: a traceback or a hang is a fault.

    python -m benchmarks.fuzz --options 5000 --configs 2000 --lines 5000 --models 1000 --checkpoints 100 --seed 0
    python -m benchmarks.fuzz --only models:17        # one case again, with its traceback

The cases are those of `benchmarks/hostile.py`, a function of kind and seed each.  Two processes try them, each with a
deadline; the exit status is 1 if there is a fault.  Silent is what was accepted although it should not have been: a
file that `lilo data check` and training judge differently, a damaged run that is read as another one.
"""

import argparse
import collections
import contextlib
import io
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from pebble import ProcessExpired, ProcessPool

from benchmarks.table import markdown
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.processes.endings import FAULT, exit_with_message, message

NAMES = ("options", "configs", "lines", "models", "checkpoints")
WORKERS = 2
DEADLINE = 20.0
"""Seconds for one case."""
MEMORY = 16 << 30
"""Bytes of address space of a worker, so that a size without bound ends it and not the machine."""
SHOWN = 600
"""Characters of a failing case that are printed."""
OUTCOMES = ("accepted", "refused", "traceback", "hang", "silent")
FAULTS = OUTCOMES[2:]


class Outcome(NamedTuple):
    """How a case ended.

    Attributes:
        kind: one of `OUTCOMES`.
        what: the case in words.
        said: what was raised, or is wrong.
    """

    kind: str
    what: str = ""
    said: str = ""


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in NAMES:
        parser.add_argument(f"--{name}", type=int, default=0, help=f"cases of {name}")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind; the others follow")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for one case")
    parser.add_argument("--only", default="", metavar="KIND:SEED", help="one case, in this process, with its traceback")
    arguments = parser.parse_args()
    cast(io.TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")  # of a case that holds half a surrogate
    counts = {name: getattr(arguments, name) for name in NAMES}
    with a_run(arguments.only.startswith("checkpoints") or counts["checkpoints"] > 0):
        if arguments.only:
            repeat(arguments.only)
            return
        faults = fuzz(counts, arguments.seed, deadline=arguments.deadline)
    sys.exit(1 if faults else 0)


def fuzz(counts: dict[str, int], seed: int, *, deadline: float = DEADLINE) -> int:
    """Tries so many cases of each kind, from a seed on, and prints what happened; the number of faults."""
    rows, faults = [], 0
    for name, count in counts.items():
        found: collections.Counter[str] = collections.Counter()
        cases = [(name, number) for number in range(seed, seed + count)]
        for (_, number), outcome in zip(cases, outcomes(attempt, cases, deadline), strict=True):
            found[outcome.kind] += 1
            if outcome.kind in FAULTS:
                print(f"{outcome.kind}: --only {name}:{number}\n  {outcome.said}\n  {outcome.what}", flush=True)
        if count:
            rows.append({"kind": name, "cases": str(count)} | {kind: str(found[kind]) for kind in OUTCOMES})
        faults += sum(found[kind] for kind in FAULTS)
    print(f"\n{markdown(rows)}\n\n{faults} faults, seeds from {seed}")
    return faults


def outcomes(attempt: Callable[..., Outcome], cases: Sequence[tuple[Any, ...]], deadline: float) -> Iterator[Outcome]:
    """What `attempt` returns for the arguments of each case, in their order, from processes that may hang or die."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(WORKERS, context=context, initializer=_prepare) as pool:
        for future in [pool.schedule(attempt, args=case, timeout=deadline) for case in cases]:
            try:
                yield future.result()
            except TimeoutError:
                yield Outcome("hang", said=f"not done after {deadline:g} seconds")
            except ProcessExpired as error:
                yield Outcome("traceback", said=f"the process died: {error}")


def _prepare() -> None:
    """In a worker, before its first case: no network, no accelerator, bounded memory, and nothing printed."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, for good
    from benchmarks import hostile

    hostile.warm_up()


def attempt(name: str, seed: int) -> Outcome:
    """Tries one case."""
    from benchmarks import hostile

    with tempfile.TemporaryDirectory(prefix="fuzz_") as directory:
        case = hostile.KINDS[name](random.Random(f"{name}:{seed}"), pathlib.Path(directory))
        what = case.what[:SHOWN]
        try:
            wrong = case.attempt()
        except (Exception, SystemExit) as error:
            said = message(error)
            if isinstance(error, SystemExit) or FAULT not in said:
                return Outcome("refused", what, said)
            place = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome("traceback", what, f"{said.partition(f'; {FAULT}')[0]} ({place.filename}:{place.lineno})")
        return Outcome("silent", what, wrong) if wrong else Outcome("accepted", what)


def repeat(case: str) -> None:
    """Tries one case in this process and shows everything."""
    from benchmarks import hostile

    name, _, seed = case.partition(":")
    if name not in NAMES:
        raise unknown_name("kind", name, NAMES)
    if not seed.isdecimal():
        raise UsageError(f"--only is KIND:SEED, such as models:17, not {case!r}")
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    hostile.warm_up()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as directory:
        found = hostile.KINDS[name](random.Random(f"{name}:{seed}"), pathlib.Path(directory))
        print(found.what)
        try:
            print(found.attempt() or "accepted")
        except (Exception, SystemExit) as error:
            traceback.print_exception(error)
            print(message(error))


@contextlib.contextmanager
def a_run(needed: bool) -> Iterator[None]:
    """Makes the run that checkpoints are taken from, for this process and its workers."""
    if not needed:
        yield
        return
    from benchmarks import hostile

    directory = tempfile.mkdtemp(prefix="fuzz_run_")
    try:
        os.environ[hostile.RUN] = f"{directory}/run"
        hostile.make_run(pathlib.Path(directory) / "run")
        yield
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    exit_with_message(main)
