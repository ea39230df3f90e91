"""One training run with every option of the library.

    python -m experiments.train --curriculum lilo --algorithm ppo --output-dir runs/mine

The run begins with supervised fine-tuning on the task's demonstrations, in OUTPUT_DIR/sft, from random weights; with
--model.path it goes straight to reinforcement learning, unless --sft.steps says otherwise.  What else follows the model
where nothing is given is printed with its reason.
"""

from experiments.runner import run_single
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message


def config() -> Config:
    """The defaults: LILO with PPO on the generated chain task."""
    return Config()


if __name__ == "__main__":
    exit_with_message(lambda: run_single(config(), module="experiments.train", description=__doc__))
