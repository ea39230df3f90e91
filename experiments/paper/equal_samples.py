"""LILO beside a baseline that may generate as much.

Claim: none in the paper, which compares at equal steps, LILO having generated four times as much.
Source: a gap of Foster et al. 2025, seen by its readers.
Axes: uniform, and uniform with batches of 4 times as many questions, against LILO; in steps, tokens and seconds.
Expected: by the paper's own numbers PPO with LILO needs 1.6 to 2.1 times more samples than uniform, VinePPO a third.
Cost: paper: four times item 1; tiny: minutes on two cores.
Command: python -m experiments.paper.equal_samples --preset tiny
Last run: tiny, no claim; seeds 301 to 302, 2026-11-30, commit bba0d1c:
    ppo, final accuracy, lilo less uniform_wide: +0.020 (-0.001..+0.041) (2)
    ppo, steps to the final accuracy of uniform, lilo: 1.99 times less (1.67..2.37) (2/2)
    ppo, generated tokens to the final accuracy of uniform, lilo: 1.98 times more (1.67..2.34) (2/2)
    ppo, seconds to the final accuracy of uniform, lilo: 1.74 times less (1.48..2.03) (2/2)
    ppo, steps to the final accuracy of uniform_wide, lilo: 1.25 times less (never..1.25) in the median seed, not
        reached on all (1/2)
    ppo, generated tokens to the final accuracy of uniform_wide, lilo: 1.25 times less (never..1.25) in the median seed,
        not reached on all (1/2)
    ppo, seconds to the final accuracy of uniform_wide, lilo: 5.29 times less (never..5.29) in the median seed, not
        reached on all (1/2)
    vineppo, final accuracy, lilo less uniform_wide: -0.052 (-0.067..-0.037) (2)
    and 6 more: experiments/README.md
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message

BUDGETS = ("steps", "generated_tokens", "seconds")


def arms(config: Config) -> dict[str, Config]:
    """Uniform, LILO, and uniform with LILO's candidates as its batch."""
    found = uniform_and_lilo(config)
    wide = configuration.replace(found["uniform"], rollout__questions=4 * config.rollout.questions)
    return found | {"uniform_wide": wide}


STUDY = Study(
    id=27,
    module="experiments.paper.equal_samples",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "vineppo": tiny("vineppo")},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo", "rho1b_gsm8k_vineppo", "qwen2_5_1_5b_orz57k_grpo"),
    arms=arms,
    measures=(
        better("lilo", than="uniform_wide", claim="none"),
        *(faster("lilo", budget, claim="none") for budget in BUDGETS),
        *(faster("lilo", budget, than="uniform_wide", claim="none") for budget in BUDGETS),
    ),
    seeds=2,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
