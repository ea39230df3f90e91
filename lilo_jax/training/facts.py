"""What a curriculum wants to know of the questions before it has rolled them out, gathered from data and policy."""

import jax
import numpy as np

from lilo_jax.curriculum.features import standardized, text_features
from lilo_jax.device.mesh import put_replicated, put_rows, row_shards
from lilo_jax.evaluation.held_out import exact_rates
from lilo_jax.evaluation.outcomes import outcomes
from lilo_jax.models.packing import length_blocks, prompt_blocks
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import GRADE
from lilo_jax.training.assembly import Assembly
from lilo_jax.types import Facts, Prompts, PyTree, Sequences, TrainState


def question_facts(assembly: Assembly, params: PyTree, ledger: Ledger) -> Facts:
    """Facts about the training pool as the starting policy sees it; what they cost is booked."""
    wants, pool = assembly.programs.curriculum.wants, assembly.pool
    grade = np.full(len(pool.questions), np.nan, np.float32)
    if wants.grade:
        grade = _grades(assembly, params, wants.grade, ledger)
    levels = [question.level for question in pool.questions]
    names = [question.category for question in pool.questions]
    return put_replicated(
        assembly.mesh,
        Facts(
            features=_features(assembly, params, ledger),
            grade=grade,
            category=np.unique(names, return_inverse=True)[1].astype(np.int32),
            level=np.array([level or 0 for level in levels], np.int32),
        ),
    )


def refresh_facts(assembly: Assembly, state: TrainState, step: int, ledger: Ledger, clock: PhaseClock) -> TrainState:
    """The state with what the current policy makes of the questions, if the curriculum wants that and it is due."""
    wants, new = assembly.programs.curriculum.wants, {}
    if (wants.hidden or wants.entropy) and step and step % wants.refresh_every == 0:
        with clock.phase("features"):
            new["features"] = _features(assembly, assembly.policy(state), ledger)
    if wants.truth:
        with clock.phase("truth"):  # a ceiling for studies, in no budget
            rates = exact_rates(assembly.evaluator, assembly.policy(state), assembly.pool_answers, ledger)
            new["grade"] = rates.astype(np.float32)
    if not new:
        return state
    facts = state.curriculum.facts.replace(**put_replicated(assembly.mesh, new))
    return state.replace(curriculum=state.curriculum.replace(facts=facts))


def _features(assembly: Assembly, params: PyTree, ledger: Ledger) -> np.ndarray | None:
    """float32 [M, wants.features]; None if none are wanted."""
    wants, pool = assembly.programs.curriculum.wants, assembly.pool
    texts = [question.text or question.prompt for question in pool.questions]
    blocks = []
    if wants.tokens + wants.pairs:
        blocks += text_features(texts, pool.tokens, pool.lengths, wants)
    if wants.hidden:
        blocks += _hidden_states(assembly, params)
        ledger.add("features", "scored", pool.lengths.sum())
    if wants.entropy:
        blocks.append(_entropies(assembly, params))
        ledger.add("features", "scored", pool.lengths.sum())
    return standardized(blocks) if blocks else None


def _entropies(assembly: Assembly, params: PyTree) -> np.ndarray:
    """Mean entropy of what the policy expects of each token of a prompt but the first, float32 [M, 1]."""
    pool, mesh = assembly.pool, assembly.mesh
    found = np.zeros((len(pool.questions), 1), np.float32)
    for block, width in length_blocks(pool.lengths, pool.tokens.shape[1], multiple=row_shards(mesh)):
        # To the program a prompt is its first token and a completion.
        known, lengths = np.ones(len(block), np.int32), pool.lengths[block]
        rows = put_rows(mesh, Sequences(pool.tokens[block, :width], known, lengths - 1))
        temperature = assembly.config.rollout.temperature
        scores = assembly.programs.score(params, rows, completion_width=width, temperature=temperature)
        total = np.sum(jax.device_get(scores.entropy), axis=1)
        found[block, 0] = total / np.maximum(lengths - 1, 1)
    return found


def _hidden_states(assembly: Assembly, params: PyTree) -> list[np.ndarray]:
    """Of every layer that is wanted the policy's mean state over each prompt, float32 [M, wants.hidden].

    Prompts of like length are computed at a time, and what all begin with once for a row of them.
    """
    pool, mesh, programs = assembly.pool, assembly.mesh, assembly.programs
    rows, found = [], []
    for block, prompts, plan in prompt_blocks(
        Prompts(pool.tokens, pool.lengths), multiple=row_shards(mesh), share=programs.model.shares_prompts
    ):
        rows.append(block)
        found.append(programs.features(params, put_rows(mesh, prompts), put_replicated(mesh, plan)))
    _, first = np.unique(np.concatenate(rows), return_index=True)  # what fills a block up is there twice
    return list(np.concatenate(jax.device_get(found), axis=1)[:, first])


def _grades(assembly: Assembly, params: PyTree, rollouts: int, ledger: Ledger) -> np.ndarray:
    """The starting policy's success rate on every training question over a number of rollouts; float32 [M]."""
    everyone = np.arange(len(assembly.pool.questions))
    successes, attempts, _ = outcomes(
        assembly.probe, params, everyone, 0, ledger, samples=rollouts, purpose="screen", phase=GRADE
    )
    return np.divide(successes, attempts, out=np.full(len(everyone), np.nan), where=attempts > 0).astype(np.float32)
