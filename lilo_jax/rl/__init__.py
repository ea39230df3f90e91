"""Reinforcement-learning algorithms, each a composition of named advantages, losses and aggregations.

To add one: a file with a frozen dataclass of its settings whose `build` returns an `Algorithm`, its test, and a line
in `ALGORITHMS`.  One of your own outside the package needs no line: `--algorithm package.module:ClassName`; what it
is made of stands here in one place.
"""

from lilo_jax.rl.advantages import group_centred, group_normalized, leave_one_out
from lilo_jax.rl.aggregations import constant_length, sequence_mean, sequence_sum, token_mean
from lilo_jax.rl.cispo import Cispo
from lilo_jax.rl.dapo import Dapo
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.gspo import Gspo
from lilo_jax.rl.losses import (
    clipped_surrogate,
    clipped_weight_loss,
    dual_clipped_surrogate,
    sequence_ratio,
    token_ratio,
)
from lilo_jax.rl.policy_gradient import by_group, policy_gradient
from lilo_jax.rl.policy_loss import on_tokens
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.reinforce import Reinforce
from lilo_jax.rl.reinforce_pp import ReinforcePp
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.vineppo import VinePpo

ALGORITHMS = {
    "ppo": Ppo,
    "vineppo": VinePpo,
    "rloo": Rloo,
    "grpo": Grpo,
    "dr_grpo": DrGrpo,
    "reinforce": Reinforce,
    "reinforce_pp": ReinforcePp,
    "dapo": Dapo,
    "gspo": Gspo,
    "cispo": Cispo,
}

__all__ = [
    "ALGORITHMS",
    "by_group",
    "clipped_surrogate",
    "clipped_weight_loss",
    "constant_length",
    "dual_clipped_surrogate",
    "group_centred",
    "group_normalized",
    "leave_one_out",
    "on_tokens",
    "policy_gradient",
    "sequence_mean",
    "sequence_ratio",
    "sequence_sum",
    "token_mean",
    "token_ratio",
]
