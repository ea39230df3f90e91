"""Half of the batch from the questions just within the policy's ability, half from those just above it.

Source: Kong et al. 2025 (CDAS, arXiv:2505.17652): difficulty as mean surprise, ability falling with it, and a symmetric
choice around it; a side that is short is filled up from the other, as in its release.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.dynamics import rasch
from lilo_jax.curriculum.estimators import recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import mixture, top_k
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Cdas:
    """Settings of CDAS: none."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes the `questions` nearest to the ability, half from each side, and trains on all."""
        ratings = rasch()

        def sides(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> tuple[Float[Array, "questions"], Float[Array, "questions"]]:
            above = state.memory["success"].difficulty[places] - state.memory["success"].ability
            distance = jnp.abs(above)
            far = 1 + jnp.max(distance)  # the other side comes after all of one's own, its nearest first
            return jnp.where(above <= 0, -distance, -distance - far), jnp.where(above > 0, -distance, -distance - far)

        return compose(
            source=whole_pool(pool_size),
            worth=sides,
            select=mixture(0.5, top_k, top_k),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": ratings.tracker},
            belief=recalled(ratings),
        )
