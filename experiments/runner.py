"""From a command line to runs: what every experiment module shares."""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor

import jax

from lilo_jax import config as configuration
from lilo_jax.assembly import check, start_config
from lilo_jax.config import Config, Launch, Options
from lilo_jax.run import Result, run
from lilo_jax.storage.run_directory import RunDirectory, open_run

Runs = dict[str, dict[int, RunDirectory]]
"""Arm to seed to the run's directory."""


def run_single(config: Config, *, module: str, description: str | None) -> Result | None:
    """Runs one config with overrides from the command line."""
    options = configuration.parse(
        Options(config=config), sys.argv[1:], prog=f"python -m {module}", description=description or ""
    )
    if print_config(options.config, options.launch):
        return None
    return run(options.config, options.launch, name=module.split(".")[-1])


def print_config(config: Config, launch: Launch) -> bool:
    """Prints the resolved config if `--print-config` asks for it, and says whether it did."""
    if launch.print_config:
        print(json.dumps(configuration.to_dict(config), indent=2))
    return launch.print_config


def compare(config: Config, arms: Mapping[str, Config], *, seeds: Sequence[int], launch: Launch, jobs: int = 0) -> Runs:
    """Runs every arm on every seed, all arms of a seed from the same fine-tuned weights.

    Runs lie in OUTPUT_DIR/seed_S/{sft, ARM}; those that are done are not run again, those cut short go on.

    Args:
        config: what the arms have in common; kept in OUTPUT_DIR, which refuses another one.
        arms: name to config; their seed and starting point are filled in here.
        seeds: of the runs.
        launch: where and how.
        jobs: runs at a time; 0 takes one per core on CPU and one on an accelerator, which processes cannot share.
    """
    for arm in arms.values():
        check(arm)
    root = open_run(launch.output_dir, config, launch.resume).path
    jobs = jobs or (os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1)
    starts, runs = {}, {}
    for seed in seeds:
        directory = root / f"seed_{seed}"
        starts[seed] = (start_config(configuration.replace(config, seed=seed)), str(directory / "sft"))
        for name, arm in arms.items():
            from_start = configuration.replace(arm, seed=seed, init_from=str(directory / "sft"))
            runs[name, seed] = (from_start, str(directory / name))
    with _executor(min(jobs, len(runs))) as executor:
        _run_all({f"seed {seed} sft": job for seed, job in starts.items()}, executor)
        _run_all({f"seed {seed} {name}": job for (name, seed), job in runs.items()}, executor)
    return {name: {seed: RunDirectory(runs[name, seed][1]) for seed in seeds} for name in arms}


def _executor(workers: int) -> contextlib.AbstractContextManager[Executor | None]:
    """Worker processes, or None for one.  They are spawned, not forked: JAX has threads."""
    if workers == 1:
        return contextlib.nullcontext()
    threads = max((os.cpu_count() or 1) // workers, 1)
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_share_cores, initargs=(threads,)
    )


def _share_cores(threads: int) -> None:
    """Gives this process its share of the cores: XLA reads NPROC, and by default takes all for each process."""
    os.environ["NPROC"] = str(threads)


def _run_all(jobs_by_name: Mapping[str, tuple[Config, str]], executor: Executor | None) -> None:
    """Runs configs; the first error ends all."""
    if executor is None:
        for name, (config, path) in jobs_by_name.items():
            run(config, Launch(output_dir=path), name=name)
        return
    futures = [executor.submit(_run_quietly, config, path, name) for name, (config, path) in jobs_by_name.items()]
    try:
        for future in concurrent.futures.as_completed(futures):
            future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise


def _run_quietly(config: Config, path: str, name: str) -> None:
    run(config, Launch(output_dir=path), name=name, bar=False)


def experiments() -> list[str]:
    """Names of the experiment modules."""
    here = pathlib.Path(__file__).parent
    return sorted(p.stem for p in here.glob("*.py") if p.stem not in ("__init__", "runner"))
