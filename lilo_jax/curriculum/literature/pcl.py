"""Of a random pool, the questions whose value, learnt along the way, is nearest to one half.

Source: Gao et al. 2025 (PCL, arXiv:2510.01135): a value model trained on the mean rewards of the groups
chooses the B candidates of smallest |v(x) - 1/2|.
Deviation: the paper's value model is a language model of its own; here v(x) is a logistic regression on the policy's
hidden states.
"""

import dataclasses
import functools

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.estimators import recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import nearness


@dataclasses.dataclass(frozen=True)
class Pcl:
    """Settings of PCL."""

    pool_ratio: Count = 4
    """candidates per question trained on"""
    target: Share = 0.5
    """value that is sought"""
    hidden: Count = 32
    """width of the features of the hidden states"""
    window: Count = 1024
    """groups that the value learns from"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Takes the `questions` nearest to the target out of pool_ratio x as many, and trains on all."""
        wants = Wants(hidden=self.hidden)
        value = logistic_regression(width=wants.features, window=self.window)
        return compose(
            source=random_pool(pool_size, self.pool_ratio * questions),
            worth=of_belief(value, functools.partial(nearness, target=self.target)),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": value.tracker},
            wants=wants,
            belief=recalled(value),
        )
