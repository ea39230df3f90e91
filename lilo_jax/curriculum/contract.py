"""What a curriculum is: a bundle of pure functions, and the facts that it wants to know of the questions."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.types import Admission, Array, CurriculumState, Estimate, Facts, GroupSignals, GroupStatistics, Proposal

COUNTS = 6
"""Features of a text that are plain counts."""


class Wants(NamedTuple):
    """Facts that a curriculum needs.

    Attributes:
        tokens, pairs: how many of the commonest tokens, and pairs of neighbours, are features (`curriculum.features`).
        hidden: width of the features that are the policy's mean state over the prompt, after each of some layers.
        depths: of these layers, each a share of the way from the embeddings, 0, to the last layer, 1.
        entropy: whether the policy's mean entropy over the tokens of the prompt is a feature.
        refresh_every: steps after which states and entropies are made anew.
        grade: rollouts a question that measure the starting policy.
        truth: whether `Facts.grade` is the current policy's exact success rate instead, at every step and for nothing:
            for ceilings in studies, where answers are unique.
        categories: how many categories of questions it can tell apart; 0 does not look at them.
        levels: how many levels of a generator's knob, from 0 on; 0 does not look at them.
    """

    tokens: int = 0
    pairs: int = 0
    hidden: int = 0
    depths: tuple[float, ...] = (1.0,)
    entropy: bool = False
    refresh_every: int = 50
    grade: int = 0
    truth: bool = False
    categories: int = 0
    levels: int = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the features by kind: text counts, tokens, pairs, states of each layer, entropy, a constant."""
        text = (COUNTS, self.tokens, self.pairs) if self.tokens + self.pairs else ()
        found = (*text, *self.states, *((1,) if self.entropy else ()))
        return (*found, 1) if found else ()

    @property
    def states(self) -> tuple[int, ...]:
        """Widths of the states of each layer; nothing if none are wanted."""
        return (self.hidden,) * len(self.depths) if self.hidden else ()

    def layers(self, number: int) -> tuple[int, ...]:
        """Which layers these are of a model that has so many.

        >>> Wants(hidden=64, depths=(0, 0.5, 1)).layers(30)
        (0, 15, 30)
        """
        return tuple(round(depth * number) for depth in self.depths)

    @property
    def features(self) -> int:
        """Width of all features together."""
        return sum(self.blocks)


Belief = Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Estimate]
"""(state, places, key) -> what is believed of the success rates of these questions."""

NOTHING = Wants()
"""What most curricula want."""


class Curriculum(NamedTuple):
    """Which questions to roll out and which groups to train on, as pure functions.

    Attributes:
        init: (Facts) -> CurriculumState.
        propose: (state, collected: GroupStatistics, key) -> Proposal.  Asked again, with what has been collected,
            until the proposal is empty or `max_rounds` proposals have been served.
        admit: (state, collected, key) -> Admission.
        observe: (state, collected, step) -> state.  Everything paid for is remembered, admitted or not.
        feedback: (state, place, mask, GroupSignals, step) -> state.  Called after the update.
        max_rounds: most proposals in one step.
        max_samples: most rollouts that one group can reach in one step.
        train_rows: B, most rollouts that the admitted groups of one step can have together.
        wants: facts that it needs.
        estimate: (state, places, key) -> what it believes of their success rates; None if it has no such belief.
        suspicion: (state) -> probability that a question is a trap; None if it suspects none.
        least_samples: rollouts of a question without which it has nothing to choose by: 2 for what varies in a group.
        may_propose_fewer: whether the first proposal of a run may ask for fewer questions than are trained on.

    >>> from lilo_jax.curriculum import Lilo
    >>> Lilo(pool_ratio=4).build(pool_size=100, questions=8, samples=8).train_rows
    64
    """

    init: Callable[[Facts], CurriculumState]
    propose: Callable[[CurriculumState, GroupStatistics, Key[jax.Array, ""]], Proposal]
    admit: Callable[[CurriculumState, GroupStatistics, Key[jax.Array, ""]], Admission]
    observe: Callable[[CurriculumState, GroupStatistics, Int[Array, ""]], CurriculumState]
    feedback: Callable[
        [CurriculumState, Int[Array, "trained"], Bool[Array, "trained"], GroupSignals, Int[Array, ""]], CurriculumState
    ]
    max_rounds: int
    max_samples: int
    train_rows: int
    wants: Wants = NOTHING
    estimate: Belief | None = None
    suspicion: Callable[[CurriculumState], Float[Array, "pool"]] | None = None
    least_samples: int = 1
    may_propose_fewer: bool = False


class CurriculumSpec(Protocol):
    """A frozen dataclass of a curriculum's settings, with the function that builds it."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Builds the functions for a pool of `pool_size`, training on `questions` groups of `samples` rollouts."""
        ...
