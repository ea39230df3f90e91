"""Curricula that only a study has: free oracles of the success rate, and `frontier` without one of its parts.

python -m experiments.quickstart --curriculum experiments.controls:Oracle --output-dir runs/oracle
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from lilo_jax.curriculum import (
    Array,
    Curriculum,
    CurriculumState,
    Frontier,
    GroupSignals,
    GroupStatistics,
    PyTree,
    Tracker,
    Wants,
    alike,
    compose,
    diverse,
    everything,
    hard_variance,
    measured,
    of_belief,
    once,
    random_pool,
    top_k,
    variance,
)

SHUFFLE = 0x73687566


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The questions of highest p(1 - p) under the current policy's exact p, which costs nothing here."""

    pool_ratio: int = 16
    """random questions per question trained on, among which the best are taken"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """One round of `questions` groups."""
        truth = measured()
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=of_belief(truth, variance),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            remembers={"success": truth.tracker},
            wants=Wants(truth=True),
        )


@dataclasses.dataclass(frozen=True)
class OracleFrontier(Frontier):
    """`frontier` that knows the current policy's exact p and need not predict it: what better prediction could give."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for its predictions; it suspects no traps."""
        parts = self.parts(pool_size=pool_size, questions=questions, samples=samples)
        truth = measured()
        value = of_belief(truth, hard_variance)

        def worth(state: CurriculumState, places: Array, key: jax.Array) -> tuple[Array, Array]:
            return value(state, places, key), state.facts.wanted_features[places, :-1]

        return compose(
            source=parts["source"],
            worth=worth,
            select=diverse,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            remembers={"success": truth.tracker},
            wants=parts["wants"]._replace(truth=True),
        )


def _reading(view: Callable[[CurriculumState], CurriculumState], tracker: Tracker) -> Tracker:
    """The tracker, shown `view(state)` in place of the state."""

    def observe(memory: PyTree, state: CurriculumState, collected: GroupStatistics, step: Array) -> PyTree:
        return tracker.observe(memory, view(state), collected, step)

    def feedback(
        memory: PyTree, state: CurriculumState, question: Array, mask: Array, signals: GroupSignals, step: Array
    ) -> PyTree:
        return tracker.feedback(memory, view(state), question, mask, signals, step)

    return Tracker(tracker.init, observe, feedback)


def _with_features_of_others(state: CurriculumState, *, pool_size: int) -> CurriculumState:
    order = jax.random.permutation(jax.random.key(SHUFFLE), pool_size)
    return state.replace(facts=state.facts.replace(features=state.facts.wanted_features[order]))


@dataclasses.dataclass(frozen=True)
class ShuffledFeatures(Frontier):
    """`frontier` with every question given another one's features: what is left is memory of single questions."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for the features that it reads, those made anew during the run as well."""
        parts = self.parts(pool_size=pool_size, questions=questions, samples=samples)
        view = functools.partial(_with_features_of_others, pool_size=pool_size)
        worth, belief, suspicion = parts["worth"], parts["belief"], parts["suspicion"]
        shown = {
            "worth": lambda state, places, key: worth(view(state), places, key),
            "belief": lambda state, places, key: belief(view(state), places, key),
            "suspicion": suspicion and (lambda state, places: suspicion(view(state), places)),
            "remembers": {name: _reading(view, tracker) for name, tracker in parts["remembers"].items()},
        }
        return compose(**parts | shown)


@dataclasses.dataclass(frozen=True)
class UniformBelieving(Frontier):
    """Questions at random, and what `frontier` believes of them: what a baseline of that is worth, without choice."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for its choice."""
        parts = self.parts(pool_size=pool_size, questions=questions, samples=samples)
        return compose(**parts | {"source": random_pool(pool_size, questions), "worth": alike, "select": top_k})


@dataclasses.dataclass(frozen=True)
class ShuffledScores(Frontier):
    """`frontier` whose choice falls on other questions: worths keep their histogram, and belong to permuted places."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but that every question is offered in place of another, and scored as that one."""
        parts = self.parts(pool_size=pool_size, questions=questions, samples=samples)
        order = functools.partial(jax.random.permutation, jax.random.key(SHUFFLE), pool_size)
        source, worth = parts["source"], parts["worth"]

        def offer(state: CurriculumState, collected: GroupStatistics, key: jax.Array) -> tuple[Array, Array]:
            places, eligible = source(state, collected, key)
            return order()[places], eligible

        def worth_of_other(state: CurriculumState, places: Array, key: jax.Array) -> tuple[Array, Array]:
            return worth(state, jnp.argsort(order())[places], key)

        return compose(**parts | {"source": offer, "worth": worth_of_other})


SCORES: dict[str, Callable[[Array], Array]] = {
    "variance": lambda rate: rate * (1 - rate),
    "mixed": lambda rate: jnp.sign(rate * (1 - rate)),
    "band": lambda rate: jnp.where((rate >= 0.2) & (rate <= 0.8), 1.0, 0.0),
    "hardest": lambda rate: jnp.where(rate > 0, 1 - rate, 0.0),
    "easiest": lambda rate: jnp.where(rate < 1, rate, 0.0),
    "near_half": lambda rate: 0.5 - jnp.abs(rate - 0.5),
    "failure": lambda rate: 1 - rate,
    "random": jnp.zeros_like,
}
"""Success rate to what a candidate is ranked by, at least 0; equals come in random order."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """LILO with another score of its candidates, another draw by score, or another order of equals."""

    score: Literal["variance", "mixed", "band", "hardest", "easiest", "near_half", "failure", "random"] = "variance"
    """one of `SCORES`"""
    drawn: bool = False
    """in proportion to the score, not the highest"""
    ties: Literal["random", "first", "last"] = "random"
    """of equals: at random, or by their place in the data set"""
    pool_ratio: int = 4
    """candidates rolled out per question trained on"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out pool_ratio x `questions` candidates and admits `questions` of them by score."""
        if self.drawn and self.ties != "random":
            raise ValueError("where groups are drawn there are no ties: leave --curriculum.ties at random")
        order = {"random": 0.0, "first": -1.0, "last": 1.0}[self.ties]

        def score(collected: GroupStatistics) -> Array:
            rate = jnp.where(collected.attempts > 0, collected.successes / collected.attempts, jnp.nan)
            return SCORES[self.score](rate) + 1e-4 * order * collected.place / pool_size

        def draw(state: CurriculumState, collected: GroupStatistics, key: jax.Array) -> Array:
            scores = score(collected)  # the highest of these are a draw in proportion to the scores
            return jnp.log(scores) + jax.random.gumbel(key, scores.shape)

        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            rounds=once(self.pool_ratio * questions, samples),
            gate=score,
            merit=draw if self.drawn else None,
            count=questions,
            rows=questions * samples,
            least_samples=2,
        )
