"""Reinforcement-learning algorithms, each a composition of named advantages and losses.

To add one: a file with a frozen dataclass of its settings whose `build` returns an `Algorithm`, its test, and a line
in `ALGORITHMS`.  One of your own outside the package needs no line: `--algorithm package.module:ClassName`.
"""

from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.rloo import Rloo

ALGORITHMS = {
    "ppo": Ppo,
    "rloo": Rloo,
    "grpo": Grpo,
}
