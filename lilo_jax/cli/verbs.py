"""What each verb of `lilo` does: reads what it is given, calls the library, prints or writes.

Modules that only one verb needs are imported in it: `lilo --help` should not load them all.
"""

import dataclasses
import importlib.metadata
import math
import pathlib
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from lilo_jax.bounds import check
from lilo_jax.config import Config
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.protocols import Protocol, protocol
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.storage.classes import class_named
from lilo_jax.storage.json_lines import check_new_directory, check_output, read_records, write_records
from lilo_jax.storage.run_directory import PACKAGES
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.types import Array


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
        from lilo_jax.pretrained.diagnosis import diagnose

        found = diagnose(model, prompt)
        print("\n".join(found.lines))
        if found.errors:
            raise RunError(f"{model} has {len(found.errors)} flaws, listed above")


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
    stop: Sequence[str],
    template: str,
    template_file: pathlib.Path | None,
    chat: bool,
    system: str,
) -> None:
    """Samples completions of every line."""
    from lilo_jax.evaluation.responses import response_text
    from lilo_jax.pretrained import inference
    from lilo_jax.pretrained.sources import checked_model, decoder_config
    from lilo_jax.tasks.prompts import prompt_style

    check_output(output)
    protocol = Protocol(samples, temperature, top_p, max_new_tokens, stop=_stops(stop), seed=seed)
    check(protocol)
    style = prompt_style(_template(template, template_file) or "none")
    _check_system(system, chat=chat)
    source = checked_model(model)
    tokenizer, config = source.tokenizer(), decoder_config(source)

    def ids(number: int, record: dict[str, Any]) -> list[int]:
        if "tokens" in record:
            return _tokens(input, number, record, config.vocab_size)
        return _prompt(tokenizer, f"{input}, line {number}", record, style, chat=chat, system=system)

    if config.context_length and max_new_tokens >= config.context_length:
        raise UsageError(f"--max-new-tokens must be below the {config.context_length} tokens of the model's context")
    prompts = _rows(input, ids, most=config.context_length and config.context_length - max_new_tokens)
    loaded = inference.load(source, dtype=dtype, tokenizer=tokenizer, stop=protocol.stop)

    def records() -> Iterator[dict[str, Any]]:
        for found in inference.generate(loaded, prompts, protocol):
            tokens = _cut(found.tokens, found.lengths)
            texts = [
                response_text(tokenizer, row, ended=bool(end), stop=protocol.stop)
                for row, end in zip(tokens, found.ended, strict=True)
            ]
            logprobs = _cut(found.logprobs, found.lengths)
            yield {"tokens": tokens, "texts": texts, "logprobs": logprobs, "ended": found.ended.tolist()}

    write_records(output, records())


def _prompt(
    tokenizer: Tokenizer, place: str, record: dict[str, Any], style: Callable[[str], str], *, chat: bool, system: str
) -> list[int]:
    """Ids of a line's prompt, or of the last of its turns after those before it."""
    from lilo_jax.tokenizers import prompt_ids, turns

    before, messages = turns(chat=chat, system=system), record.get("messages")
    if isinstance(record.get("prompt"), str):
        return prompt_ids(tokenizer, style(record["prompt"]), chat=before)
    if not (
        isinstance(messages, list) and messages and all(map(_is_turn, messages)) and messages[-1]["role"] == "user"
    ):
        raise UsageError(
            f'{place}: expected {{"prompt": text}}, {{"tokens": [ids]}} or {{"messages": [{{"role", "content"}}]}} '
            f"whose last is a user's"
        )
    if not chat:
        raise UsageError(f"{place}: messages are turns of a chat template: add --chat")
    first = [] if before is True or before is False else list(before)
    return prompt_ids(tokenizer, style(messages[-1]["content"]), chat=[*first, *messages[:-1]] or True)


