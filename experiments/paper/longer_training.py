"""Three times as many iterations.

Claim: LILO's lead is not that of a faster start only: it is still there after three times as many iterations.
Source: the first author's fork of VinePPO (3000 iterations on MATH, 2025 on GSM8K, warm-up 1%).
Axes: uniform and LILO, three times as long.
Expected: no numbers.
Cost: paper: three times item 1; tiny: minutes on two cores.
Command: python -m experiments.paper.longer_training --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    final accuracy, lilo less uniform: +0.089 [+0.024, +0.153] (5)
    steps to the final accuracy of uniform, lilo: 2.00 times less [1.82, 2.20] (5/5)
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message


def longer(config: Config) -> Config:
    """Three times as many steps, with the same number of warm-up steps: 1% instead of 3%."""
    return configuration.replace(config, num_steps=3 * config.num_steps)


STUDY = Study(
    id=11,
    module="experiments.paper.longer_training",
    text=__doc__ or "",
    tiny={"chain": longer(tiny("ppo"))},
    small={"gsm8k": longer(small("ppo", "gsm8k"))},
    paper={name: longer(config) for name, config in paper("rho1b_math_ppo", "rho1b_gsm8k_ppo").items()},
    arms=uniform_and_lilo,
    measures=(better("lilo"), faster("lilo")),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
