"""What each verb of `lilo` does: reads what it is given, calls the library, prints or writes.

Modules that only one verb needs are imported in it: `lilo --help` should not load them all.
"""

import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from lilo_jax.bounds import check
from lilo_jax.cli.inputs import check_system, records_of, rows_of, stops, task_of, template_text, tokens_of
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.questions import Question, Verdict
from lilo_jax.storage.json_lines import check_output, write_records
from lilo_jax.storage.paths import AnyPath
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
    input: AnyPath,
    output: AnyPath,
    dtype: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    samples: int,
    seed: int,
    stop: Sequence[str],
    template: str,
    template_file: AnyPath | None,
    chat: bool,
    system: str,
) -> None:
    """Samples completions of every line."""
    from lilo_jax.evaluation.responses import response_text
    from lilo_jax.pretrained import inference
    from lilo_jax.pretrained.sources import checked_model, decoder_config
    from lilo_jax.tasks.prompts import prompt_style

    check_output(output)
    protocol = Protocol(samples, temperature, top_p, max_new_tokens, stop=stops(stop), seed=seed)
    check(protocol)
    style = prompt_style(template_text(template, template_file) or "none")
    check_system(system, chat=chat)
    source = checked_model(model)
    tokenizer, config = source.tokenizer(), decoder_config(source)

    def ids(number: int, record: dict[str, Any]) -> list[int]:
        if "tokens" in record:
            return tokens_of(input, number, record, config.vocab_size)
        return _prompt(tokenizer, f"{input}, line {number}", record, style, chat=chat, system=system)

    if config.context_length and max_new_tokens >= config.context_length:
        raise UsageError(f"--max-new-tokens must be below the {config.context_length} tokens of the model's context")
    prompts = rows_of(input, ids, most=config.context_length and config.context_length - max_new_tokens)
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


def logprobs(model: str, input: AnyPath, output: AnyPath, dtype: str) -> None:
    """Scores the tokens of every line."""
    from lilo_jax.pretrained import inference
    from lilo_jax.pretrained.sources import checked_model, decoder_config

    check_output(output)
    source = checked_model(model)
    config = decoder_config(source)
    rows = rows_of(input, lambda n, record: tokens_of(input, n, record, config.vocab_size), most=config.context_length)
    found = inference.logprobs(inference.load(source, dtype=dtype), rows)
    write_records(output, ({"logprobs": row.tolist()} for row in found))


def export(run: str, output: AnyPath, dtype: str) -> None:
    """Writes a run's models."""
    from lilo_jax.pretrained.export import export as export_run

    for directory in export_run(run, output, dtype=dtype):
        print(directory)


def import_(format: str, file: str, output: AnyPath) -> None:
    """Writes a model of another format as a Hugging Face directory."""
    from lilo_jax.pretrained.gguf_file import import_gguf

    assert format == "gguf"
    print(f"{output}: {import_gguf(file, output).family}")


def plan(experiment: str, options: Sequence[str]) -> None:
    """Prints what an experiment needs on a slice."""
    from lilo_jax.cli.plan import plan as plan_for

    plan_for(experiment, options)


def digest(run: AnyPath) -> None:
    """Prints a run's fingerprints."""
    from lilo_jax.storage.digest import digest_lines

    print("\n".join(digest_lines(run)))


def report(runs: Sequence[AnyPath], output: AnyPath, against: str, data: AnyPath | None = None) -> None:
    """Writes a report and prints where it is."""
    from lilo_jax.report.html import report_runs

    print(report_runs(runs, output, [name.strip() for name in against.split(",")], data))


def watch(run: AnyPath, once: bool) -> None:
    """Shows a run while it goes on."""
    from lilo_jax.report.watch import watch as watch_run

    watch_run(run, once=once)


def push(run: str, to: str, offline: AnyPath | None, dtype: str, private: bool) -> None:
    """Uploads a run's model with its card, or writes what would be uploaded."""
    from lilo_jax.pretrained.push import push as push_run

    print(push_run(run, to, offline=offline, dtype=dtype, private=private))


def compare(arms: Sequence[str], factor: str) -> None:
    """Prints arms against the first of them."""
    from lilo_jax.report.paired import compare as paired

    print(paired(arms, factor))


def grade(input: AnyPath, output: AnyPath, grader: str, explain: bool, workers: int, deadline: float) -> None:
    """Grades the response of every line against its gold answer, and prints how many got which verdict."""
    from lilo_jax.grading import grader as named
    from lilo_jax.grading.workers import GradingWorkers, judge_all

    check_output(output)
    if not 0 < deadline < float("inf"):
        raise UsageError("--deadline must be a number of seconds above 0")
    grade, asked = named(grader), [_answered(input, number, record) for number, record in records_of(input)]
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


def _answered(path: AnyPath, number: int, record: dict[str, Any]) -> tuple[Question, str]:
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
    from lilo_jax.tasks.check import lines, look
    from lilo_jax.tokenizers import prompt_ids

    assert action == "check"
    spec = task_of(source, question=question, answer=answer, template=template)
    if (question or answer) and not hasattr(spec, "question"):
        raise UsageError(f"the columns of {source} are known: leave out --question and --answer")
    seen = look(spec)
    count = None
    if model is not None:
        tokenizer = open_model(model).tokenizer()
        count = lambda prompt: len(prompt_ids(tokenizer, prompt))  # noqa: E731
    print("\n".join(lines(source, seen, count)))
    if seen.findings:
        raise RunError(f"{source} has {len(seen.findings)} flaws, listed above")


def _cut(table: Array, lengths: Iterable[int]) -> list[list[Any]]:
    return [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
