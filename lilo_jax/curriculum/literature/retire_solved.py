"""A question is asked no more once it has been solved; the others come uniformly.

Source: open-instruct (Allen AI), `no_resampling_pass_rate`: a question whose group reached the threshold is left out.
Deviation: when fewer than a batch are left, retired questions come back at random, so that a step is never empty.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import PositiveShare
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import latest, recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.prices import retired
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class RetireSolved:
    """Settings of retiring."""

    threshold: PositiveShare = 1.0
    """success rate of its last group at which a question retires"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` of those that are not solved and trains on all."""
        believed = latest()
        recall = recalled(believed)

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            mean = recall(state, places, key).mean
            left = retired(jnp.zeros(places.shape), mean, state.attempts[places], threshold=self.threshold)
            return jnp.nan_to_num(left, nan=-1.0)  # retired ones come last, but they do come

        return compose(
            source=whole_pool(pool_size),
            worth=worth,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": believed.tracker},
        )
