"""Outcomes of training questions, rolled out to be measured and not to be trained on."""

import functools

import jax
import numpy as np

from lilo_jax.assembly import Assembly
from lilo_jax.collection import sample
from lilo_jax.evaluation.generations import respond
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.inference import completions_of
from lilo_jax.keys import stream_key
from lilo_jax.questions import Verdict
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import disturbed
from lilo_jax.types import Completions, Prompts, PyTree, Requests


def outcomes(
    assembly: Assembly,
    params: PyTree,
    ids: np.ndarray,
    step: int,
    ledger: Ledger,
    *,
    samples: int,
    purpose: str,
    phase: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successes, graded rollouts and sums of rewards of questions of the pool, sampled and graded as in training.

    Args:
        assembly: parts of the run.
        params: policy weights.
        ids: [N], questions.
        step: at which it happens.
        ledger: books the tokens.
        samples: rollouts of each question.
        purpose: on the ledger; names the random numbers as well.
        phase: which phase of a step planted noise belongs to; see `lilo_jax.tasks.noise`.

    Returns:
        Three float64 [N].
    """
    config, pool = assembly.config, assembly.pool
    prompts = [pool.tokens[i, : pool.lengths[i]].tolist() for i in ids]
    key = stream_key(config.seed, purpose, step)

    def rolled_out(prompts: Prompts, requests: Requests, _: Protocol) -> Completions:
        return jax.device_get(sample(assembly, params, prompts, requests, key))

    rollout = config.rollout
    protocol = Protocol(samples, rollout.temperature, rollout.top_p, rollout.max_new_tokens)
    generate = functools.partial(completions_of, rolled_out, prompts, rows=config.evaluation.rows)
    questions = [pool.questions[i] for i in ids]
    generations = respond(generate, assembly.graders, assembly.task.grade, questions, protocol)
    ledger.add(purpose, "prefilled", pool.lengths[ids].sum())
    counts = np.zeros((3, len(ids)))
    for i, one in enumerate(generations):
        for j, response in enumerate(one.responses):
            ledger.add(purpose, "generated", response.tokens)
            verdict = disturbed(
                response.verdict, one.question, config.noise, (config.seed, step, phase, i * samples + j)
            )
            if not verdict.is_failure:
                reward = assembly.reward(response.text, verdict, response.tokens)
                counts[:, i] += (verdict is Verdict.CORRECT, 1, reward)
    return counts[0], counts[1], counts[2]
