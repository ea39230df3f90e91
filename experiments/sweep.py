"""Arms x algorithms x seeds as one job: shared starts and baselines, both cores, resumable, reporting as it goes.

    python -m experiments.sweep --algorithms ppo,rloo --arms uniform,uniform@32x2,lilo@32x2,frontier@32x2 --seeds 8
    python -m experiments.sweep --algorithms rloo --arms uniform,lilo,frontier --task pairs --output-dir runs/pairs

An arm is one of the quickstart's: the name of a curriculum or `package.module:ClassName`, alone or with a shape of its
own, RULE@QUESTIONSxSAMPLES.
All runs of a seed start from one fine-tuning, arms of all algorithms alike.  Stop it, or kill it, and the same command
goes on; the same command with more arms, algorithms or seeds runs only what is new.  After every run `table.md` and
`summary.json` are written anew from the runs that are done.  Steps, tokens and seconds of the table are how many
times less, or more, than the first arm, [95% interval] or (least..most of fewer than 5 seeds), seeds that reached its
final accuracy/seeds; * the interval includes 1, ! not all did.
With traps in the pool (`--noise.wrong-keys`, `--noise.coin-flips`) their share of the groups that were rolled out is
told as a multiple of their share of the pool, which is 1 for `uniform`, and their share of those trained on as it is.

Cost on the quickstart task: 10 to 30 seconds a run on a core, 30 a seed for its fine-tuning.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import tyro

from experiments import quickstart
from experiments.arms import config_of, labelled
from experiments.runner import Runs, compare, print_config, refuse_ignored, refuse_split
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import summarize
from lilo_jax.report.tables import MAIN_BUDGETS, interval, markdown, number, speedup_cell
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The command line.  Settings of an algorithm and its optimiser are those of the quickstart."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/sweep")
    algorithms: str = "ppo,rloo"
    """which of the quickstart's algorithms"""
    arms: str = "uniform,uniform@32x2,lilo@32x2,frontier@32x2"
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
    return quickstart.config("grpo")


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
    algorithms, names = _listed(options.algorithms), labelled(_listed(options.arms))
    for name in algorithms:
        if name not in quickstart.SETTINGS:
            raise unknown_name("algorithm", name, quickstart.SETTINGS)
    refuse_split(options.config, options.split)
    if options.seeds < 1 or options.config.num_steps < 1:
        raise UsageError("--seeds and --num-steps must be at least 1")

    def arms(shared: Config) -> dict[str, Config]:
        tuned = {name: configuration.replace(shared, **quickstart.SETTINGS[name]) for name in algorithms}
        return {
            f"{algorithm}_{label}": config_of(name, tuned[algorithm])
            for algorithm in algorithms
            for label, name in names.items()
        }

    refuse_ignored(options.config, config(), arms, sys.argv[1:])
    root = path_of(options.launch.output_dir)

    def report(runs: Runs) -> None:
        _report(root, _by_algorithm(runs, algorithms, list(names)), options.split, next(iter(names)))

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = compare(
        options.config,
        arms(options.config),
        seeds=list(seeds),
        launch=options.launch,
        jobs=options.jobs,
        after_each=report,
    )
    report(runs)
    print((root / "table.md").read_text(encoding="utf-8"))


def _listed(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(f"--arms and --algorithms are different names with commas between them, not {text!r}")
    return names


def _by_algorithm(runs: Runs, algorithms: list[str], labels: list[str]) -> dict[str, Runs]:
    """Algorithm to arm to the runs that are done."""
    found: dict[str, Runs] = {}
    for algorithm in algorithms:
        arms = {label: runs[f"{algorithm}_{label}"] for label in labels}
        done = {arm: {seed: run for seed, run in own.items() if run.is_done()} for arm, own in arms.items()}
        found[algorithm] = {arm: own for arm, own in done.items() if own}
    return found


def _report(root: AnyPath, found: Mapping[str, Runs], split: str, baseline: str) -> None:
    """Writes the table and the numbers it is made of; algorithms without a finished baseline wait."""
    summaries = {name: summarize(arms, split, baseline) for name, arms in found.items() if baseline in arms}
    rows = [_row(name, arm, summary, found[name]) for name, summary in summaries.items() for arm in summary["arms"]]
    write_whole(root / "summary.json", to_json(summaries, indent=1) + "\n")
    write_whole(root / "table.md", markdown(_COLUMNS, rows, text_columns=2) + "\n")


_COLUMNS = (
    *("algorithm", "arm", "seeds", "final", "steps", "tokens", "seconds"),
    *("tokens of a run", "zero variance, trained", "traps, rolled out / pool", "traps, trained"),
)


def _row(algorithm: str, arm: str, summary: Mapping[str, Any], arms: Runs) -> list[str]:
    final, runs = summary["final"][arm], summary["arms"][arm]
    speedups = summary["speedup"].get(arm)
    tokens = [run["generated_tokens"][-1] for run in runs]
    return [
        algorithm,
        f"`{arm}`",
        str(len(runs)),
        f"{final['mean']:.3f}{interval(final, '.3f')}",
        *(speedup_cell(speedups[budget]) if speedups else "1" for budget in MAIN_BUDGETS),
        f"{sum(tokens) / len(tokens) / 1e3:.0f}k",
        number(summary["zero_variance"][arm]["admitted"], ".2f"),
        number(_of_steps(arms[arm], "collected", _planted), ".2f"),
        number(_of_steps(arms[arm], "admitted", lambda run: 1), ".3f"),
    ]


def _of_steps(runs: Mapping[int, RunDirectory], groups: str, unit: Callable[[RunDirectory], float]) -> float | None:
    """Mean over steps and runs of the share of traps among groups, in a unit of each run; None without traps."""
    shares = [
        record[f"curriculum/{groups}_trap_fraction"] / unit(run)
        for run in runs.values()
        for record in run.read("metrics")
        if unit(run) and record.get(f"curriculum/{groups}_trap_fraction") is not None
    ]
    return sum(shares) / len(shares) if shares else None


def _planted(run: RunDirectory) -> float:
    """Share of the training questions of a run that are traps."""
    noise = run.config_values()["noise"]
    return noise["wrong_keys"] + noise["coin_flips"]


if __name__ == "__main__":
    exit_with_message(main)
