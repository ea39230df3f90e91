"""Screen with a quarter of the rollouts, go on with the rest where the screening is mixed, and train on those.

Source: Zhang et al. 2025 (SPEED-RL, arXiv:2506.09016): 4 rollouts that screen, 12 that follow; here a
quarter of `samples` screens and the rest follows.
Deviation: the paper screens the next batch while it continues this one and keeps a queue of questions that passed; here
both rounds are of one step, and questions that passed beyond the batch are dropped.
"""

import dataclasses

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import everything, of_size, only_mixed
from lilo_jax.curriculum.rounds import screen_then_continue
from lilo_jax.curriculum.sources import random_pool


@dataclasses.dataclass(frozen=True)
class Speed:
    """Settings of SPEED."""

    pool_ratio: Count = 4
    """questions screened per question trained on"""
    screen: Share = 0.25
    """share of `samples` that screens: 4 of 16"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Screens pool_ratio x `questions` and completes the groups of at most `questions` that are mixed."""
        candidates, first = self.pool_ratio * questions, max(round(self.screen * samples), 2)
        if candidates > pool_size or first >= samples:
            raise ValueError(
                f"speed screens {candidates} questions of a pool of {pool_size} with {first} of {samples} rollouts; "
                f"change --curriculum.pool-ratio, --curriculum.screen or --rollout.samples"
            )
        return compose(
            source=random_pool(pool_size, candidates),
            rounds=screen_then_continue(candidates, first, samples, gate=only_mixed, keep=questions),
            gate=of_size(samples, everything),
            count=questions,
            rows=questions * samples,
        )
