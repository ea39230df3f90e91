"""Published test sets with a model of any kind: responses, verdicts, a table."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from lilo_jax.errors import UsageError
from lilo_jax.evaluation.generations import (
    Generations,
    by_difficulty,
    grade_again,
    read_generations,
    respond,
    success_rates,
    summarize,
)
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import ResponseGrader
from lilo_jax.grading.workers import Grade, GradingWorkers
from lilo_jax.pretrained.inference import LoadedModel, generate, load
from lilo_jax.pretrained.sources import PretrainedModel, decoder_config
from lilo_jax.questions import Task
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json, write_records
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers import prompt_ids, turns
from lilo_jax.tokenizers.lengths import Asked, check_lengths
from lilo_jax.types import Completions

RESULTS = "results.json"
ROWS = 256


def evaluate_suites(
    source: PretrainedModel,
    tasks: Mapping[str, Task],
    protocol: Protocol,
    *,
    output: AnyPath,
    about: dict[str, Any],
    chat: bool = False,
    system: str = "",
    dtype: str = "float32",
    max_questions: int = 0,
    min_new_tokens: int = 0,
    rows: int = ROWS,
    workers: int = 0,
) -> dict[str, Any]:
    """Evaluates a model on the `test` split of each task; writes the responses of a suite when it is done.

    Args:
        source: the model.
        tasks: by suite name.
        protocol: how responses are sampled.
        output: directory for OUTPUT/SUITE.jsonl, one line per question, and OUTPUT/results.json.
        about: what the results file says of where they come from.
        chat: prompts are put into the model's chat template, after the worked examples of the task, if it has any.
        system: content of a system's turn before them.
        dtype: of activations.
        max_questions: of each suite, the first ones; 0 takes all.
        min_new_tokens: no end token is drawn before this many tokens.
        rows: completions of one device call.
        workers: processes that grade; see `GradingWorkers`.

    Returns:
        What stands in the results file; see `results`.
    """
    tokenizer, context = source.tokenizer(), decoder_config(source).context_length
    questions = {name: task.splits["test"][: max_questions or None] for name, task in tasks.items()}
    new = protocol.max_new_tokens
    sets = {name: Asked(asked, new, "--max-new-tokens", bounded=False) for name, asked in questions.items()}
    way = {name: turns(chat=chat, system=system, shots=task.shots) for name, task in tasks.items()}
    for name, asked in sets.items():
        check_lengths(tokenizer, {name: asked}, context, chat=way[name])
    encoded = {
        name: [prompt_ids(tokenizer, q.prompt, chat=way[name]) for q in asked] for name, asked in questions.items()
    }
    output.mkdir(parents=True, exist_ok=True)
    loaded = load(source, dtype=dtype, tokenizer=tokenizer, stop=protocol.stop, min_new_tokens=min_new_tokens)
    found: dict[str, list[Generations]] = {}
    with GradingWorkers(count=workers) as grading:
        graders = ResponseGrader(grading, tokenizer, protocol.stop)
        for name, task in tasks.items():
            completions = functools.partial(_shown, name, loaded, encoded[name], rows=rows)
            found[name] = respond(completions, graders, task.grade, questions[name], protocol)
            write_records(output / f"{name}.jsonl", (one.record() for one in found[name]))
    return write_results(output, found, about)


def _shown(
    name: str, loaded: LoadedModel, prompts: Sequence[Sequence[int]], protocol: Protocol, *, rows: int
) -> Iterator[Completions]:
    """Completions of each prompt, with a bar in a terminal."""
    found = generate(loaded, prompts, protocol, rows=rows)
    return iter(tqdm(found, desc=name, total=len(prompts), unit=" questions", disable=None, leave=False))


def regrade(directory: AnyPath, grade: Grade | None, *, output: AnyPath, about: dict[str, Any]) -> dict:
    """The results of stored responses, their verdicts kept or (with `grade`) given anew; nothing is sampled.

    Args:
        directory: a file of responses, or a directory of such files.
        grade: of another grader, or None.
        output, about: as in `evaluate_suites`.
    """
    files: list[AnyPath] = sorted(directory.glob("*.jsonl")) if directory.is_dir() else [directory]
    if not files:
        raise UsageError(f"{directory} holds no responses: pass the --output of an earlier lilo eval")
    found = {file.stem: read_generations(file) for file in files}
    output.mkdir(parents=True, exist_ok=True)
    if grade is not None:
        with GradingWorkers() as grading:
            found = {name: grade_again(grading, grade, generations) for name, generations in found.items()}
        for name, generations in found.items():
            write_records(output / f"{name}.jsonl", (one.record() for one in generations))
    return write_results(output, found, about)


def results(found: Mapping[str, Sequence[Generations]], about: dict[str, Any]) -> dict[str, Any]:
    """What is known of each suite, and the unweighted mean of their accuracies."""
    by_suite = {}
    for name, generations in found.items():
        levels = by_difficulty([one.question for one in generations], success_rates(generations))
        by_suite[name] = summarize(generations) | levels
    accuracies = [one["accuracy"] for one in by_suite.values() if one["accuracy"] is not None]
    return {**about, "suites": by_suite, "mean_accuracy": float(np.mean(accuracies)) if accuracies else None}


def write_results(output: AnyPath, found: Mapping[str, Sequence[Generations]], about: dict[str, Any]) -> dict[str, Any]:
    """Writes the results file and returns what stands in it."""
    found_results = results(found, about)
    write_whole(output / RESULTS, to_json(found_results, indent=1) + "\n")
    return found_results


def table(found: dict[str, Any]) -> str:
    """The results as text: one line per suite."""
    samples = max((one["samples"] for one in found["suites"].values()), default=1)
    k = 1 << (samples.bit_length() - 1)
    head = ["suite", "questions", "samples", "pass@1", "95% bootstrap", "95% Wilson"]
    head += [f"pass@{k}", f"maj@{k}"] if k > 1 else []
    head += ["tokens", "truncated", "no answer", "timeout", "error"]
    rows = [head]
    for name, one in found["suites"].items():
        row = [name, str(one["questions"]), str(one["samples"]), _percent(one["accuracy"])]
        row += [f"{_percent(one['low'])} - {_percent(one['high'])}", " - ".join(map(_percent, one["wilson"]))]
        row += [_percent(one[measure].get(str(k))) for measure in ("pass@k", "maj@k")] if k > 1 else []
        row += [f"{one['tokens_mean']:.1f}", _percent(one["truncated_fraction"])]
        row += [_percent(one[f"{verdict}_fraction"]) for verdict in ("no_answer", "timeout", "error")]
        rows.append(row)
    if len(found["suites"]) > 1:
        rows.append(["mean", "", "", _percent(found["mean_accuracy"])] + [""] * (len(head) - 4))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
