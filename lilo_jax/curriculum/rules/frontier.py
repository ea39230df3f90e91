"""Frontier: questions that the policy is about to learn, predicted from how it reads them, different from each other.

Nothing is rolled out only to choose.  Of a random part of the pool, a batch is taken that is

    likely to teach     w = m (1 - m)^2 (1 - q) d,  m the believed success rate, q the probability that it is a trap,
                        d below 1 while a question that was missed again and again is not due
    diverse             the set that greedily maximises sum log w_i + log det(cosines of the features)

and all of it is trained on.  What is believed:

    reading    online logistic regressions on the question's features, the policy's own hidden states over the prompt,
               share what each group showed with the questions that read alike, so that a question need not have been
               seen; they forget at different rates, and the better foretold, the more is one believed
    past       the question's own groups move it up or down from there, by as much as the evidence says that questions
               differ from others that read alike

m (1 - m)^2, the gain in success of a policy-gradient step, is highest at 1/3, below the 1/2 of p(1 - p): beliefs lag
behind a policy that gets better.  Diversity is what p(1 - p) leaves out: groups at the same frontier of the same skill
say the same, and a batch of them is worth less than their number.

Source: this project; docs/results/curricula.md says how it was found.  Its parts: Li et al. 2025 (Knapsack RL,
arXiv:2509.25849) for the value, Kulesza and Taskar 2012 for diversity.
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Count, ShareBelowOne, Whole
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.controllers import misses, rested
from lilo_jax.curriculum.estimators import recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.histories import foretold, offsets, unremembered
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import diverse
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.traps import trap_detector, trap_probability
from lilo_jax.curriculum.values import hard_variance
from lilo_jax.types import Array, CurriculumState

DEPTHS = (0.0, 0.5, 1.0)
"""Layers whose states are features: the embeddings, the middle one, the last."""
DECAYS = (0.8, 0.9, 0.95, 0.98)
"""Weights of a group in the regressions per step of its age, one for each."""
SPREADS = (0.5, 1.0, 2.0)
"""By how much questions may differ from others that read alike, in log-odds, besides not at all."""

PATIENCE = 4
"""Visits in a row at which a question may be missed; after each one more it waits twice as long, an epoch at most."""


@dataclasses.dataclass(frozen=True)
class Frontier:
    """Settings of frontier."""

    pool_ratio: Count = 64
    """random questions per question trained on, among which the batch is chosen"""
    tokens: Whole = 0
    """commonest tokens of the prompts that are features"""
    pairs: Whole = 0
    """commonest pairs of neighbouring tokens that are features"""
    hidden: Whole = 64
    """width of the features that are the policy's mean state over the prompt, after each of three layers; 0: none"""
    refresh_every: Count = 50
    """steps after which hidden states are computed anew"""
    window: Count = 24
    """steps whose groups the regressions learn from, 1024 groups at most"""
    traps: ShareBelowOne = 0.05
    """share of traps that is expected: coins for graders, wrong keys; 0 suspects failing graders alone"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """One round of `questions` groups, all trained on."""
        return compose(**self.parts(pool_size=pool_size, questions=questions, samples=samples))

    def parts(self, *, pool_size: int, questions: int, samples: int) -> dict[str, Any]:
        """What `compose` makes the rule of, so that a study can put another part in the place of one."""
        if not any((self.tokens, self.pairs, self.hidden)):
            raise ValueError(
                "frontier needs features: --curriculum.tokens, --curriculum.pairs or --curriculum.hidden above 0"
            )
        wants = Wants(
            tokens=self.tokens,
            pairs=self.pairs,
            hidden=self.hidden,
            depths=DEPTHS,
            refresh_every=self.refresh_every,
        )
        window = min(self.window * questions, 1024)
        reading = foretold([logistic_regression(width=wants.features, window=window, decay=d) for d in DECAYS])
        read = recalled(reading, "reading")
        belief = foretold([unremembered(read), *(offsets(read, spread=spread) for spread in SPREADS)])
        value = of_belief(belief, hard_variance)

        def suspected(state: CurriculumState, places: Int[Array, "questions"]) -> Float[Array, "questions"]:
            return trap_probability(state.memory["traps"], state, places, prior=self.traps)

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> tuple[Float[Array, "questions"], Float[Array, "questions features"]]:
            clean = 1 - suspected(state, places)
            due = rested(state.memory["misses"], state, places, patience=PATIENCE, longest=pool_size / questions)
            # The constant would make all alike.
            return value(state, places, key) * clean * due, state.facts.wanted_features[places, :-1]

        return {
            "source": random_pool(pool_size, self.pool_ratio * questions),
            "worth": worth,
            "select": diverse,
            "rounds": once(questions, samples),
            "gate": everything,
            "count": questions,
            # A coin that was asked often is at 1/2 by its own past: traps are told by what was read of them.
            "remembers": {
                "reading": reading.tracker,
                "success": belief.tracker,
                "traps": trap_detector(read),
                "misses": misses(),
            },
            "wants": wants,
            "belief": recalled(belief),
            "suspicion": suspected,
        }
