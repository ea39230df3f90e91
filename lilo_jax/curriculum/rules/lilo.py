"""LILO: roll out more questions than needed, train on those whose success varies most.

Source: Foster et al. 2025 (LILO, arXiv:2502.12272), algorithm 2, in the regime N_train = N_L: the rollouts that
judge a question are the ones trained on.  Groups of zero variance are admitted when too few are mixed, as published:
the batch keeps its size.
"""

import dataclasses

from lilo_jax.bounds import Count
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import most_variance
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Lilo:
    """Settings of LILO."""

    pool_ratio: Count = 4
    """|D| / |B|: candidates rolled out per question trained on"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out pool_ratio x `questions` candidates and admits the `questions` most learnable."""
        candidates = self.pool_ratio * questions
        if candidates > pool_size:
            raise ValueError(
                f"lilo draws pool_ratio x questions = {self.pool_ratio} x {questions} = {candidates} candidates a step "
                f"from a pool of {pool_size}; change --curriculum.pool-ratio"
            )
        return compose(
            source=random_pool(pool_size, candidates),
            rounds=once(candidates, samples),
            gate=most_variance,
            count=questions,
            rows=questions * samples,
            least_samples=2,
        )
