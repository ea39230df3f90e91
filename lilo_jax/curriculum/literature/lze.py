"""Of the groups that were rolled out, those of the highest learning-zone energy are trained on.

    E = max(1 - p_0, floor) 4 p (1 - p) (1 + alpha min(2 |p - m|, 1))

p is the rate of the group, p_0 that of the question's first group, m a moving average before this one: of two questions
at the same p the one that started harder, or that moves, comes first.  A little Gumbel noise explores.

Source: LZE (arXiv:2605.17003), its release and the settings of its runs.  Its other half, leaving out what was solved
twice, is switched off in them.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from lilo_jax.bounds import NotNegative, PositiveShare, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import earliest, moving_average
from lilo_jax.curriculum.gates import only_mixed
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.statistics import is_mixed, learnability
from lilo_jax.types import Array, CurriculumState, GroupStatistics

LEAST_SPREAD = 0.01
"""Of the energies that noise is measured by."""


@dataclasses.dataclass(frozen=True)
class Lze:
    """Settings of LZE."""

    share: PositiveShare = 0.4
    """of the groups rolled out that is trained on"""
    floor: Share = 0.05
    """least weight of a question by how hard it was at first"""
    momentum: NotNegative = 0.3
    """alpha: what a moving success rate adds"""
    rate: PositiveShare = 0.1
    """of the moving average"""
    noise: NotNegative = 0.05
    """scale of the Gumbel noise, as a share of how far energies are apart"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out `questions` / share and trains on the `questions` of highest energy."""
        count = math.ceil(questions / self.share - 1e-9)
        if count > pool_size:
            raise ValueError(
                f"lze rolls out {count} questions a step, and the pool has {pool_size}; raise --curriculum.share"
            )
        return compose(
            source=random_pool(pool_size, count),
            rounds=once(count, samples),
            gate=only_mixed,
            merit=self.energy,
            count=questions,
            rows=questions * samples,
            remembers={"first": earliest().tracker, "average": moving_average(self.rate, math.nan).tracker},
            least_samples=2,
        )

    def energy(
        self, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Float[Array, "groups"]:
        """E of each group, and noise."""
        place = jnp.maximum(collected.place, 0)
        rate = collected.successes / jnp.maximum(collected.attempts, 1)
        first, average = (state.memory[name][place] for name in ("first", "average"))
        first, average = (jnp.where(jnp.isnan(x), rate, x) for x in (first, average))
        moving = 1 + self.momentum * jnp.minimum(2 * jnp.abs(rate - average), 1)
        energy = jnp.maximum(1 - first, self.floor) * 4 * learnability(collected.successes, collected.attempts) * moving
        mixed = is_mixed(collected)
        highest, lowest = (f(jnp.where(mixed, energy, end)) for f, end in ((jnp.max, -jnp.inf), (jnp.min, jnp.inf)))
        scale = self.noise * jnp.maximum(highest - lowest, LEAST_SPREAD)
        return energy + scale * jax.random.gumbel(key, energy.shape)
