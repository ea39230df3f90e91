"""Training on all four times as many samples, instead of on the best quarter.

Claim: who trains on everything that LILO generates can rival it per iteration, but needs much longer.
Source: Foster et al. 2025, figure 12; all six forms from the first author's fork of VinePPO.
Axes: 4 times as many questions, or rollouts per question; naively (4 times the optimiser steps), with a quarter of the
    learning rate, or with minibatches of 4 times the size; against LILO, which generates as much and trains on a
    quarter.
Expected: accuracy near LILO's at best; several times the seconds of training.
Cost: paper: about four times item 1 for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.train_on_everything --preset tiny
Last run: tiny, open; seeds 301 to 302, 2026-11-30, commit bba0d1c:
    final accuracy, lilo less questions_naive: +0.013 (-0.032..+0.058) (2)
    final accuracy, lilo less questions_low_rate: +0.035 (+0.019..+0.050) (2)
    final accuracy, lilo less questions_wide_batch: +0.020 (-0.001..+0.041) (2)
    final accuracy, lilo less rollouts_naive: +0.067 (+0.054..+0.079) (2)
    final accuracy, lilo less rollouts_low_rate: +0.078 (+0.052..+0.103) (2)
    final accuracy, lilo less rollouts_wide_batch: +0.016 (-0.001..+0.032) (2)
    trained tokens to the final accuracy of questions_naive, lilo: 5.39 times less (never..5.39) in the median seed, not
        reached on all (1/2)
    trained tokens to the final accuracy of questions_low_rate, lilo: 4.89 times less (4.65..5.14) (2/2)
    and 4 more: experiments/README.md
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message

WIDE = ("questions", "rollouts")
FORMS = ("naive", "low_rate", "wide_batch")


def arms(config: Config) -> dict[str, Config]:
    """Uniform, LILO, and two ways to have four times as much x three ways to train on it."""
    found = uniform_and_lilo(config)
    batch, rate = config.rollout, config.optimizer.learning_rate
    wide = {
        "questions": configuration.replace(found["uniform"], rollout__questions=4 * batch.questions),
        "rollouts": configuration.replace(found["uniform"], rollout__samples=4 * batch.samples),
    }
    for name, more in wide.items():
        naive = configuration.replace(more, update__minibatches=4 * config.update.minibatches)
        found[f"{name}_naive"] = naive
        found[f"{name}_low_rate"] = configuration.replace(naive, optimizer__learning_rate=rate / 4)
        found[f"{name}_wide_batch"] = more
    return found


STUDY = Study(
    id=10,
    module="experiments.paper.train_on_everything",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=arms,
    measures=(
        *(better("lilo", than=f"{wide}_{form}", claim="none") for wide in WIDE for form in FORMS),
        *(faster("lilo", "trained_tokens", than=f"{wide}_{form}") for wide in WIDE for form in FORMS),
    ),
    seeds=2,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
