"""The optimiser of policy and critic."""

import dataclasses
from typing import Any, Literal

import jax
import optax

from lilo_jax.bounds import NotNegative, Positive, Share, ShareBelowOne, Whole
from lilo_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up, a schedule, and global-norm clipping."""

    learning_rate: Positive = 5e-4
    """the peak of the schedule"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """what follows the warm-up"""
    warmup_steps: Whole = 10
    """optimiser steps of linear warm-up, the first of them at peak / (warmup_steps + 1)"""
    final_fraction: Share = 0.0
    """learning rate at the end of a linear or cosine schedule, as a share of the peak"""
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.99
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    decayed: Literal["matrices", "all"] = "matrices"
    """weights that decay: all but norms and biases, or all"""
    max_gradient_norm: Positive = 1.0

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of `total_steps` optimiser steps."""
        decay = max(total_steps - self.warmup_steps, 1)
        after = {
            "constant": optax.constant_schedule(self.learning_rate),
            "linear": optax.linear_schedule(self.learning_rate, self.learning_rate * self.final_fraction, decay),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, decay, self.final_fraction),
        }[self.schedule]
        warmup = optax.linear_schedule(
            self.learning_rate / (self.warmup_steps + 1), self.learning_rate, self.warmup_steps
        )
        schedule = optax.join_schedules([warmup, after], [self.warmup_steps])
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),
            optax.adamw(
                schedule,
                b1=self.beta1,
                b2=self.beta2,
                eps=self.epsilon,
                weight_decay=self.weight_decay,
                mask={"matrices": are_matrices, "all": None}[self.decayed],
            ),
        )


def are_matrices(params: PyTree) -> PyTree:
    """Which weights are neither a norm's nor a bias, by their names; of the structure of `params`."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        return not str(path[-1].key).endswith(("scale", "bias"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)
