"""Arms x algorithms x seeds as one job: shared starts and baselines, both cores, resumable, reporting as it goes.

    python -m experiments.sweep --algorithms ppo,rloo --arms uniform,uniform_wide,lilo,frontier --seeds 8
    python -m experiments.sweep --algorithms rloo --arms uniform,lilo,frontier --task pairs --output-dir runs/pairs

An arm is one of the quickstart's, the name of a curriculum (with its default settings), or `package.module:ClassName`.
All runs of a seed start from one fine-tuning, arms of all algorithms alike.  Stop it, or kill it, and the same command
goes on; the same command with more arms, algorithms or seeds runs only what is new.  After every run `table.md` and
`summary.json` are written anew from the runs that are done.

Cost on the quickstart task: 10 to 30 seconds a run on a core, 30 a seed for its fine-tuning.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from experiments import quickstart
from experiments.runner import Runs, compare, print_config
from lilo_jax import config as configuration
from lilo_jax.assembly import check
from lilo_jax.config import Config, Launch, exit_with_message
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.report.summary import summarize


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The command line.  Settings of an algorithm and its optimiser are those of the quickstart."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/sweep")
    algorithms: str = "ppo,rloo"
    """which of the quickstart's algorithms"""
    arms: str = "uniform,uniform_wide,lilo,frontier"
    """what to compare, the first being the baseline"""
    seeds: int = 8
    """number of seeds"""
    first_seed: int = 601
    """the first of them; the others follow"""
    split: str = "test"
    """held-out set of the table; validation for tuning"""
    jobs: int = 0
    """runs at a time; 0 takes one per CPU core"""


def config() -> Config:
    """What all arms have in common, before the settings of an algorithm."""
    return quickstart.config("rloo")


def main() -> None:
    """Runs what is not done yet and writes the table."""
    options = configuration.parse(
        SweepOptions(config=config()),
        sys.argv[1:],
        prog="python -m experiments.sweep",
        description=__doc__ or "",
    )
    if print_config(options.config, options.launch):
        return
    algorithms, names = (_listed(text) for text in (options.algorithms, options.arms))
    for name in algorithms:
        if name not in quickstart.SETTINGS:
            raise unknown_name("algorithm", name, quickstart.SETTINGS)
    if options.split not in (splits := check(options.config).splits) or options.split == "train":
        raise unknown_name("split", options.split, set(splits) - {"train"})
    if options.seeds < 1 or options.config.num_steps < 1:
        raise UsageError("--seeds and --num-steps must be at least 1")
    arms = {
        f"{algorithm}_{label(name)}": quickstart.arm(name, configuration.replace(options.config, **settings))
        for algorithm in algorithms
        for settings in (quickstart.SETTINGS[algorithm],)
        for name in names
    }
    root = pathlib.Path(options.launch.output_dir)

    def report(runs: Runs) -> None:
        _report(root, _by_algorithm(runs, algorithms, names), options.split, label(names[0]))

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = compare(options.config, arms, seeds=list(seeds), launch=options.launch, jobs=options.jobs, after_each=report)
    report(runs)
    print((root / "table.md").read_text(encoding="utf-8"))


def label(name: str) -> str:
    """An arm's name as part of a path."""
    return name.rpartition(":")[2]


def _listed(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(f"--arms and --algorithms are different names with commas between them, not {text!r}")
    return names


def _by_algorithm(runs: Runs, algorithms: list[str], names: list[str]) -> dict[str, Runs]:
    """Algorithm to arm to the runs that are done."""
    found: dict[str, Runs] = {}
    for algorithm in algorithms:
        arms = {label(name): runs[f"{algorithm}_{label(name)}"] for name in names}
        done = {arm: {seed: run for seed, run in own.items() if run.is_done()} for arm, own in arms.items()}
        found[algorithm] = {arm: own for arm, own in done.items() if own}
    return found


def _report(root: pathlib.Path, found: Mapping[str, Runs], split: str, baseline: str) -> None:
    """Writes the table and the numbers it is made of; algorithms without a finished baseline wait."""
    summaries = {name: summarize(arms, split, baseline) for name, arms in found.items() if baseline in arms}
    lines = [f"| algorithm | arm | seeds | final | steps | tokens | tokens of a run | zero variance, trained |{TRAPS}"]
    lines += ["|---" * 9 + "|"]
    for name, summary in summaries.items():
        lines += [_row(name, arm, summary, found[name]) for arm in summary["arms"]]
    (root / "summary.json").write_text(json.dumps(summaries, indent=1) + "\n", encoding="utf-8")
    (root / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


TRAPS = " traps, trained |"


def _row(algorithm: str, arm: str, summary: Mapping[str, Any], arms: Runs) -> str:
    final, runs = summary["final"][arm], summary["arms"][arm]
    speedups = summary["speedup"].get(arm)
    tokens = [run["generated_tokens"][-1] for run in runs]
    traps = [
        record["curriculum/admitted_trap_fraction"]
        for run in arms[arm].values()
        for record in run.read("metrics")
        if record.get("curriculum/admitted_trap_fraction") is not None
    ]
    interval = "" if final["low"] is None else f" [{final['low']:.3f}, {final['high']:.3f}]"
    cells = [
        algorithm,
        f"`{arm}`",
        str(len(runs)),
        f"{final['mean']:.3f}{interval}",
        *(ratio(speedups[budget]) if speedups else "1" for budget in ("steps", "generated_tokens")),
        f"{sum(tokens) / len(tokens) / 1e3:.0f}k",
        f"{summary['zero_variance'][arm]['admitted']:.2f}",
        f"{sum(traps) / len(traps):.3f}" if traps else "-",
    ]
    return f"| {' | '.join(cells)} |"


def ratio(speedup: Mapping[str, Any]) -> str:
    """A speed-up with its interval, and on how many seeds it rests if not on all."""
    if speedup["mean"] is None:
        return f"never reached ({speedup['of']} seeds)"
    interval = "" if speedup["low"] is None else f" [{speedup['low']:.2f}, {speedup['high']:.2f}]"
    missing = "" if speedup["reached"] == speedup["of"] else f", {speedup['reached']} of {speedup['of']}"
    return f"{speedup['mean']:.2f}x{interval}{missing}"


if __name__ == "__main__":
    exit_with_message(main)
