"""Curricula that only a study has: free oracles of the success rate, and shuffled versions of `frontier`.

python -m experiments.quickstart --curriculum experiments.controls:Oracle --output-dir runs/oracle
"""

import dataclasses
import functools

import jax

from lilo_jax.curriculum.composition import choice, compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.estimators import measured
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.selectors import diverse
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import hard_variance, variance
from lilo_jax.types import Array, CurriculumState, GroupStatistics, Proposal

SHUFFLE = 0x73687566


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The questions of highest p(1 - p) under the current policy's exact p, which costs nothing here."""

    pool_ratio: int = 16
    """random questions per question trained on, among which the best are taken"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """One round of `questions` groups."""
        truth = measured()

        def score(state: CurriculumState, ids: Array, key: jax.Array) -> Array:
            return variance(truth.estimate((), state, ids, key))

        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            score=score,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            wants=Wants(truth=True),
        )


@dataclasses.dataclass(frozen=True)
class OracleFrontier(Frontier):
    """`frontier` that knows the current policy's exact p and need not predict it: what better prediction could give."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for its predictions; it suspects no traps."""
        rule, truth = super().build(pool_size=pool_size, questions=questions, samples=samples), measured()

        def score(state: CurriculumState, ids: Array, key: jax.Array) -> tuple[Array, Array]:
            return hard_variance(truth.estimate((), state, ids, key)), state.facts.wanted_features[ids, :-1]

        choose = choice(random_pool(pool_size, self.pool_ratio * questions), score, diverse)
        return rule._replace(
            propose=functools.partial(once(questions, samples).propose, choose),
            wants=rule.wants._replace(truth=True),
            estimate=None,
            suspicion=None,
        )


@dataclasses.dataclass(frozen=True)
class ShuffledFeatures(Frontier):
    """`frontier` with every question given another one's features: what is left is memory of single questions."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for the features that it reads, those made anew during the run as well."""
        rule = super().build(pool_size=pool_size, questions=questions, samples=samples)
        order = functools.partial(jax.random.permutation, jax.random.key(SHUFFLE), pool_size)

        def shuffled(state: CurriculumState) -> CurriculumState:
            return state.replace(facts=state.facts.replace(features=state.facts.wanted_features[order()]))

        def propose(state: CurriculumState, collected: GroupStatistics, key: jax.Array) -> Proposal:
            return rule.propose(shuffled(state), collected, key)

        def observe(state: CurriculumState, collected: GroupStatistics, step: Array) -> CurriculumState:
            return rule.observe(shuffled(state), collected, step).replace(facts=state.facts)

        believed = rule.estimate
        estimate = believed and (lambda state, key: believed(shuffled(state), key))
        return rule._replace(propose=propose, observe=observe, estimate=estimate)


@dataclasses.dataclass(frozen=True)
class ShuffledScores(Frontier):
    """`frontier` whose choice falls on other questions: scores keep their histogram, and belong to permuted ids."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for the questions that its first round asks."""
        rule = super().build(pool_size=pool_size, questions=questions, samples=samples)
        order = functools.partial(jax.random.permutation, jax.random.key(SHUFFLE), pool_size)

        def propose(state: CurriculumState, collected: GroupStatistics, key: jax.Array) -> Proposal:
            proposal = rule.propose(state, collected, key)
            return proposal.replace(ids=jax.numpy.where(proposal.continues < 0, order()[proposal.ids], proposal.ids))

        return rule._replace(propose=propose)
