"""Prioritised sampling: questions come in proportion to how often they failed.

Source: Kimi Team 2025 (Kimi k1.5, arXiv:2501.12599): w_i = 1 - s_i with the success rate tracked over training.
Deviation: a question that was never seen has w_i = 1; the paper also orders by labels of difficulty, which are not
used.
"""

import dataclasses

from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import frequency, recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import gumbel_top_k
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.curriculum.values import failure


@dataclasses.dataclass(frozen=True)
class Kimi:
    """Settings of prioritised sampling: none."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` in proportion to 1 - success rate and trains on all."""
        believed = frequency()
        return compose(
            source=whole_pool(pool_size),
            worth=of_belief(believed, failure, unknown=1.0),
            select=gumbel_top_k,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": believed.tracker},
            belief=recalled(believed),
        )
