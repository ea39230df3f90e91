"""The held-out sets of a run, evaluated during training."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from lilo_jax.assembly import Assembly, HeldOut
from lilo_jax.collection import sample
from lilo_jax.encoding import encode_pairs
from lilo_jax.errors import RunError
from lilo_jax.evaluation.generations import Generations, by_difficulty, respond, success_rates, summarize
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.inference import completions_of
from lilo_jax.keys import stream_key
from lilo_jax.mesh import put_rows
from lilo_jax.storage.ledger import Ledger
from lilo_jax.types import Completions, Prompts, PyTree, Requests, Sequences


class Evaluation(NamedTuple):
    """What was found on one set.

    Attributes:
        record: `step`, `split`, `accuracy` (mean success probability of a sampled answer), `standard_error` (over
            questions), `questions`, `method` ("exact" or "sampled"), where the task has levels `by_difficulty`, and
            if sampled all of `lilo_jax.evaluation.generations.summarize`.
        generations: the responses, if sampled.
    """

    record: dict[str, Any]
    generations: list[Generations]


def evaluate(assembly: Assembly, params: PyTree, step: int, ledger: Ledger) -> list[Evaluation]:
    """Accuracy on every set that the config names."""
    return [_evaluate(assembly, params, step, ledger, name, held) for name, held in assembly.held_out.items()]


def _evaluate(assembly: Assembly, params: PyTree, step: int, ledger: Ledger, name: str, held: HeldOut) -> Evaluation:
    # A tokenizer with several ways to write a text has several right token sequences.
    if held.unique_answers and assembly.tokenizer.unique_segmentation:
        rates = exact_rates(assembly, params, held, ledger)
        found = {
            "accuracy": float(rates.mean()),
            "standard_error": float(rates.std(ddof=1) / np.sqrt(len(rates))) if len(rates) > 1 else None,
            "questions": len(rates),
        }
        method, generations = "exact", []
    else:
        generations = sampled(assembly, params, held, step, ledger)
        rates, method = success_rates(generations), "sampled"
        found = summarize(generations)
        if found["accuracy"] is None:
            raise RunError(f"the grader failed on every answer of {name!r}: try it alone with lilo grade")
    questions = held.encoded.questions
    return Evaluation(
        {"step": step, "split": name, **found, "method": method, **by_difficulty(questions, rates)}, generations
    )


def exact_rates(assembly: Assembly, params: PyTree, held: HeldOut, ledger: Ledger) -> np.ndarray:
    """Success rate at temperature 1 of questions with one right token sequence: that sequence's probability.

    One teacher-forced pass per question, no sampling and so no sampling noise.  float64 [N].
    """
    pairs = [(q.prompt, q.answer) for q in held.encoded.questions]
    sequences = encode_pairs(assembly.tokenizer, pairs, chat=assembly.config.tokenizer.chat)
    slots = int(sequences.completion_lengths.max())
    rates = []
    for start in range(0, len(pairs), assembly.config.evaluation.rows):
        part = _padded_rows(sequences, start, assembly.config.evaluation.rows)
        placed = put_rows(assembly.mesh, part)
        scores = assembly.programs.score(params, placed, completion_slots=slots, temperature=1.0)
        rates.append(np.exp(np.asarray(scores.logprobs, np.float64).sum(axis=1)))
    ledger.add("evaluation", "scored", int(sequences.prompt_lengths.sum() + sequences.completion_lengths.sum()))
    return np.concatenate(rates)[: len(pairs)]


def sampled(assembly: Assembly, params: PyTree, held: HeldOut, step: int, ledger: Ledger) -> list[Generations]:
    """Responses to the questions of a set, by the config's protocol."""
    config, encoded = assembly.config, held.encoded
    prompts = [row[:length].tolist() for row, length in zip(encoded.tokens, encoded.lengths, strict=True)]
    key = stream_key(config.seed, "evaluate", step)

    def draw(prompts: Prompts, requests: Requests, protocol: Protocol) -> Completions:
        return jax.device_get(sample(assembly, params, prompts, requests, key, protocol=protocol))

    protocol = config.protocol
    generate = functools.partial(completions_of, draw, prompts, rows=config.evaluation.rows)
    generations = respond(generate, assembly.evaluation_graders, held.grade, encoded.questions, protocol)
    ledger.add("evaluation", "prefilled", encoded.lengths.sum())
    ledger.add("evaluation", "generated", sum(r.tokens for one in generations for r in one.responses))
    return generations


def _padded_rows(sequences: Sequences, start: int, rows: int) -> Sequences:
    """Rows start..start+rows, the last part filled up by repeating the last row."""
    index = np.minimum(np.arange(start, start + rows), len(sequences.tokens) - 1)
    return jax.tree.map(lambda x: x[index], sequences)
