"""The questions that are most likely to be partly solved now, by a filter over unsolved, partly solved and solved.

Source: Mao et al. 2026 (DPS, arXiv:2603.10887) and its release, whose settings for mathematics are the defaults.
Deviation: candidates are a random pool as in MoPPS, on whose code the release builds; there is no bonus for entropy.
"""

import dataclasses

from lilo_jax.bounds import Count, Positive, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.dynamics import three_states
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Dps:
    """Settings of DPS."""

    pool_ratio: Count = 32
    """candidates per question trained on"""
    prior: Positive = 1.0
    """Dirichlet count of every move between states"""
    decay: Share = 0.7
    """what stays of the counts of moves with every step"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes the `questions` most likely to be partly solved out of pool_ratio x as many, and trains on all."""
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=lambda state, places, key: state.memory["states"].ahead[places, 1],
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"states": three_states(prior=self.prior, decay=self.decay)},
        )
