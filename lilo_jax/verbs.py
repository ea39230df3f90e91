"""What each verb of `lilo` does: reads what it is given, calls the library, prints or writes.

Modules that only one verb needs are imported in it: `lilo --help` should not load them all.
"""

import dataclasses
import importlib.metadata
import pathlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lilo_jax.errors import RunError, UsageError, unknown_name
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.json_lines import check_output, read_records, write_records
from lilo_jax.storage.run_directory import PACKAGES
from lilo_jax.types import Question, Task


def doctor(model: str | None, prompt: str) -> None:
    """Prints versions, devices and memory, and what is worth knowing of a model."""
    print(f"python {platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        print(f"{name} {importlib.metadata.version(name)}")
    for device in jax.devices():
        memory = device.memory_stats() or {}
        limit = memory.get("bytes_limit")
        size = f"{limit / 2**30:.1f} GiB" if limit else "memory not reported"
        print(f"device {device.id}: {device.device_kind} ({device.platform}), {size}")
    if model is not None:
        from lilo_jax.diagnosis import model_lines

        print("\n".join(model_lines(model, prompt)))


def generate(
    model: str,
    input: pathlib.Path,
    output: pathlib.Path,
    dtype: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    samples: int,
    seed: int,
    chat: bool,
) -> None:
    """Samples completions of every line."""
    from lilo_jax import inference
    from lilo_jax.pretrained import decoder_config, open_model
    from lilo_jax.tokenizers import prompt_ids

    check_output(output)
    if temperature < 0 or not 0 < top_p <= 1:
        raise UsageError("--temperature must be at least 0 and --top-p in (0, 1]")
    source = open_model(model)
    tokenizer, config = source.tokenizer(), decoder_config(source)

    def ids(number: int, record: dict[str, Any]) -> list[int]:
        if "tokens" in record:
            return _tokens(input, number, record, config.vocab_size)
        if not isinstance(record.get("prompt"), str):
            raise UsageError(f'{input}, line {number}: expected {{"prompt": text}} or {{"tokens": [ids]}}')
        return prompt_ids(tokenizer, record["prompt"], chat=chat)

    if config.context_length and max_new_tokens >= config.context_length:
        raise UsageError(f"--max-new-tokens must be below the {config.context_length} tokens of the model's context")
    prompts = _rows(input, ids, most=config.context_length and config.context_length - max_new_tokens)
    protocol = Protocol(samples, temperature, top_p, max_new_tokens, seed=seed)
    loaded = inference.load(source, dtype=dtype, tokenizer=tokenizer)

    def records() -> Iterator[dict[str, Any]]:
        for found in inference.generate(loaded, prompts, protocol):
            tokens = _cut(found.tokens, found.lengths)
            # The end token belongs to the tokens, but not to the text.
            texts = [tokenizer.decode(row[:-1] if end else row) for row, end in zip(tokens, found.ended, strict=True)]
            logprobs = _cut(found.logprobs, found.lengths)
            yield {"tokens": tokens, "texts": texts, "logprobs": logprobs, "ended": found.ended.tolist()}

    write_records(output, records())


def logprobs(model: str, input: pathlib.Path, output: pathlib.Path, dtype: str) -> None:
    """Scores the tokens of every line."""
    from lilo_jax import inference
    from lilo_jax.pretrained import decoder_config, open_model

    check_output(output)
    source = open_model(model)
    config = decoder_config(source)
    rows = _rows(input, lambda n, record: _tokens(input, n, record, config.vocab_size), most=config.context_length)
    found = inference.logprobs(inference.load(source, dtype=dtype), rows)
    write_records(output, ({"logprobs": row.tolist()} for row in found))


def export(run: str, output: pathlib.Path, dtype: str) -> None:
    """Writes a run's models."""
    from lilo_jax.export import export as export_run

    for directory in export_run(run, output, dtype=dtype):
        print(directory)


def digest(run: pathlib.Path) -> None:
    """Prints a run's fingerprints."""
    from lilo_jax.storage.digest import digest_lines

    print("\n".join(digest_lines(run)))


def report(runs: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Writes a report and prints where it is."""
    from lilo_jax.report.html import report_runs

    print(report_runs(runs, output))


def grade(input: pathlib.Path, output: pathlib.Path, grader: str, explain: bool) -> None:
    """Grades the response of every line against its gold answer."""
    from lilo_jax.grading import grader as named
    from lilo_jax.grading.pool import GradingPool, judge_all

    check_output(output)
    grade, asked = named(grader), []
    for number, record in _records(input):
        gold, response = record.get("gold"), record.get("response")
        if isinstance(gold, bool) or not isinstance(gold, str | int | float) or not isinstance(response, str):
            raise UsageError(f'{input}, line {number}: expected {{"gold": text or number, "response": text}}')
        asked.append((Question(prompt="", answer=str(gold), text=str(record.get("question", ""))), response))
    with GradingPool() as pool:
        judgements = judge_all(pool, grade, asked)

    def records() -> Iterator[dict[str, Any]]:
        for found in judgements:
            record = found._asdict() | {"verdict": found.verdict.value}
            reason = record.pop("reason")
            yield record | ({"explanation": reason} if explain else {})

    write_records(output, records())
    if explain:
        for i, ((question, _), found) in enumerate(zip(asked, judgements, strict=True), start=1):
            rule = f"rule {found.rule!r} found {found.extracted!r}; " if found.rule else ""
            print(f"{i}. {found.verdict.value}: gold {question.answer!r}; {rule}{found.reason}")


def data(action: str, source: str, question: str, answer: str, template: str) -> None:
    """Looks at a task's data, or at a file."""
    from lilo_jax.tasks import TASKS
    from lilo_jax.tasks.check import lines, look
    from lilo_jax.tasks.suites import configured

    assert action == "check"
    name, _, path = source.partition("=")
    if name in TASKS:
        spec = configured(TASKS[name], path=path, template=template)
    elif pathlib.Path(source).exists():
        columns = {"question": question or "question", "answer": answer or "answer"}
        spec = configured(TASKS["dataset"], path=source, template=template, **columns)
    else:
        raise unknown_name("task (or file)", source, TASKS)
    seen = look(spec)
    print("\n".join(lines(source, seen)))
    if seen.findings:
        raise RunError(f"{source} has {len(seen.findings)} flaws, listed above")


def evaluate(
    model: str | None,
    suite: str,
    protocol: str,
    output: pathlib.Path,
    generations: pathlib.Path | None,
    grader: str,
    template: str,
    chat: bool,
    dtype: str,
    max_questions: int,
    **changes: Any,
) -> None:
    """Evaluates a model on suites, or stored responses again; prints a table."""
    from lilo_jax.evaluation import suites as evaluating
    from lilo_jax.evaluation.protocols import protocol as named
    from lilo_jax.grading import grader as grader_of
    from lilo_jax.pretrained import open_model

    if (model is None) == (generations is None):
        raise UsageError("give either a MODEL, or --generations of an earlier lilo eval")
    _check_directory(output)
    changes = {name: value for name, value in changes.items() if value is not None}
    how = dataclasses.replace(named(protocol), **changes)
    if how.temperature < 0 or not 0 < how.top_p <= 1:
        raise UsageError("--temperature must be at least 0 and --top-p in (0, 1]")
    about = {"protocol": protocol, **dataclasses.asdict(how)}
    if generations is not None:
        again = grader_of(grader) if grader else None
        about = {"generations": str(generations), "grader": grader or "as stored"}
        print(evaluating.table(evaluating.regrade(generations, again, output=output, about=about)))
        return
    assert model is not None
    source = open_model(model)
    how = dataclasses.replace(how, grader=grader or how.grader, template=template or how.template)
    tasks = _suites(source, suite, how)
    about = {"model": model, "protocol": protocol, **dataclasses.asdict(how)}
    found = evaluating.evaluate_suites(
        source, tasks, how, output=output, about=about, chat=chat, dtype=dtype, max_questions=max_questions
    )
    print(evaluating.table(found))
    print(f"\nresponses and results: {output}")


def _suites(source: Any, names: str, protocol: Protocol) -> dict[str, Task]:
    """The tasks of a comma-separated list; `task` is the own one of a run."""
    from lilo_jax.pretrained import RunModel
    from lilo_jax.tasks.suites import suites, test_set

    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise UsageError("--suite needs one or more names, such as gsm8k,math500=data/math500")
    found = suites([n for n in given if n != "task"], template=protocol.template, grader=protocol.grader)
    if "task" in given:
        if not isinstance(source, RunModel):
            raise UsageError("--suite task is the task of a run, and the model is none: name a suite")
        config = source.config
        found["task"] = test_set(config.task.build(config.seed))
    return found


def _check_directory(path: pathlib.Path) -> None:
    """Raises `UsageError` if results cannot be written there without touching other files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not empty: pass another --output")


def _records(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise UsageError(f"no input file at {path}: pass --input FILE with one JSON object a line")
    return read_records(path)


def _rows(path: pathlib.Path, ids: Any, *, most: int) -> list[list[int]]:
    """Token ids of every line, none of them longer than `most` (0: any length)."""
    rows = []
    for number, record in _records(path):
        rows.append(ids(number, record))
        if not rows[-1]:
            raise UsageError(f"{path}, line {number}: no tokens; a line needs at least one")
        if most and len(rows[-1]) > most:
            raise UsageError(f"{path}, line {number}: {len(rows[-1])} tokens, but the model has room for {most}")
    return rows


def _tokens(path: pathlib.Path, number: int, record: dict[str, Any], vocab_size: int) -> list[int]:
    tokens = record.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(t, int) and not isinstance(t, bool) for t in tokens):
        raise UsageError(f'{path}, line {number}: expected {{"tokens": [whole numbers]}}')
    if any(not 0 <= t < vocab_size for t in tokens):
        raise UsageError(f"{path}, line {number}: token ids must be from 0 to {vocab_size - 1}, the model's vocabulary")
    return tokens


def _cut(table: np.ndarray, lengths: Iterable[int]) -> list[list[Any]]:
    return [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
