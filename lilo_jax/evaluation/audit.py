"""Audits of a run: what the curriculum believes, held against many rollouts of questions that nobody chose."""

import functools

import jax
import numpy as np

from lilo_jax.assembly import Assembly
from lilo_jax.collection import sample
from lilo_jax.curriculum.selectors import draw
from lilo_jax.evaluation.calibration import audit_measures
from lilo_jax.evaluation.generations import respond
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.inference import completions_of
from lilo_jax.keys import stream_key
from lilo_jax.questions import Verdict
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import AUDIT, disturbed
from lilo_jax.types import Completions, Prompts, PyTree, Requests, TrainState


def audit(
    assembly: Assembly, state: TrainState, step: int, ledger: Ledger, clock: PhaseClock
) -> dict[str, float | None]:
    """Metrics `audit/...` of the belief with which a step begins; none if the step has no audit.

    The curriculum sees nothing of it and every key is the audit's own, so a run is the same with and without.  See
    `audit_measures`.
    """
    config, programs = assembly.config, assembly.programs
    if not config.audit.questions or step % config.audit.every:
        return {}
    with clock.phase("audit"):
        key = stream_key(config.seed, "audit questions", step)
        ids = np.asarray(draw(key, size=len(assembly.pool.lengths), k=config.audit.questions))
        counts = _rollouts(assembly, assembly.policy(state), ids, step, ledger)
        belief = None
        if programs.estimate is not None:
            key = stream_key(config.seed, "audit belief", step)
            belief = jax.device_get(programs.estimate(state.curriculum, key))[ids]
        assembly.graders.pool.take_counts()  # those of a step are its own
        return {f"audit/{name}": value for name, value in audit_measures(belief, *counts).items()}


def _rollouts(
    assembly: Assembly, params: PyTree, ids: np.ndarray, step: int, ledger: Ledger
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successes, attempts and sums of rewards of each question, by the rule of training."""
    config, pool = assembly.config, assembly.pool
    prompts = [pool.tokens[i, : pool.lengths[i]].tolist() for i in ids]
    key = stream_key(config.seed, "audit", step)

    def rolled_out(prompts: Prompts, requests: Requests, _: Protocol) -> Completions:
        return jax.device_get(sample(assembly, params, prompts, requests, key))

    rollout, samples = config.rollout, config.audit.samples
    protocol = Protocol(samples, rollout.temperature, rollout.top_p, rollout.max_new_tokens)
    generate = functools.partial(completions_of, rolled_out, prompts, rows=config.evaluation.rows)
    questions = [pool.questions[i] for i in ids]
    generations = respond(generate, assembly.graders, assembly.task.grade, questions, protocol)
    ledger.add("audit", "prefilled", pool.lengths[ids].sum())
    counts = np.zeros((3, len(ids)))
    for i, one in enumerate(generations):
        for j, response in enumerate(one.responses):
            ledger.add("audit", "generated", response.tokens)
            noise = (config.seed, step, AUDIT, i * samples + j)
            verdict = disturbed(response.verdict, one.question, config.noise, noise)
            if not verdict.is_failure:
                reward = assembly.reward(response.text, verdict, response.tokens)
                counts[:, i] += (verdict is Verdict.CORRECT, 1, reward)
    return counts[0], counts[1], counts[2]
