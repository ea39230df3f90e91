"""LILO without extra rollouts: a few for each candidate, then more for those whose success has varied.

Every candidate gets `first` rollouts; then, until questions x samples are used, candidates are drawn in proportion to
p(1 - p) of what they have shown and get `more`.  All rollouts are trained on.

Source: Foster et al. 2025 (LILO, arXiv:2502.12272), algorithm 3 in appendix D.1, which gives no number of candidates.
Deviation: the paper draws one candidate at a time; here each round draws several at once, without replacement, and so
a candidate gets `more` rollouts once a round.  There are `rounds` of them, or as many as it takes for none to draw more
than half of the candidates, so that what they have shown can decide.  Where all are worth 0 the draw is uniform.  A
rest of the budget that is less than `more` rollouts is not spent.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Key

from lilo_jax.bounds import Count, NotNegative
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import successive
from lilo_jax.curriculum.selectors import gumbel_top_k
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.statistics import learnability
from lilo_jax.types import Array, GroupStatistics


@dataclasses.dataclass(frozen=True)
class LiloSequential:
    """Settings of the sequential LILO."""

    pool_ratio: Count = 2
    """|D| / |B|: candidates per question's worth of rollouts"""
    first: Count = 2
    """rollouts of every candidate"""
    more: Count = 2
    """rollouts that a draw adds"""
    rounds: Count = 4
    """draws are made in so many rounds, or in more if one would draw over half of the candidates"""
    prior: NotNegative = 0.0
    """right and wrong rollouts that every candidate is said to have shown besides; above 0 one whose first rollouts
    agree can still be drawn, 0: as published"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Spends questions x samples rollouts on pool_ratio x `questions` candidates."""
        candidates, budget = self.pool_ratio * questions, questions * samples
        if candidates > pool_size or self.first * candidates > budget:
            raise ValueError(
                f"lilo_sequential gives {self.first} rollouts to each of {candidates} candidates out of a pool of "
                f"{pool_size} and {budget} rollouts; change --curriculum.pool-ratio or --curriculum.first"
            )
        draws = (budget - self.first * candidates) // self.more
        rounds = max(self.rounds, -(-2 * draws // candidates))
        a_round = -(-draws // rounds)

        def go_on(collected: GroupStatistics, key: Key[jax.Array, ""]) -> Bool[Array, "groups"]:
            left = (budget - jnp.sum(collected.rollouts)) // self.more
            groups, mask = gumbel_top_k(self._shown(collected), key, k=a_round)
            drawn = mask & (jnp.arange(a_round) < left)
            return jnp.zeros(collected.place.shape, bool).at[groups].max(drawn)

        return compose(
            source=random_pool(pool_size, candidates),
            rounds=successive(candidates, self.first, self.more, most=1 + rounds, go_on=go_on),
            gate=everything,
            count=candidates,
            rows=budget,
        )

    def _shown(self, collected: GroupStatistics) -> Float[Array, "groups"]:
        """p(1 - p) of what each group has shown, and of the prior; NaN where nothing was asked."""
        asked = jnp.where(collected.attempts > 0, collected.attempts + 2 * self.prior, 0)
        return learnability(collected.successes + self.prior, asked)