def _is_turn(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _template(template: str, file: pathlib.Path | None) -> str:
    from lilo_jax.tasks.prompts import template_of

    if file is not None and template:
        raise UsageError("--template and --template-file say the same twice: leave one out")
    return template if file is None else template_of(file)


def _stops(stop: Sequence[str]) -> tuple[str, ...]:
    if "" in stop:
        raise UsageError("--stop must not be empty: leave it out, or give the text to stop at")
    return tuple(dict.fromkeys(stop))


def _check_system(system: str, *, chat: bool) -> None:
    if system and not chat:
        raise UsageError("--system is a turn of a chat template: add --chat, or leave it out")


def logprobs(model: str, input: pathlib.Path, output: pathlib.Path, dtype: str) -> None:
    """Scores the tokens of every line."""
    from lilo_jax.pretrained import inference
    from lilo_jax.pretrained.sources import checked_model, decoder_config

    check_output(output)
    source = checked_model(model)
    config = decoder_config(source)
    rows = _rows(input, lambda n, record: _tokens(input, n, record, config.vocab_size), most=config.context_length)
    found = inference.logprobs(inference.load(source, dtype=dtype), rows)
    write_records(output, ({"logprobs": row.tolist()} for row in found))


def export(run: str, output: pathlib.Path, dtype: str) -> None:
    """Writes a run's models."""
    from lilo_jax.pretrained.export import export as export_run

    for directory in export_run(run, output, dtype=dtype):
        print(directory)


def import_(format: str, file: str, output: pathlib.Path) -> None:
    """Writes a model of another format as a Hugging Face directory."""
    from lilo_jax.pretrained.gguf_file import import_gguf

    assert format == "gguf"
    print(f"{output}: {import_gguf(file, output).family}")


def plan(experiment: str, options: Sequence[str]) -> None:
    """Prints what an experiment needs on a slice."""
    from lilo_jax.cli.plan import plan as plan_for

    plan_for(experiment, options)


def digest(run: pathlib.Path) -> None:
    """Prints a run's fingerprints."""
    from lilo_jax.storage.digest import digest_lines

    print("\n".join(digest_lines(run)))


def report(runs: Sequence[pathlib.Path], output: pathlib.Path, against: str) -> None:
    """Writes a report and prints where it is."""
    from lilo_jax.report.html import report_runs

    print(report_runs(runs, output, [name.strip() for name in against.split(",")]))


def compare(arms: Sequence[str], factor: str) -> None:
    """Prints arms against the first of them."""
    from lilo_jax.report.paired import compare as paired

    print(paired(arms, factor))


def grade(input: pathlib.Path, output: pathlib.Path, grader: str, explain: bool, workers: int, deadline: float) -> None:
    """Grades the response of every line against its gold answer, and prints how many got which verdict."""
    from lilo_jax.grading import grader as named
    from lilo_jax.grading.workers import GradingWorkers, judge_all

    check_output(output)
    if not 0 < deadline < float("inf"):
        raise UsageError("--deadline must be a number of seconds above 0")
    grade, asked = named(grader), [_answered(input, number, record) for number, record in _records(input)]
    if not asked:
        raise UsageError(f'{input} is empty: it needs lines of {{"gold", "response"}}')
    with GradingWorkers(count=workers, deadline=deadline) as grading:
        judgements = judge_all(grading, grade, asked)

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
    counts = {verdict.value: sum(found.verdict is verdict for found in judgements) for verdict in Verdict}
    print(f"{len(judgements)} answers: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))


def _answered(path: pathlib.Path, number: int, record: dict[str, Any]) -> tuple[Question, str]:
    gold, response = record.get("gold"), record.get("response")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float) or not isinstance(response, str):
        raise UsageError(f'{path}, line {number}: expected {{"gold": text or number, "response": text}}')
    if not _is_answer(gold):
        raise UsageError(
            f"{path}, line {number}: no response can match the gold {gold!r}; correct it or leave the line out"
        )
    text, solution = (record.get(name) or "" for name in ("question", "solution"))
    return Question(prompt="", answer=str(gold), text=str(text), solution=str(solution)), response


def _is_answer(gold: str | float) -> bool:
    from lilo_jax.grading.rules import can_match

    return can_match(gold) if isinstance(gold, str) else math.isfinite(gold)


def data(action: str, source: str, question: str, answer: str, template: str, model: str | None) -> None:
    """Looks at a task's data, or at a file."""
    from lilo_jax.pretrained.sources import open_model
    from lilo_jax.tasks import TASKS
    from lilo_jax.tasks.check import lines, look
    from lilo_jax.tasks.suites import with_settings
    from lilo_jax.tokenizers import prompt_ids

    assert action == "check"
    name, _, path = source.partition("=")
    if pathlib.Path(source).exists() and name not in TASKS:
        name, path = "dataset", source
    spec = class_named("task (or file)", name, TASKS)()
    if (question or answer) and not hasattr(spec, "question"):
        raise UsageError(f"the columns of {name} are known: leave out --question and --answer")
    seen = look(with_settings(spec, path=path, question=question, answer=answer, template=template))
    count = None
    if model is not None:
        tokenizer = open_model(model).tokenizer()
        count = lambda prompt: len(prompt_ids(tokenizer, prompt))  # noqa: E731
    print("\n".join(lines(source, seen, count)))
    if seen.findings:
        raise RunError(f"{source} has {len(seen.findings)} flaws, listed above")


def evaluate(
    model: str | None,
    suite: str,
    protocol: str,
    output: pathlib.Path,
    generations: pathlib.Path | None,
    grader: str,
    stop: Sequence[str],
    shots: int,
    template: str,
    template_file: pathlib.Path | None,
    chat: bool,
    system: str,
    dtype: str,
    max_questions: int,
    workers: int,
    **changes: Any,
) -> None:
    """Evaluates a model on suites, or stored responses again; prints a table."""
    from lilo_jax.grading import grader as grader_of
    from lilo_jax.pretrained import suites as evaluating
    from lilo_jax.pretrained.sources import RunModel, checked_model

    if (model is None) == (generations is None):
        raise UsageError("give either a MODEL, or --generations of an earlier lilo eval")
    check_new_directory(output)
    changes = {name: value for name, value in changes.items() if value is not None}
    again = grader_of(grader) if grader else None
    if generations is not None:
        if changes or suite or protocol or template or template_file or stop or shots or system or max_questions:
            raise UsageError("--generations samples nothing: of the other options it takes --grader only")
        about = {"generations": str(generations), "grader": grader or "as stored"}
        print(evaluating.table(evaluating.regrade(generations, again, output=output, about=about)))
        return
    assert model is not None
    source = checked_model(model)
    run = source.config if isinstance(source, RunModel) else None
    template, chat = _template(template, template_file), chat or bool(run and run.tokenizer.chat)
    _check_system(system, chat=chat)
    named = _protocol(protocol or "greedy", grader=grader, template=template, **changes)
    how = dataclasses.replace(named, stop=_stops([*(run.rollout.stop if run else ()), *named.stop, *stop]))
    tasks = _suites(run, suite or ("task" if run else ""), how, shots=shots, chat=chat)
    found = evaluating.evaluate_suites(
        source,
        tasks,
        how,
        output=output,
        about={"model": model, "protocol": protocol or "greedy", "shots": shots, **dataclasses.asdict(how)},
        chat=chat,
        system=system or (run.tokenizer.system if run else ""),
        dtype=dtype,
        max_questions=max_questions,
        min_new_tokens=min(run.rollout.min_new_tokens, how.max_new_tokens) if run else 0,
        workers=workers,
    )
    print(evaluating.table(found))
    print(f"\nresponses and results: {output}")


def _protocol(name: str, **changes: Any) -> Protocol:
    """The protocol of a name, changed where something was given."""
    given = {field: value for field, value in changes.items() if value not in (None, "")}
    found = dataclasses.replace(protocol(name), **given)
    check(found)
    return found


def _suites(run: Config | None, names: str, protocol: Protocol, *, shots: int, chat: bool) -> dict[str, Task]:
    """The tasks of a comma-separated list, in its order; `task` is the own one of a run, which the others follow."""
    from lilo_jax.tasks.shots import with_shots
    from lilo_jax.tasks.suites import inherited, only_test, suites, with_settings
    from lilo_jax.training.lengths import without_longer

    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise UsageError("--suite needs one or more names, such as gsm8k,math500=data/math500")
    if "task" in given and run is None:
        raise UsageError("--suite task is the task of a run, and the model is none: name a suite")
    if given.count("task") > 1:
        raise UsageError("suite 'task' is given twice")
    settings = inherited(run.task if run else None, template=protocol.template, grader=protocol.grader)
    found = suites([name for name in given if name != "task"], shots=shots, **settings)
    if run is not None and "task" in given:
        own = with_settings(run.task, template=protocol.template, grader=protocol.grader, shots=shots)
        found["task"] = only_test(without_longer(run, with_shots(own.build(run.seed), chat=chat)))
    first = run.task.build(run.seed).shots if run and not shots and getattr(run.task, "shots", None) else ()
    for name in found.keys() - {"task"}:
        found[name] = with_shots(found[name]._replace(shots=found[name].shots or first), chat=chat)
    return {name: found[name] for name in (each.partition("=")[0] for each in given)}


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


def _cut(table: Array, lengths: Iterable[int]) -> list[list[Any]]:
    return [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
