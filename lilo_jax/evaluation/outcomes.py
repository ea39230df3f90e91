"""Outcomes of training questions, rolled out to be measured and not to be trained on."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from lilo_jax.evaluation.completions import completions_of
from lilo_jax.evaluation.generations import respond
from lilo_jax.evaluation.judge import Judge
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.sampler import Sampler, sample
from lilo_jax.keys import stream_key
from lilo_jax.questions import Verdict
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tokenizers.encoding import EncodedQuestions
from lilo_jax.types import Completions, Prompts, PyTree, Requests


class Probe(NamedTuple):
    """What rolls out questions of the pool as training does.

    Attributes:
        pool: all training questions.
        sampler, judge: those of training.
        protocol: how training samples.
        rows: completions of one device call.
    """

    pool: EncodedQuestions
    sampler: Sampler
    judge: Judge
    protocol: Protocol
    rows: int


def outcomes(
    probe: Probe,
    params: PyTree,
    places: np.ndarray,
    step: int,
    ledger: Ledger,
    *,
    samples: int,
    purpose: str,
    phase: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successes, graded rollouts and sums of rewards of questions of the pool, sampled and graded as in training.

    Args:
        probe: what samples and grades.
        params: policy weights.
        places: [N], places in the pool.
        step: at which it happens.
        ledger: books the tokens.
        samples: rollouts of each question.
        purpose: on the ledger; names the random numbers as well.
        phase: which phase of a step planted noise belongs to; see `lilo_jax.tasks.noise`.

    Returns:
        Three float64 [N].
    """
    pool, judge = probe.pool, probe.judge
    prompts = [pool.tokens[i, : pool.lengths[i]].tolist() for i in places]
    key = stream_key(judge.seed, purpose, step)

    def rolled_out(prompts: Prompts, requests: Requests, _: Protocol) -> Completions:
        return jax.device_get(sample(probe.sampler, params, prompts, requests, key))

    protocol = dataclasses.replace(probe.protocol, samples=samples)
    generate = functools.partial(completions_of, rolled_out, prompts, rows=probe.rows)
    questions = [pool.questions[i] for i in places]
    generations = respond(generate, judge.graders, judge.grade, questions, protocol)
    ledger.add(purpose, "prefilled", pool.lengths[places].sum())
    counts = np.zeros((3, len(places)))
    for i, one in enumerate(generations):
        for j, response in enumerate(one.responses):
            ledger.add(purpose, "generated", response.tokens)
            draw = (step, phase, i * samples + j)
            verdict, reward = judge.rewarded(one.question, response.text, response.verdict, response.tokens, draw)
            if not verdict.is_failure:
                counts[:, i] += (verdict is Verdict.CORRECT, 1, reward)
    return counts[0], counts[1], counts[2]
