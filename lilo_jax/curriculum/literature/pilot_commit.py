"""Pilots of a quarter of the rollouts; of the questions in a band of success the most varied are completed.

What passes beyond the batch waits for later steps, at most `age` of them; what was all right is asked no more.

Source: Pilot-Commit (arXiv:2605.26606), its release: 32 pilots of 128 rollouts, 3 questions screened for each trained.
Deviation: the release completes a group in the step after its pilots, together with new pilots, and trains on both
steps' rollouts; a step here trains on its own rollouts alone.  So groups are completed in the step of their pilots as
far as these suffice, and a question that has waited is rolled out in full.  Solved questions come back, at random, when
no others are left.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.bounds import Count, PositiveShare, Share, Whole
from lilo_jax.curriculum.buffers import not_waiting, waiting
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.estimators import latest
from lilo_jax.curriculum.gates import everything, of_size, within
from lilo_jax.curriculum.rounds import pilot_then_commit
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class PilotCommit:
    """Settings of Pilot-Commit."""

    pool_ratio: Count = 3
    """questions screened a round per question trained on"""
    pilot: Share = 0.25
    """share of `samples` that screens: 32 of 128"""
    low: Share = 0.125
    """least success rate that passes"""
    high: Share = 0.75
    """largest success rate that passes"""
    age: Whole = 4
    """most steps that a question waits"""
    solved: PositiveShare = 1.0
    """success rate of its last group at which a question is asked no more"""
    most_rounds: Count = 10
    """rounds at most; the step then trains on what it has"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Screens pool_ratio x `questions` a round and completes `questions` groups."""
        candidates, first = self.pool_ratio * questions, max(round(self.pilot * samples), 2)
        if candidates > pool_size or first >= samples or self.low > self.high:
            raise ValueError(
                f"pilot_commit screens {candidates} questions of a pool of {pool_size} with {first} of {samples} "
                f"rollouts, and passes rates in [{self.low}, {self.high}]; change --curriculum.pool-ratio, "
                f"--curriculum.pilot, --curriculum.low, --curriculum.high or --rollout.samples"
            )
        tracker, ready = waiting(within(self.low, self.high), screen=first, age=self.age)
        last = latest()

        def worth(
            state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
        ) -> Float[Array, "questions"]:
            return jnp.where(state.memory["last"][places] >= self.solved, -1.0, 0.0)  # solved ones come last

        return compose(
            source=not_waiting(whole_pool(pool_size), ready),
            worth=worth,
            rounds=pilot_then_commit(candidates, first, samples, ready=ready, count=questions, most=self.most_rounds),
            gate=of_size(samples, everything),
            count=questions,
            rows=questions * samples,
            remembers={"last": last.tracker, "waiting": tracker},
        )
