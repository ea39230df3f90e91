"""Groups of enough variance are trained on; the others are replaced by questions that had it before.

A second round takes as many questions as were dropped from a bank of those whose smoothed variance is highest.

Source: Jiang et al. 2025 (VCRL, arXiv:2509.19803): variance over the largest that is possible, a threshold,
and a memory bank.
Deviation: the threshold is constant over the run; the bank holds every question that passed, not a bounded number; the
groups of the bank are trained on whatever they turn out to be, as rollouts of theirs are fresh.
"""

import dataclasses

from lilo_jax.bounds import PositiveShare, ShareBelowOne
from lilo_jax.curriculum.buffers import variance_bank
from lilo_jax.curriculum.composition import choice, compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.gates import either, everything, largest_variance, least_variance, of_round
from lilo_jax.curriculum.rounds import top_up
from lilo_jax.curriculum.selectors import top_k
from lilo_jax.curriculum.sources import random_pool, whole_pool


@dataclasses.dataclass(frozen=True)
class Vcrl:
    """Settings of VCRL."""

    threshold: PositiveShare = 0.8
    """kappa: least variance over the largest possible that is trained on"""
    momentum: ShareBelowOne = 0.9
    """of the priority of a question in the bank"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out `questions`, then as many of the bank as were dropped."""
        gate, pool = least_variance(self.threshold, samples), whole_pool(pool_size)
        of_bank = choice(pool, lambda state, places, key: state.memory["bank"][places], top_k)
        return compose(
            source=random_pool(pool_size, questions),
            rounds=top_up(questions, samples, gate=gate, needed=questions, most=2, later=of_bank),
            gate=either(gate, of_round(1, everything)),
            count=questions,
            rows=questions * samples,
            least_samples=2,
            remembers={"bank": variance_bank(self.momentum, self.threshold, largest_variance(samples))},
        )
