"""Does every algorithm learn, and what does LILO do for each?  All of them on the quickstart task, with a control.

    python -m experiments.algorithms
    python -m experiments.algorithms --algorithms vineppo,ppo --seeds 8 --first-seed 401 --output-dir runs/two

Three arms per algorithm and seed, from the same fine-tuned weights:

    uniform  8 questions a step, 8 rollouts each
    lilo     32 candidates a step, trained on the 8 of highest p(1 - p)
    control  uniform with every advantage set to zero: what KL, critic and chance do by themselves

Claim: each algorithm ends above its start by more than two standard errors over seeds, and no control does; with
VinePPO, whose rollouts from inside the responses cost more than choosing questions, LILO does best in generated tokens
(docs/results/algorithms.md has eight seeds of it).  Cost: about 15 minutes on two CPU cores for three seeds.  Writes
`table.md` and `summary.json`.
"""

import dataclasses
import math
import sys
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro

from experiments import quickstart
from experiments.arms import RULES
from experiments.runner import Runs, chosen, compare, print_config, refuse_ignored
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch
from lilo_jax.errors import UsageError
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import summarize
from lilo_jax.report.tables import markdown, speedup_cell
from lilo_jax.rl.contract import Algorithm
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.types import Array, TrainBatch

ARMS = ("uniform", "lilo", "control")


@dataclasses.dataclass(frozen=True)
class WithoutAdvantages:
    """An algorithm of the quickstart whose advantages are zero, and which therefore asks for no follow-ups."""

    algorithm: str = "rloo"
    """its name"""

    def build(self) -> Algorithm:
        """Its functions, all but one as they are."""
        algorithm: Algorithm = quickstart.SETTINGS[self.algorithm]["algorithm"].build()

        def nothing(batch: TrainBatch) -> tuple[Array, Array]:
            advantages, returns = algorithm.advantages(batch)
            return jnp.zeros_like(advantages), returns

        return algorithm._replace(advantages=nothing, follow_ups=None)


@dataclasses.dataclass(frozen=True)
class AlgorithmsOptions:
    """The command line.  Settings of an algorithm and its optimiser are those of the quickstart."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/algorithms")
    algorithms: str = ",".join(quickstart.SETTINGS)
    """which of them"""
    seeds: int = 3
    """number of seeds"""
    first_seed: int = 301
    """the first of them; the others follow"""
    jobs: int = 0
    """runs at a time; 0 takes one per CPU core"""


def config() -> Config:
    """What all runs have in common."""
    return quickstart.config("grpo")


def arms(shared: Config, name: str) -> dict[str, Config]:
    """The arms of one algorithm."""
    tuned = configuration.replace(shared, **quickstart.SETTINGS[name])
    uniform = RULES["uniform"](tuned)
    control = configuration.replace(uniform, algorithm=WithoutAdvantages(name))
    return {"uniform": uniform, "lilo": RULES["lilo"](tuned), "control": control}


def main() -> None:
    """Runs all arms of all algorithms and writes the table."""
    options = configuration.parse(
        AlgorithmsOptions(config=config()),
        sys.argv[1:],
        prog="python -m experiments.algorithms",
        description=__doc__ or "",
    )
    if print_config(options.config, options.launch):
        return
    names = chosen("algorithm", options.algorithms, quickstart.SETTINGS)
    if options.seeds < 2 or options.config.num_steps < 1:
        raise UsageError("--seeds must be at least 2, and --num-steps at least 1")

    def every(shared: Config) -> dict[str, Config]:
        return {f"{name}_{arm}": c for name in names for arm, c in arms(shared, name).items()}

    refuse_ignored(options.config, config(), every, sys.argv[1:])
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    runs = compare(options.config, every(options.config), seeds=seeds, launch=options.launch, jobs=options.jobs)
    report({name: {arm: runs[f"{name}_{arm}"] for arm in ARMS} for name in names}, path_of(options.launch.output_dir))


def report(runs: dict[str, Runs], root: AnyPath) -> None:
    """Prints the table, and writes it beside the numbers it is made of."""
    summaries = {name: summarize(own, split="test", baseline="uniform") for name, own in runs.items()}
    write_whole(root / "summary.json", to_json(summaries, indent=1) + "\n")
    table = markdown(_COLUMNS, [_row(name, summary) for name, summary in summaries.items()]) + "\n"
    write_whole(root / "table.md", table)
    print(table)
    for arm in ("uniform", "control"):
        gaining = [name for name, summary in summaries.items() if learned(summary, arm)]
        print(f"{arm} gains more than two standard errors: {', '.join(gaining) or 'none'}")


def gains(summary: dict[str, Any], arm: str) -> tuple[float, float]:
    """Mean over seeds of final less first accuracy of an arm, and the mean's standard error."""
    final, start = (summary[name][arm]["by_seed"] for name in ("final", "start"))
    gained = [final[seed] - start[seed] for seed in final]
    return float(np.mean(gained)), float(np.std(gained, ddof=1) / math.sqrt(len(gained)))


def learned(summary: dict[str, Any], arm: str) -> bool:
    """Whether an arm gained more than two standard errors."""
    mean, error = gains(summary, arm)
    return mean > 2 * error


_COLUMNS = (
    *("algorithm", "start", "uniform", "gain", "gain of control"),
    *("LILO", "fewer steps", "fewer tokens", "tokens", "seconds"),
)


def _row(name: str, summary: dict[str, Any]) -> list[str]:
    """A line of the table; tokens and seconds are those of a whole run, uniform / LILO."""
    accuracy = {arm: summary["final"][arm]["mean"] for arm in ("uniform", "lilo")}
    ratios = [summary["speedup"]["lilo"][budget] for budget in ("steps", "generated_tokens")]
    last = {arm: [curve[-1] for curve in _curves(summary, arm, "generated_tokens")] for arm in ("uniform", "lilo")}
    seconds = {arm: [curve[-1] for curve in _curves(summary, arm, "seconds")] for arm in ("uniform", "lilo")}
    return [
        f"`{name}`",
        f"{summary['start']['uniform']['mean']:.3f}",
        f"{accuracy['uniform']:.3f}",
        *("{:+.3f} ({:.3f})".format(*gains(summary, arm)) for arm in ("uniform", "control")),
        f"{accuracy['lilo']:.3f}",
        *map(speedup_cell, ratios),
        f"{np.mean(last['uniform']) / 1e3:.0f}k / {np.mean(last['lilo']) / 1e3:.0f}k",
        f"{np.mean(seconds['uniform']):.0f} / {np.mean(seconds['lilo']):.0f}",
    ]


def _curves(summary: dict[str, Any], arm: str, budget: str) -> list[list[float]]:
    return [record[budget] for record in summary["arms"][arm]]


if __name__ == "__main__":
    # Under its own name: workers and configs find `WithoutAdvantages` by the module it is in.
    from experiments import algorithms

    exit_with_message(algorithms.main)
