"""RL post-training of language models in JAX that chooses which questions to train on."""

from lilo_jax.config import Config, Launch
from lilo_jax.training.run import Result, run

__all__ = ["Config", "Launch", "Result", "run"]
__version__ = "0.1.0"
