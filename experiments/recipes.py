"""The published recipes by name: what a user types to repeat a run of LILO's paper, or of the papers it builds on.

    python -m experiments.recipes
    python -m experiments.recipes --recipe rho1b_math_ppo --print-config
    python -m experiments.recipes --recipe rho1b_gsm8k_vineppo --arm lilo --output-dir runs/gsm8k

The first command lists recipes and arms.  An arm is `uniform` (the published baseline), `lilo` (with the paper's number
of candidates for that recipe) or `frontier`; every option of `experiments.train` can be given besides, such as
`--update.microbatches 16`, `--mesh.fsdp 8` or `--model.compute-dtype bfloat16`, which are of the machine and change no
batch.

Sources: Rho-1B and DeepSeekMath: the configurations that McGill-NLP/VinePPO released with Kazemnejad et al. 2024;
Foster et al. 2025 (LILO, arXiv 2502.12272) left them as they are.  Qwen 2.5: those that sail-sg/understand-r1-zero
released with Liu et al. 2025 (Dr. GRPO), which LILO's GRPO runs follow.  Costs there: PPO and VinePPO about a week on
four L40S for each training set; GRPO about a day on eight H200 for each arm.

Deviation: their seed, 2746318213, would draw other numbers here and is left out; a prompt that does not fit into the
model's context is refused, theirs are cut.  LILO does not say which template, which of the two Qwen bases or how many
steps its GRPO had: 700 steps is our choice, and `--task.template qwen_math` is the other template.  None of them has
been run here: the weights could not be had where this was written.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from experiments.runner import print_config
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.errors import unknown_name
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import markdown
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.hendrycks_math import Math
from lilo_jax.tasks.orz57k import Orz57k
from lilo_jax.training.defaults import FIELDS, settle
from lilo_jax.training.run import run

FIVE_SETS = ("aime24", "amc23", "math500", "minerva", "olympiadbench")
"""What GRPO is evaluated on, the mean unweighted.  Deviation: Oat has 83 questions of AMC, this has the 40 of 2023."""


def vineppo_settings(steps: int) -> dict[str, Any]:
    """What all runs of VinePPO's release have in common, PPO's included, for a run of so many iterations.

    512 episodes an iteration, 64 rows a minibatch, two epochs: 16 optimiser steps; warm-up 3% of all of them.
    """
    optimizer_steps = 16 * steps
    return {
        "num_steps": steps,
        "rollout__questions": 64,
        "rollout__samples": 8,
        "rollout__max_new_tokens": 1024,
        "rollout__temperature": 0.6,
        "rollout__top_p": 0.9,
        "rollout__stop": ("\n\n\nProblem:",),
        "update__epochs": 2,
        "update__minibatches": 8,
        "update__max_ratio": 10.0,
        "optimizer": OptimizerConfig(
            learning_rate=1e-6, schedule="linear", warmup_steps=round(0.03 * optimizer_steps), beta2=0.999
        ),
        "evaluation__protocol": "vineppo",
        "evaluation__every": 40,
        "storage__save_every": 40,
    }


PPO = Ppo(
    clip_epsilon=0.2, value_clip=0.2, discount=1.0, gae_lambda=1.0, whitening="blocks", whiten_rows=16,
    kl="loss", kl_coefficient=1e-4, kl_clamp=10.0,
)  # fmt: skip
VINEPPO = VinePpo(rollouts=9, clip_epsilon=0.2, whitening="blocks", whiten_rows=16, kl_coefficient=1e-4, kl_clamp=10.0)
GRPO: dict[str, Any] = {
    "task": Orz57k(template="r1"),
    "num_steps": 700,
    "curriculum": Lilo(pool_ratio=4),
    "algorithm": Grpo(clip_epsilon=0.2, kl_coefficient=0.0, std_epsilon=1e-8),
    "rollout__questions": 128,
    "rollout__samples": 8,
    "rollout__max_new_tokens": 3000,
    "rollout__temperature": 1.0,
    "rollout__top_p": 1.0,
    "rollout__stop": ("</answer>",),
    "update__epochs": 1,
    "update__minibatches": 8,
    "optimizer": OptimizerConfig(learning_rate=1e-6, schedule="constant", warmup_steps=0, beta2=0.95),
    "evaluation__protocol": "oat",
    "evaluation__suites": FIVE_SETS,
    "evaluation__every": 16,
}
RHO_MATH, RHO_GSM8K = "realtreetune/rho-1b-sft-MATH", "realtreetune/rho-1b-sft-GSM8K"


def _recipe(model: str, task: Any, algorithm: Any, steps: int, pool_ratio: int = 4) -> Config:
    settings = vineppo_settings(steps) | {"task": task, "algorithm": algorithm, "curriculum": Lilo(pool_ratio)}
    return configuration.replace(_started_from(model), **settings)


def _started_from(model: str) -> Config:
    return configuration.replace(Config(), model__path=model, sft__steps=0)


RECIPES: Mapping[str, Config] = {
    "rho1b_math_ppo": _recipe(RHO_MATH, Math(), PPO, 1000),
    "rho1b_gsm8k_ppo": _recipe(RHO_GSM8K, Gsm8k(), PPO, 650),
    "rho1b_math_vineppo": _recipe(RHO_MATH, Math(), VINEPPO, 1000),
    "rho1b_gsm8k_vineppo": _recipe(RHO_GSM8K, Gsm8k(), dataclasses.replace(VINEPPO, max_steps=25), 650, pool_ratio=8),
    "qwen2_5_1_5b_orz57k_grpo": configuration.replace(_started_from("Qwen/Qwen2.5-1.5B"), **GRPO),
    "qwen2_5_math_1_5b_orz57k_grpo": configuration.replace(_started_from("Qwen/Qwen2.5-Math-1.5B"), **GRPO),
    "deepseekmath_7b_math_vineppo": _recipe("realtreetune/deepseekmath-7b-sft-MATH-v2", Math(), VINEPPO, 1000),
}
"""Name to the recipe with LILO."""

ARMS = ("uniform", "lilo", "frontier")
MACHINE = frozenset({"model.context_length", "update.pack", "update.microbatches"})
"""What may follow model and machine: no number of a recipe."""


def with_arm(config: Config, arm: str) -> Config:
    """The recipe under a rule; its LILO has the recipe's own number of candidates."""
    rules = {"uniform": Uniform(), "lilo": config.curriculum, "frontier": Frontier()}
    if arm not in rules:
        raise unknown_name("arm", arm, rules)
    return configuration.replace(config, curriculum=rules[arm])


