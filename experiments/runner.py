"""From a command line to runs: what every experiment module shares."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import jax
from pebble import ProcessExpired, ProcessPool

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options
from lilo_jax.errors import RunError, Stopped, UsageError, unknown_name
from lilo_jax.processes import hosts
from lilo_jax.processes.lifetime import MortalSpawnProcess, context_of
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.sinks import chosen_sinks
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.checks import check, resolve
from lilo_jax.training.defaults import settle
from lilo_jax.training.opening import open_run
from lilo_jax.training.run import Result, run
from lilo_jax.training.sft import start_config

Runs = dict[str, dict[int, RunDirectory]]
"""Arm to seed to the run's directory."""


def run_single(config: Config, *, module: str, description: str | None) -> Result | None:
    """Runs one config with overrides from the command line; what it leaves open follows the model that it names."""
    given, args = Options(config=config), sys.argv[1:]
    options = configuration.parse(given, args, prog=f"python -m {module}", description=description or "")
    fields = configuration.given_fields(given, Options(), args)
    options = dataclasses.replace(options, config=settle(options.config, fields, options.launch.output_dir))
    if print_config(options.config, options.launch):
        return None
    return run(options.config, options.launch, name=module.split(".")[-1])


def print_config(config: Config, launch: Launch) -> bool:
    """Prints the resolved config if `--print-config` asks for it, and says whether it did."""
    if launch.print_config:
        print(to_json(configuration.to_dict(config), indent=2))
    return launch.print_config


def chosen(kind: str, names: str, known: Collection[str]) -> list[str]:
    """The names in a text with commas between, each once; a `UsageError` at one that is not known."""
    found = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in found:
        if name not in known:
            raise unknown_name(kind, name, known)
    return found


def refuse_ignored(
    given: Config, default: Config, arms: Callable[[Config], Mapping[str, Config]], args: Sequence[str] = ()
) -> None:
    """Refuses an option of the command line that makes no difference to an arm, which sets its own.

    Args:
        given: what the arms have in common, from the command line.
        default: the same without a command line.
        arms: makes the arms of either.
        args: the command line, which may name an option and give it its default.
    """
    named = configuration.named_fields(args)
    if given.seed != default.seed:
        raise UsageError("--seed would be ignored, because every run has its own: choose them with --first-seed")
    asked, usual = (configuration.flat(configuration.to_dict(config)) for config in (given, default))
    before = arms(default)
    for name, arm in arms(given).items():
        here, there = (configuration.flat(configuration.to_dict(config)) for config in (arm, before[name]))
        for path, value in asked.items():
            if (value != usual.get(path) or path in named) and here.get(path) == there.get(path) != value:
                option = path.removesuffix(".name").replace("_", "-")
                raise UsageError(
                    f"--{option} would be ignored, because the arm {name} has its own: leave it out, or give it to "
                    f"experiments.train"
                )


def refuse_split(config: Config, split: str) -> None:
    """Refuses to measure on a split that the task does not hold out; the task must be there, a model need not."""
    held_out = set(check(config).splits) - {"train"}
    if split not in held_out:
        raise unknown_name("split", split, held_out)


def compare(
    config: Config,
    arms: Mapping[str, Config],
    *,
    seeds: Sequence[int],
    launch: Launch,
    jobs: int = 0,
    after_each: Callable[[Runs], None] = lambda runs: None,
) -> Runs:
    """Runs every arm on every seed, all arms of a seed from the same weights.

    Runs lie in OUTPUT_DIR/seed_S/{sft, ARM}; those that are done are not run again, those cut short go on.  There is no
    `sft` where the config names a model and does not fine-tune it.

    Args:
        config: what the arms have in common; kept in OUTPUT_DIR, which refuses another one.
        arms: name to config; their seed and starting point are filled in here.
        seeds: of the runs.
        launch: where and how.
        jobs: runs at a time; 0 takes one per core on CPU and one on an accelerator, which processes cannot share.
        after_each: called with all runs, finished or not, whenever one is; of several processes in the first alone.
    """
    config, arms = resolve(config), {name: resolve(arm) for name, arm in arms.items()}
    for arm in arms.values():
        check(arm)
    chosen_sinks(launch.log)
    with open_run(launch.output_dir, config, launch.resume, {}) as root:
        ready = _ready(root.path, config, arms, seeds, launch)
        runs = {name: {seed: RunDirectory(root.path / f"seed_{seed}" / name) for seed in seeds} for name in arms}
        # Processes that train one model take the runs in turn, all together.
        workers = 1 if hosts.number() > 1 else min(jobs or _processes(), len(arms) * len(seeds))
        with executor(workers) as pool:
            _run_all(ready, pool, workers, launch, lambda: after_each(runs) if hosts.is_first() else None)
    if not hosts.is_first():
        sys.exit()  # the first process alone reports
    return runs


def _processes() -> int:
    """Runs at a time: one per core, and one on an accelerator, which processes cannot share."""
    return os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1


