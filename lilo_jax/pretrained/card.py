"""The model card of a run: what it was trained from, on and with, what it reached, and what that does not say."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lilo_jax.config import Config, of_run, settings_name
from lilo_jax.pretrained.sources import RunModel, open_model
from lilo_jax.storage.budgets import spent
from lilo_jax.storage.hub import HUB_ID, card_of
from lilo_jax.storage.run_directory import RunDirectory

MOST_ROWS = 12
"""Evaluations in the table of a curve."""


class _Base(NamedTuple):
    """What a run was trained from.

    Attributes:
        text: for a reader.
        repository: on the hub, or "".
        license: as its own card has it, or "".
    """

    text: str
    repository: str = ""
    license: str = ""


def model_card(directory: RunDirectory, name: str, *, online: bool) -> ModelCard:
    """The card of a run, with a header that the hub reads.

    Args:
        directory: of the run.
        name: of the repository, or what the model is called.
        online: whether the hub may be asked for the licence of the base model.
    """
    config = of_run(directory)
    base, last = _base(config, online=online), _last_evaluations(directory)
    task = settings_name("task", config.task)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=f"accuracy on {split} ({record['method']})",
            metric_value=record["accuracy"],
        )
        for split, record in last.items()
    ]
    algorithm, curriculum = (settings_name(kind, getattr(config, kind)) for kind in ("algorithm", "curriculum"))
    header = ModelCardData(
        base_model=base.repository or None,
        license=base.license or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["lilo_jax", "reinforcement-learning", algorithm, curriculum],
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
    )
    parts = [
        f"# {name.rpartition('/')[2]}",
        f"Trained with lilo_jax: {algorithm} on questions of {task} that the curriculum {curriculum} chose.",
        _facts(directory, config, base),
        _accuracies(last),
        _curve(directory, config),
        _use(name),
        _limits(directory, config, last),
    ]
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n", ignore_metadata_errors=False)


def _base(config: Config, *, online: bool) -> _Base:
    """The model at the beginning of the runs that led to this one."""
    path, revision = config.model.path, config.model.revision
    if not path:
        return _Base("random weights")
    local = pathlib.Path(path).expanduser()
    if (local / "config.json").is_file() and isinstance(source := open_model(path), RunModel):
        return _base(source.config, online=online)
    if not local.is_dir() and not HUB_ID.fullmatch(path):
        return _Base(f"a model in a directory that is gone, {local.name}")
    card = card_of(path, revision, online=online)
    given = card.data.license if card else None
    found = given if isinstance(given, str) else ""
    if local.is_dir():
        named = card.data.base_model if card else None
        origin = f", made from {named}" if named else ""
        return _Base(f"a model in a directory, {local.name}{origin}", named if isinstance(named, str) else "", found)
    return _Base(f"[{path}](https://huggingface.co/{path}) {revision}".strip(), path, found)


def _last_evaluations(directory: RunDirectory) -> dict[str, dict[str, Any]]:
    """The last record of each split, the test set first."""
    last = {record["split"]: record for record in directory.read("eval")}
    return dict(sorted(last.items(), key=lambda item: item[0] != "test"))


def _facts(directory: RunDirectory, config: Config, base: _Base) -> str:
    environment, budgets = directory.environment(), {name: values[-1] for name, values in spent(directory).items()}
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    rows = {
        "task": settings_name("task", config.task),
        "base model": base.text,
        "licence of the base model": base.license or "not known",
        "curriculum, algorithm": f"{settings_name('curriculum', config.curriculum)}, "
        f"{settings_name('algorithm', config.algorithm)}",
        "steps": f"{budgets['steps']} of {config.num_steps}, {config.rollout.questions} questions x "
        f"{config.rollout.samples} samples each",
        "tokens generated for training": f"{int(budgets['generated_tokens']):,}",
        "tokens trained on": f"{int(budgets['trained_tokens']):,}",
        "operations": f"{budgets['flops']:.3g}",
        "seed": str(config.seed),
        "command": f"`{shlex.join(_command(environment.get('command', [])))}`",
        "commit of lilo_jax": environment.get("commit") or "not known",
        "versions": packages,
    }
    return "\n".join(["## Training", "", *_table(("", ""), list(rows.items()))])


def _command(arguments: Sequence[str]) -> list[str]:
    """A command line as a person would write it, without the path of the interpreter's file."""
    if not arguments:
        return []
    program = pathlib.Path(arguments[0])
    module = program.parent.name == "experiments" and program.suffix == ".py"
    return [*(["python", "-m", f"experiments.{program.stem}"] if module else [program.name]), *arguments[1:]]


def interval_of(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95% interval of an accuracy: as it was recorded, else by its standard error; None where there is neither."""
    if record.get("low") is not None and record.get("high") is not None:
        return record["low"], record["high"]
    error = record.get("standard_error")
    return None if error is None else (record["accuracy"] - 1.96 * error, record["accuracy"] + 1.96 * error)


def _accuracies(last: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for split, record in last.items():
        interval = interval_of(record)
        shown = f"{max(interval[0], 0):.3f} to {min(interval[1], 1):.3f}" if interval else "-"
        rows.append((split, f"{record['accuracy']:.3f}", shown, str(record["questions"]), record["method"]))
    heads = ("split", "accuracy", "95% interval over questions", "questions", "method")
    return "\n".join(["## Accuracy", "", *_table(heads, rows)])


def _curve(directory: RunDirectory, config: Config) -> str:
    """Accuracy against steps and tokens, at most `MOST_ROWS` evaluations from the first to the last."""
    by_step: dict[int, dict[str, float]] = {}
    for record in directory.read("eval"):
        by_step.setdefault(record["step"], {})[record["split"]] = record["accuracy"]
    splits = list(dict.fromkeys(split for found in by_step.values() for split in found))
    steps = sorted(by_step)
    chosen = (
        [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, MOST_ROWS).round().astype(int))] if steps else []
    )
    tokens = spent(directory)["generated_tokens"]
    rows = [
        (str(step), f"{int(tokens[step]):,}", *(f"{by_step[step].get(split, float('nan')):.3f}" for split in splits))
        for step in chosen
    ]
    return "\n".join(["## Curve", "", *_table(("step", "tokens generated", *splits), rows)])


def _use(name: str) -> str:
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("{name}"), AutoModelForCausalLM.from_pretrained("{name}")
```"""


def _limits(directory: RunDirectory, config: Config, last: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "One run with one seed: another seed may end elsewhere, and the interval does not say how far.",
        "Accuracy is that of the task's own prompts and grader; nothing else was measured, safety among it.",
        "Trained by reward for right final answers: that the steps before them are right was not asked.",
    ]
    if not directory.is_done():
        lines.append(f"The run was not finished: these are the weights of step {directory.newest_step()}.")
    if "test" not in last:
        lines.append("There was no evaluation on a test set.")
    if config.noise != type(config.noise)():
        lines.append("The training questions had flaws that were planted on purpose (`--noise`).")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
