"""LILO beside DAPO's dynamic sampling, at equal generated samples.

Claim: none in the paper; its readers ask whether ranking mixed questions adds anything to dropping the others.
Source: a gap of Foster et al. 2025; Yu et al. 2025 (DAPO), equation 11.
Axes: uniform; LILO with 4 candidates per question; DAPO, rounds of 3 times the batch until it is full, at most 10.
Expected: no numbers.
Cost: paper: item 1 for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.dynamic_sampling --preset tiny
Last run: tiny, no claim; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    final accuracy, lilo less dapo: -0.051 [-0.084, -0.019] (5)
    steps to the final accuracy of dapo, lilo: never reached (0/5)
    generated tokens to the final accuracy of dapo, lilo: never reached (0/5)
    seconds to the final accuracy of dapo, lilo: never reached (0/5)
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.literature.dapo import Dapo
from lilo_jax.processes.endings import exit_with_message


def arms(config: Config) -> dict[str, Config]:
    """Uniform, LILO, dynamic sampling."""
    return uniform_and_lilo(config) | {"dapo": configuration.replace(config, curriculum=Dapo())}


STUDY = Study(
    id=26,
    module="experiments.paper.dynamic_sampling",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo", "qwen2_5_1_5b_orz57k_grpo"),
    arms=arms,
    measures=(
        better("lilo", than="dapo", claim="none"),
        faster("lilo", than="dapo", claim="none"),
        faster("lilo", "generated_tokens", than="dapo", claim="none"),
        faster("lilo", "seconds", than="dapo", claim="none"),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
