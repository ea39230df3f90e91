"""A curriculum from parts: source, score, selector, rounds, gate, and what it remembers.

    ids, eligible = source(state, collected, key)      which questions may come         sources.py
    scores        = score(state, ids, key)             what each is worth      estimators, dynamics, values, prices
    indices, mask = select(scores, key, ...)           which of them                    selectors.py
    proposal      = rounds(choose, ...)                how many rollouts, in how many rounds   rounds.py, allocators.py
    admission     = gate(collected)                    which groups are trained on      gates.py

What a rule remembers, beliefs apart, is in controllers.py and buffers.py.  Every rule in `rules/` and
`literature/` is such a composition.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum import gates
from lilo_jax.curriculum.contract import NOTHING, Curriculum, Wants
from lilo_jax.curriculum.estimators import Estimate, Estimator, Tracker, recalled
from lilo_jax.curriculum.rounds import Choose, Rounds
from lilo_jax.curriculum.selectors import Arms, Selector, top_k
from lilo_jax.curriculum.sources import Source
from lilo_jax.curriculum.statistics import initial_state, remember
from lilo_jax.types import Array, CurriculumState, Facts, GroupSignals, GroupStatistics

Scores = Float[Array, "questions"] | tuple[Float[Array, "questions"], Float[Array, "questions ..."]] | Arms
"""What a selector reads."""
Score = Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Scores]
"""(state, ids, key) -> a number for each question, or what else the selector reads; NaN is never chosen."""
Belief = Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Float[Array, "questions"]]
"""(state, ids, key) -> a number for each question that follows from what is believed of it: the simplest score."""


def alike(state: CurriculumState, ids: Int[Array, "questions"], key: Key[jax.Array, ""]) -> Float[Array, "questions"]:
    """The same score for all: the selector's ties then make a uniform draw."""
    return jnp.zeros(ids.shape)


def of_belief(
    estimator: Estimator, value: Callable[[Estimate], Float[Array, "questions"]], name: str = "success"
) -> Belief:
    """A value of what an estimator believes by `state.memory[name]`."""
    believed = recalled(estimator, name)
    return lambda state, ids, key: value(believed(state, ids, key))


def choice(source: Source, score: Score, select: Selector) -> Choose:
    """Questions of the source by score; fewer, masked, if the source has fewer."""

    def choose(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""], k: int
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        source_key, score_key, select_key = jax.random.split(key, 3)
        ids, eligible = source(state, collected, source_key)
        scores = score(state, ids, score_key)
        indices, mask = select(scores, select_key, k=k, eligible=eligible)
        return ids[indices], mask

    return choose


def compose(
    *,
    source: Source,
    rounds: Rounds,
    gate: gates.Gate,
    count: int,
    rows: int,
    score: Score = alike,
    select: Selector = top_k,
    remembers: Mapping[str, Tracker] | None = None,
    wants: Wants = NOTHING,
    belief: Belief | None = None,
    suspicion: Callable[[CurriculumState, Int[Array, "questions"]], Float[Array, "questions"]] | None = None,
    least_samples: int = 1,
) -> Curriculum:
    """A curriculum whose steps go through these parts.

    Args:
        source, score, select: choose questions; see the head of this file.
        rounds: asks for their rollouts.
        gate: on what was collected.
        count: Q, groups trained on.
        rows: B, most rollouts that these can have together.
        remembers: name to tracker; `state.memory[name]` is what it has in mind.
        wants: facts about the questions that the rule needs.
        belief: (state, ids, key) -> success rates it believes in, if it has any: what an audit judges.
        suspicion: (state, ids) -> probability that a question is a trap, if it suspects any: what is reported.
        least_samples: rollouts of a question without which the rule has nothing to choose by.
    """
    trackers, choose = dict(remembers or {}), choice(source, score, select)

    def init(facts: Facts) -> CurriculumState:
        pool_size = facts.category.shape[0]
        return initial_state(facts, {name: tracker.init(pool_size) for name, tracker in trackers.items()})

    def observe(state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> CurriculumState:
        memory = {n: t.observe(state.memory[n], state, collected, step) for n, t in trackers.items()}
        return remember(state, collected, step).replace(memory=memory)

    return Curriculum(
        init=init,
        propose=functools.partial(rounds.propose, choose),
        admit=gates.admission(gate, count),
        observe=observe,
        feedback=functools.partial(_feedback, trackers),
        max_rounds=rounds.most,
        max_samples=rounds.samples,
        train_rows=rows,
        wants=wants,
        estimate=belief and (lambda state, key: belief(state, _everyone(state), key)),
        suspicion=suspicion and (lambda state: suspicion(state, _everyone(state))),
        least_samples=least_samples,
    )


def _feedback(
    trackers: Mapping[str, Tracker],
    state: CurriculumState,
    question: Int[Array, "trained"],
    mask: Bool[Array, "trained"],
    signals: GroupSignals,
    step: Int[Array, ""],
) -> CurriculumState:
    """The state after every tracker has seen what the update saw."""
    memory = {n: t.feedback(state.memory[n], state, question, mask, signals, step) for n, t in trackers.items()}
    return state.replace(memory=memory)


def _everyone(state: CurriculumState) -> Int[Array, "pool"]:
    """All places in the pool."""
    return jnp.arange(state.attempts.shape[0])
