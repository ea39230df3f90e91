"""The held-out sets of a run, evaluated during training."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lilo_jax.device.mesh import put_rows
from lilo_jax.errors import RunError
from lilo_jax.evaluation.completions import completions_of
from lilo_jax.evaluation.generations import Generations, by_difficulty, respond, success_rates, summarize
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import ResponseGrader
from lilo_jax.evaluation.sampler import Sampler, sample
from lilo_jax.grading.workers import Grade
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tokenizers.encoding import EncodedQuestions
from lilo_jax.types import Completions, Prompts, PyTree, Requests, Sequences, TokenScores


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A set to evaluate on.

    Attributes:
        encoded: its questions.
        grade: of its task.
        answers: each question with its one right token sequence; None if there are several, and accuracy is sampled.
    """

    encoded: EncodedQuestions
    grade: Grade
    answers: Sequences | None


class Evaluator(NamedTuple):
    """What evaluates.

    Attributes:
        sampler: set up for `protocol`.
        score: of `Programs`.
        graders: of the sampled responses.
        protocol: how they are sampled.
        rows: sequences of one device call.
    """

    sampler: Sampler
    score: Callable[..., TokenScores]
    graders: ResponseGrader
    protocol: Protocol
    rows: int


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


def evaluate(
    evaluator: Evaluator, sets: Mapping[str, HeldOut], params: PyTree, key: jax.Array, step: int, ledger: Ledger
) -> list[Evaluation]:
    """Accuracy on every set.

    Args:
        evaluator: what samples and grades.
        sets: by name.
        params: policy weights.
        key: of the draws, the same for every set.
        step: that is evaluated.
        ledger: books the tokens.
    """
    return [_evaluate(evaluator, held, params, key, step, ledger, name) for name, held in sets.items()]


def _evaluate(
    evaluator: Evaluator, held: HeldOut, params: PyTree, key: jax.Array, step: int, ledger: Ledger, name: str
) -> Evaluation:
    if held.answers is not None:
        rates = exact_rates(evaluator, params, held.answers, ledger)
        found = {
            "accuracy": float(rates.mean()),
            "standard_error": float(rates.std(ddof=1) / np.sqrt(len(rates))) if len(rates) > 1 else None,
            "questions": len(rates),
        }
        method, generations = "exact", []
    else:
        generations = sampled(evaluator, held, params, key, ledger)
        rates, method = success_rates(generations), "sampled"
        found = summarize(generations)
        if found["accuracy"] is None:
            raise RunError(f"the grader failed on every answer of {name!r}: try it alone with lilo grade")
    questions = held.encoded.questions
    return Evaluation(
        {"step": step, "split": name, **found, "method": method, **by_difficulty(questions, rates)}, generations
    )


def exact_rates(evaluator: Evaluator, params: PyTree, answers: Sequences, ledger: Ledger) -> np.ndarray:
    """Success rate at temperature 1 of questions with one right token sequence: that sequence's probability.

    One teacher-forced pass per question, no sampling and so no sampling noise.  float64 [N].
    """
    width, rates = int(answers.completion_lengths.max()), []
    for start in range(0, len(answers.tokens), evaluator.rows):
        placed = put_rows(evaluator.sampler.mesh, _padded_rows(answers, start, evaluator.rows))
        scores = evaluator.score(params, placed, completion_width=width, temperature=1.0)
        rates.append(np.exp(np.asarray(scores.logprobs, np.float64).sum(axis=1)))
    ledger.add("evaluation", "scored", int(answers.prompt_lengths.sum() + answers.completion_lengths.sum()))
    return np.concatenate(rates)[: len(answers.tokens)]


def sampled(evaluator: Evaluator, held: HeldOut, params: PyTree, key: jax.Array, ledger: Ledger) -> list[Generations]:
    """Responses to the questions of a set, by the evaluator's protocol."""
    encoded = held.encoded
    prompts = [row[:length].tolist() for row, length in zip(encoded.tokens, encoded.lengths, strict=True)]

    def draw(prompts: Prompts, requests: Requests, _: Protocol) -> Completions:
        return jax.device_get(sample(evaluator.sampler, params, prompts, requests, key))

    generate = functools.partial(completions_of, draw, prompts, rows=evaluator.rows)
    generations = respond(generate, evaluator.graders, held.grade, encoded.questions, evaluator.protocol)
    ledger.add("evaluation", "prefilled", encoded.lengths.sum())
    ledger.add("evaluation", "generated", sum(r.tokens for one in generations for r in one.responses))
    return generations


def _padded_rows(sequences: Sequences, start: int, rows: int) -> Sequences:
    """Rows start..start+rows, the last part filled up by repeating the last row."""
    index = np.minimum(np.arange(start, start + rows), len(sequences.tokens) - 1)
    return jax.tree.map(lambda x: x[index], sequences)
