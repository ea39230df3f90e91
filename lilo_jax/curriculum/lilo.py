"""LILO: roll out more questions than needed, train on those whose success varies most.

Source: Foster et al. 2025 (LILO, arXiv:2502.12272), algorithm 2, in the regime N_train = N_L: the rollouts that
score a question are the ones trained on.
"""

import dataclasses
import functools

from lilo_jax.curriculum.selection import top_k
from lilo_jax.curriculum.statistics import initial_state, learnability, remember
from lilo_jax.curriculum.uniform import ignore_feedback, propose_uniform
from lilo_jax.types import Admission, Array, Curriculum, CurriculumState, GroupStatistics


@dataclasses.dataclass(frozen=True)
class Lilo:
    """Settings of LILO."""

    pool_ratio: int = 4
    """|D| / |B|: candidates rolled out per question trained on"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out pool_ratio x `questions` candidates and admits the `questions` most learnable."""
        candidates = self.pool_ratio * questions
        if not questions <= candidates <= pool_size:
            raise ValueError(
                f"lilo draws pool_ratio x questions = {self.pool_ratio} x {questions} = {candidates} candidates a step "
                f"and needs between {questions} and the pool's {pool_size}; change --curriculum.pool-ratio"
            )
        return Curriculum(
            init=functools.partial(initial_state, pool_size),
            propose=functools.partial(propose_uniform, pool_size=pool_size, count=candidates, samples=samples),
            admit=functools.partial(admit_most_learnable, count=questions),
            observe=remember,
            feedback=ignore_feedback,
            max_rounds=1,
            max_samples=samples,
            train_rows=questions * samples,
        )


def admit_most_learnable(state: CurriculumState, collected: GroupStatistics, key: Array, *, count: int) -> Admission:
    """The `count` groups of highest p(1 - p); ties are broken by `key`, groups never measured are not admitted.

    Groups of zero variance are admitted when too few are mixed, as published: the batch keeps its size.
    """
    del state
    scores = learnability(collected.successes, collected.attempts)
    indices, mask = top_k(scores, key, k=count)
    return Admission(indices=indices, mask=mask)
