"""Prioritised level replay: questions come again by the rank of the advantages that they last gave, and by staleness.

    P = (1 - rho) rank(S)^(-1 / beta) / Z + rho (now - last seen) / Z'   over questions that were trained on,

and a question that was never seen is drawn, uniformly, with probability 1 - `replay`, while there is one.

Source: Jiang et al. 2021 (PLR, arXiv:2010.03934); its score, the L1 value loss, is the mean size of
the generalised advantages, which is what the update reports.
Deviation: the paper's buffer holds a bounded number of levels, this one the pool; an algorithm without a critic reports
its own advantages.  A batch is drawn without replacement.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Positive, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.controllers import last_signal
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import gumbel_top_k, rank_weights
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Plr:
    """Settings of PLR."""

    beta: Positive = 0.1
    """temperature of the ranks"""
    staleness: Share = 0.1
    """rho: share of the draw that goes by staleness"""
    replay: Share = 0.5
    """probability of a question that was seen before"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` by the replay distribution and trains on all."""

        def probabilities(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            seen = state.last_seen[places] >= 0
            by_worth = rank_weights(state.memory["loss"][places], key, beta=self.beta)
            age = jnp.where(seen, state.step - state.last_seen[places], 0).astype(jnp.float32)
            by_age = age / jnp.maximum(jnp.sum(age), 1)
            new = ~seen / jnp.maximum(jnp.sum(~seen), 1)
            replay = jnp.where(jnp.all(seen), 1.0, jnp.where(jnp.any(seen), self.replay, 0.0))
            return replay * ((1 - self.staleness) * by_worth + self.staleness * by_age) + (1 - replay) * new

        return compose(
            source=whole_pool(pool_size),
            worth=probabilities,
            select=gumbel_top_k,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"loss": last_signal()},
        )
