"""Curricula that only a study has: a free oracle of what p(1 - p) could know, and shuffled versions of `frontier`.

python -m experiments.quickstart --curriculum experiments.controls:Oracle --output-dir runs/oracle
"""

import dataclasses
import functools

import jax

from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.estimators import measured
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import variance
from lilo_jax.types import Array, Curriculum, CurriculumState, Facts, GroupStatistics, Proposal, Wants

SHUFFLE = 0x73687566


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The questions of highest p(1 - p) under the current policy's exact p, which costs nothing here."""

    pool_ratio: int = 16
    """random questions per question trained on, among which the best are taken"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """One round of `questions` groups."""
        truth = measured()

        def score(state: CurriculumState, ids: Array, key: Array) -> Array:
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
class ShuffledFeatures(Frontier):
    """`frontier` with every question given another one's features: what is left is memory of single questions."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for the facts it starts from."""
        rule = super().build(pool_size=pool_size, questions=questions, samples=samples)

        def init(facts: Facts) -> CurriculumState:
            order = jax.random.permutation(jax.random.key(SHUFFLE), pool_size)
            return rule.init(facts.replace(features=facts.features[order]))

        return rule._replace(init=init)


@dataclasses.dataclass(frozen=True)
class ShuffledScores(Frontier):
    """`frontier` whose choice falls on other questions: scores keep their histogram, and belong to permuted ids."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """As `frontier`, but for the questions that its first round asks."""
        rule = super().build(pool_size=pool_size, questions=questions, samples=samples)
        order = functools.partial(jax.random.permutation, jax.random.key(SHUFFLE), pool_size)

        def propose(state: CurriculumState, collected: GroupStatistics, key: Array) -> Proposal:
            proposal = rule.propose(state, collected, key)
            return proposal.replace(ids=jax.numpy.where(proposal.continues < 0, order()[proposal.ids], proposal.ids))

        return rule._replace(propose=propose)