class _Job(NamedTuple):
    """One run of a comparison."""

    name: str
    config: Config
    launch: Launch

    def run(self, *, bar: bool) -> None:
        run(self.config, self.launch, name=self.name, bar=bar)

    def within(self, seconds: float) -> "_Job":
        """The same with a limit of time; 0 sets none."""
        return self._replace(launch=dataclasses.replace(self.launch, max_seconds=seconds))

    def is_done(self) -> bool:
        return RunDirectory(self.launch.output_dir).is_done()


_Begun = tuple[_Job, list[_Job]]
"""A run, and those that can begin when it is done."""


def _ready(
    root: AnyPath, config: Config, arms: Mapping[str, Config], seeds: Sequence[int], launch: Launch
) -> list[_Begun]:
    """The runs that can begin, each with those that can when it is done.

    Arms of a seed start from the same fine-tuned weights, or all from the model that was given if none are fine-tuned.
    """
    found: list[_Begun] = []
    # The longest of a seed's runs first, so that no worker is left alone with one at the end.
    longest_first = sorted(arms.items(), key=lambda arm: -arm[1].rollout.questions)
    for seed in seeds:
        path = root / f"seed_{seed}"
        given = config.model.path if not config.sft.steps else ""
        filled = {
            name: configuration.replace(arm, seed=seed, model__path=given or str(path / "sft"), sft__steps=0)
            for name, arm in longest_first
        }
        following = [_Job(f"seed {seed} {name}", arm, launch.of_part(path / name)) for name, arm in filled.items()]
        if given:
            found += [(job, []) for job in following]
        else:
            start = start_config(configuration.replace(config, seed=seed))
            found.append((_Job(f"seed {seed} sft", start, launch.of_part(path / "sft")), following))
    return found


@contextlib.contextmanager
def executor(workers: int) -> Iterator[ProcessPool | None]:
    """Worker processes, or None for one; leaving the block stops them.  They are spawned, not forked: JAX has threads.

    The pool is pebble's: the standard library's waits for ever for a process that saves when it is told to end.

    Raises:
        RunError: one of them was killed.
    """
    if workers == 1:
        yield None
        return
    threads = max((os.cpu_count() or 1) // workers, 1)
    pool = ProcessPool(workers, context=context_of(MortalSpawnProcess), initializer=_share_cores, initargs=(threads,))
    try:
        yield pool
    except (BrokenProcessPool, ProcessExpired):
        raise RunError(
            "a worker process was killed, by the system if memory ran out (--jobs 1 takes the least): the same command "
            "goes on with all runs"
        ) from None
    finally:
        pool.stop()
        pool.join()


def _share_cores(threads: int) -> None:
    """Gives this process its share of the cores: XLA reads NPROC, and by default takes all for each process."""
    os.environ["NPROC"] = str(threads)


def _run_all(
    ready: list[_Begun],
    pool: ProcessPool | None,
    workers: int,
    launch: Launch,
    after_each: Callable[[], None],
) -> None:
    """Runs each, and then what waits for it; the first error ends all, a signal lets all save."""
    jobs = [job for first, following in ready for job in (first, *following)]
    forward = _ask_workers if pool else lambda: None
    with StopRequest(grace=launch.grace, max_seconds=launch.max_seconds, forward=forward) as stop:
        if pool:
            _run_side_by_side(ready, pool, workers, stop, after_each)
        else:
            _run_in_turn(jobs, stop, after_each)
        stop.check("with the runs saved that were going on: the same command goes on with them")
    if stop.asked and (left := sum(not job.is_done() for job in jobs)):
        raise Stopped(f"stopped at --max-seconds with {left} of {len(jobs)} runs left: the same command goes on", 0)


def _run_in_turn(jobs: list[_Job], stop: StopRequest, after_each: Callable[[], None]) -> None:
    for job in jobs:
        if stop.agreed():
            break
        job.within(stop.seconds_left).run(bar=True)
        after_each()


def _run_side_by_side(
    ready: list[_Begun],
    pool: ProcessPool,
    workers: int,
    stop: StopRequest,
    after_each: Callable[[], None],
) -> None:
    ready = list(ready)
    running: dict[Future[None], list[_Job]] = {}
    while running or (ready and not stop.asked):
        while ready and len(running) < workers and not stop.asked:
            job, following = ready.pop(0)
            running[pool.schedule(_run_quietly, (job.within(stop.seconds_left),))] = following
        for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
            following = running.pop(future)
            if stop.signalled:  # whatever became of it: it saves if it can
                continue
            future.result()
            after_each()
            ready += [(job, []) for job in following]


def _ask_workers() -> None:
    """Lets the runs save and end.  Not by Ctrl-C, which a terminal has sent them too: twice would end them at once."""
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)


def _run_quietly(job: _Job) -> None:
    job.run(bar=False)


def experiments() -> list[str]:
    """Names of the experiment modules that train a model: those that have a config."""
    here = pathlib.Path(__file__).parent
    return sorted(p.stem for p in here.glob("*.py") if "\ndef config(" in p.read_text(encoding="utf-8"))
