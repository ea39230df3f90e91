"""Thompson draws near one half from a posterior that counts predictions for questions that were not rolled out.

Source: Shen et al. 2025 (BOTS, arXiv:2510.26374); lambda and rho of its release.
Deviation: the paper predicts by interpolating between the pass rates of a weak and a strong reference model; here a
logistic regression on features of the questions' text predicts, learning from the run's own groups.
"""

import dataclasses
import functools

from lilo_jax.bounds import Count, Share
from lilo_jax.curriculum.composition import compose, of_belief
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.curriculum.dynamics import blended
from lilo_jax.curriculum.estimators import recalled, thompson
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.sources import whole_pool
from lilo_jax.curriculum.values import nearness


@dataclasses.dataclass(frozen=True)
class Bots:
    """Settings of BOTS."""

    forget: Share = 0.1
    """lambda: share of the counts that is replaced by the prior each step"""
    share: Share = 0.1
    """rho: what a predicted rollout counts"""
    target: Share = 0.5
    """success rate that is sought"""
    tokens: Count = 32
    """commonest tokens that the prediction reads"""
    pairs: Count = 32
    """commonest pairs of neighbouring tokens that it reads"""
    window: Count = 1024
    """groups that the prediction learns from"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Draws `questions` of the whole pool and trains on all."""
        wants = Wants(tokens=self.tokens, pairs=self.pairs)
        predictor = logistic_regression(width=wants.features, window=self.window)
        posterior = blended(predictor, forget=self.forget, share=self.share, samples=samples)
        return compose(
            source=whole_pool(pool_size),
            worth=of_belief(thompson(posterior), functools.partial(nearness, target=self.target)),
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"success": posterior.tracker},
            wants=wants,
            belief=recalled(posterior),
        )
