"""Questions by a sharp softmax around a predicted success rate of one half.

    P(i) in proportion to exp(-|m_i - 1/2| / temperature),   m_i predicted from the policy's hidden states

Source: Sun et al. 2025 (DOTS, arXiv:2506.05316).
Deviation: the paper rolls out a reference set of 256 questions every few steps and attends to it by frozen embeddings;
here a logistic regression on the policy's own hidden states learns from the run's groups, which costs no rollouts.  Its
replay of old rollouts is not a curriculum's.
"""

import dataclasses

import jax.numpy as jnp

from lilo_jax.bounds import Count, Positive
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.estimators import recalled
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.selectors import softmax
from lilo_jax.curriculum.sources import whole_pool


@dataclasses.dataclass(frozen=True)
class Dots:
    """Settings of DOTS."""

    temperature: Positive = 0.001
    """tau: of the softmax"""
    hidden: Count = 32
    """width of the features of the hidden states"""
    window: Count = 1024
    """groups that the prediction learns from"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` of the whole pool and trains on all."""
        wants = Wants(hidden=self.hidden)
        predictor = logistic_regression(width=wants.features, window=self.window)
        return compose(
            source=whole_pool(pool_size),
            worth=of_belief(predictor, lambda estimate: -jnp.abs(estimate.mean - 0.5)),
            select=softmax(self.temperature),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": predictor.tracker},
            wants=wants,
            belief=recalled(predictor),
        )
