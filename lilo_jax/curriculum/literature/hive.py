"""Questions that history leaves in the middle, and of these the ones whose prompts the policy is unsure of.

Of a random pool come first the questions whose last group was mixed, or that had none, and whose prompt entropy is at
least the median of the pool; then the others of mixed groups; then the rest.

Source: HIVE (arXiv:2603.25184): a filter by history, then prompt entropies against a running median.
Deviation: the filter by history is known in outline only, and that of response entropies is left out; entropies are
those of the last refresh, not of the moment; the median is of the step's own candidates; where too few pass, others
fill the batch up.  The size of the pool could not be read.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Count
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.estimators import latest
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Hive:
    """Settings of HIVE."""

    pool_ratio: Count = 4
    """candidates per question trained on"""
    refresh_every: Count = 10
    """steps after which prompt entropies are computed anew, for all questions"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes `questions` out of pool_ratio x as many and trains on all."""
        last, wants = latest(), Wants(entropy=True, refresh_every=self.refresh_every)

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            entropy, rate = state.facts.wanted_features[places, 0], state.memory["last"][places]
            middle = jnp.isnan(rate) | ((rate > 0) & (rate < 1))
            return middle * (1.0 + (entropy >= jnp.median(entropy)))

        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=worth,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"last": last.tracker},
            wants=wants,
        )
