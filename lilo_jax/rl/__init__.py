"""Reinforcement-learning algorithms, each a composition of named advantages, losses and aggregations.

To add one: a file with a frozen dataclass of its settings whose `build` returns an `Algorithm`, its test, and a line
in `ALGORITHMS`.  One of your own outside the package needs no line: `--algorithm package.module:ClassName`.
"""

from lilo_jax.rl.cispo import Cispo
from lilo_jax.rl.dapo import Dapo
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.gspo import Gspo
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
