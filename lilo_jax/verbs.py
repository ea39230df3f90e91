"""What each verb of `lilo` does: reads what it is given, calls the library, prints or writes.

Modules that only one verb needs are imported in it: `lilo --help` should not load them all.
"""

import importlib.metadata
import pathlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lilo_jax.config import RolloutConfig
from lilo_jax.errors import UsageError
from lilo_jax.json_lines import check_output, read_records, write_records
from lilo_jax.storage.run_directory import PACKAGES

SLOTS = 128
"""Completions that `generate` decodes at a time; more would take memory for little speed."""


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
    rollout = RolloutConfig(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, slots=SLOTS)
    loaded = inference.load(
        source, dtype=dtype, rollout=rollout, known_ids=tokenizer.vocab_size, end_ids=tokenizer.end_ids
    )

    def records() -> Iterator[dict[str, Any]]:
        for found in inference.generate(loaded, prompts, rollout=rollout, samples=samples, seed=seed):
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


def _rows(path: pathlib.Path, ids: Any, *, most: int) -> list[list[int]]:
    """Token ids of every line, none of them longer than `most` (0: any length)."""
    if not path.is_file():
        raise UsageError(f"no input file at {path}: pass --input FILE with one JSON object a line")
    rows = []
    for number, record in read_records(path):
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