def recipe(name: str, arm: str = "lilo") -> Config:
    """The config of a recipe by name."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return with_arm(RECIPES[name], arm)


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """The command line."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/recipe")
    recipe: str = ""
    """its name; empty: lists them"""
    arm: str = "lilo"
    """uniform, lilo or frontier"""


def table() -> str:
    """The recipes as Markdown: what a reader compares first."""
    columns = ("recipe", "algorithm", "steps", "questions x rollouts", "candidates", "learning rate", "start")
    rows = [
        [
            f"`{name}`",
            configuration.settings_name("algorithm", config.algorithm),
            str(config.num_steps),
            f"{config.rollout.questions} x {config.rollout.samples}",
            f"{config.curriculum.pool_ratio} x",
            f"{config.optimizer.learning_rate:g}",
            config.model.path,
        ]
        for name, config in RECIPES.items()
    ]
    return markdown(columns, rows, text_columns=2)


def main() -> None:
    """Lists the recipes, or prints or runs one."""
    args = sys.argv[1:]
    name = configuration.option_value(args, "--recipe")
    arm = configuration.option_value(args, "--arm") or "lilo"
    given = RecipeOptions(config=recipe(name, arm) if name else Config())
    options = configuration.parse(given, args, prog="python -m experiments.recipes", description=__doc__ or "")
    if not options.recipe:
        print(f"{table()}\n\narms: {', '.join(ARMS)}")
    elif not print_config(options.config, options.launch):
        published = frozenset(FIELDS) - MACHINE | configuration.given_fields(given, Options(), args)
        run(settle(options.config, published, options.launch.output_dir), options.launch, name=options.recipe)


if __name__ == "__main__":
    exit_with_message(main)
