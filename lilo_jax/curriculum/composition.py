"""A curriculum from parts: source, worth, selector, rounds, gate, and what it remembers.

    places, eligible = source(state, collected, key)   which questions may come         sources.py
    worths           = worth(state, places, key)       what each is worth      estimators, dynamics, values, prices
    indices, mask    = select(worths, key, ...)        which of them                    selectors.py
    proposal         = rounds(choose, ...)             how many rollouts, in how many rounds   rounds.py, allocators.py
    admission        = gate(collected)                 which groups are trained on      gates.py

What a rule remembers, beliefs apart, is in controllers.py and buffers.py.  Every rule in `rules/` and
`literature/` is such a composition.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum import gates
from lilo_jax.curriculum.contract import NOTHING, Belief, Curriculum, Wants
from lilo_jax.curriculum.estimators import Estimator, Tracker, recalled
from lilo_jax.curriculum.rounds import Choose, Rounds
from lilo_jax.curriculum.selectors import Classes, Selector, top_k
from lilo_jax.curriculum.sources import Source
from lilo_jax.curriculum.statistics import initial_state, remember
from lilo_jax.types import Array, CurriculumState, Estimate, Facts, GroupSignals, GroupStatistics

Worths = Float[Array, "questions"] | tuple[Float[Array, "questions"], Float[Array, "questions ..."]] | Classes
"""What a selector reads."""
Worth = Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Worths]
"""(state, places, key) -> a number for each question, or what else the selector reads; NaN is never chosen."""
Ranking = Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Float[Array, "questions"]]
"""(state, places, key) -> a number for each question: the simplest worth."""


def alike(
    state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
) -> Float[Array, "questions"]:
    """All are worth the same: the selector's ties then make a uniform draw."""
    return jnp.zeros(places.shape)


def of_belief(
    estimator: Estimator,
    value: Callable[[Estimate], Float[Array, "questions"]],
    name: str = "success",
    *,
    unknown: float | None = None,
) -> Ranking:
    """The worth of a question: the value of what an estimator believes by `state.memory[name]`.

    Args:
        estimator: what is believed.
        value: of `values.py`, or your own.
        name: under which `compose(remembers=...)` keeps what the estimator remembers.
        unknown: the worth of a question of which nothing is believed yet.  None leaves it NaN, and NaN is never
            chosen: a rule to which all are unknown at first then has nothing to ask.
    """
    believed = recalled(estimator, name)

    def worth(
        state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Float[Array, "questions"]:
        values = value(believed(state, places, key))
        return values if unknown is None else jnp.where(jnp.isnan(values), unknown, values)

    return worth


def choice(source: Source, worth: Worth, select: Selector) -> Choose:
    """Questions of the source by worth; fewer, masked, if the source has fewer."""

    def choose(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""], k: int
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        source_key, worth_key, select_key = jax.random.split(key, 3)
        places, eligible = source(state, collected, source_key)
        worths = worth(state, places, worth_key)
        indices, mask = select(worths, select_key, k=k, eligible=eligible)
        return places[indices], mask

    return choose


def compose(
    *,
    source: Source,
    rounds: Rounds,
    gate: gates.Gate,
    count: int,
    rows: int | None = None,
    worth: Worth = alike,
    select: Selector = top_k,
    keep: Selector = top_k,
    remembers: Mapping[str, Tracker] | None = None,
    wants: Wants = NOTHING,
    belief: Belief | None = None,
    suspicion: Callable[[CurriculumState, Int[Array, "questions"]], Float[Array, "questions"]] | None = None,
    least_samples: int = 1,
) -> Curriculum:
    """A `Curriculum` from its parts: the one way in which a rule is written.

    Args:
        source, worth, select: choose questions; see the head of this file.
        rounds: asks for their rollouts.
        gate: on what was collected.
        keep: which groups are trained on by the gate's merit: the highest, or drawn in proportion to it.
        count: Q, groups trained on.
        rows: B, most rollouts that these can have together; None: `count` groups as large as a round makes them.
        remembers: name to tracker; `state.memory[name]` is what it has in mind.
        wants: facts about the questions that the rule needs.
        belief: what it believes of success rates, if anything: an audit judges it, and it can be a baseline.
        suspicion: (state, places) -> probability that a question is a trap, if it suspects any: what is reported.
        least_samples: rollouts of a question without which the rule has nothing to choose by.

    Example: LILO rolls out 32 of 100 questions, 8 times each, and trains on the 8 of largest p(1 - p).

        >>> from lilo_jax.curriculum import most_variance, once, random_pool
        >>> lilo = compose(source=random_pool(100, 32), rounds=once(32, 8), gate=most_variance, count=8)
        >>> lilo.max_rounds, lilo.max_samples, lilo.train_rows
        (1, 8, 64)
    """
    choose = choice(source, worth, select)
    init, observe, feedback = _remembering(dict(remembers or {}))
    return Curriculum(
        init=init,
        propose=functools.partial(rounds.propose, choose),
        admit=gates.admission(gate, count, keep),
        observe=observe,
        feedback=feedback,
        max_rounds=rounds.most,
        max_samples=rounds.samples,
        train_rows=count * rounds.samples if rows is None else rows,
        wants=wants,
        estimate=belief,
        suspicion=suspicion and (lambda state: suspicion(state, jnp.arange(state.attempts.shape[0]))),
        least_samples=least_samples,
    )


def _remembering(trackers: Mapping[str, Tracker]) -> tuple[Callable[..., CurriculumState], ...]:
    """`init`, `observe` and `feedback` of a curriculum: the counts of every question, and what the trackers keep."""

    def init(facts: Facts) -> CurriculumState:
        pool_size = facts.category.shape[0]
        return initial_state(facts, {name: tracker.init(pool_size) for name, tracker in trackers.items()})

    def observe(state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> CurriculumState:
        memory = {n: t.observe(state.memory[n], state, collected, step) for n, t in trackers.items()}
        return remember(state, collected, step).replace(memory=memory)

    def feedback(
        state: CurriculumState,
        place: Int[Array, "trained"],
        mask: Bool[Array, "trained"],
        signals: GroupSignals,
        step: Int[Array, ""],
    ) -> CurriculumState:
        memory = {n: t.feedback(state.memory[n], state, place, mask, signals, step) for n, t in trackers.items()}
        return state.replace(memory=memory)

    return init, observe, feedback
