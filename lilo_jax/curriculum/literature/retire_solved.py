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

        def score(
            state: CurriculumState, ids: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            mean = recall(state, ids, key).mean
            left = retired(jnp.zeros(ids.shape), mean, state.attempts[ids], threshold=self.threshold)
            return jnp.nan_to_num(left, nan=-1.0)  # retired ones come last, but they do come

        return compose(
            source=whole_pool(pool_size),
            score=score,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": believed.tracker},
        )
