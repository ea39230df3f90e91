"""Solved questions are reviewed: now and then a part of the batch is those that were solved longest ago.

A question whose rollouts were all right comes into a queue with probability `enter`.  Every `every` steps a `share` of
the batch is taken from its front instead of at random, before any rollout, so that a review costs nothing besides.

Source: ReMind (arXiv:2606.03087): probability, interval and share.
Deviation: how the queue is served could not be read; here it is first in, first out, and a question leaves it when it
is rolled out.  Of a batch below 1 / share questions one is reviewed.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Count, PositiveShare
from lilo_jax.curriculum.buffers import review_queue
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import mixture, top_k
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Remind:
    """Settings of ReMind."""

    enter: PositiveShare = 0.25
    """probability that a solved question comes into the queue"""
    every: Count = 5
    """steps from review to review"""
    share: PositiveShare = 0.1
    """of the batch that is reviewed"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` at random, in some steps a part of them from the queue, and trains on all."""

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> tuple[Float[Array, "questions"], Float[Array, "questions"]]:
            since = state.memory["queue"][places]
            reviewed = (since >= 0) & (state.step % self.every == 0)
            return jnp.where(reviewed, -since.astype(jnp.float32), jnp.nan), jnp.zeros(places.shape)

        return compose(
            source=whole_pool(pool_size),
            worth=worth,
            select=mixture(max(self.share, 1 / questions), top_k, top_k),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"queue": review_queue(self.enter)},
        )
