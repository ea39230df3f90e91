"""How many candidates VinePPO needs on GSM8K.

Claim: where training accuracy nears 95%, four candidates per question no longer fill a batch, and eight do better.
Source: Foster et al. 2025, figure 2 (right).
Axes: uniform; LILO with 4 and 8 candidates per question.
Expected: 8 above 4 above uniform; values only in the figure.
Cost: paper: about a week on four L40S for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.pool_size --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    final accuracy, lilo_4 less uniform: +0.049 [+0.008, +0.090] (5)
    final accuracy, lilo_8 less lilo_4: +0.028 [-0.002, +0.057] (5)
    share of the batch without variance, lilo_8 less lilo_4: -0.172 [-0.229, -0.115] (5)
"""

from experiments.measures import better, metric
from experiments.presets import paper, small, tiny
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.processes.endings import exit_with_message


def arms(config: Config) -> dict[str, Config]:
    """Candidates per question: 1, 4, 8."""
    return {
        "uniform": configuration.replace(config, curriculum=Uniform()),
        "lilo_4": configuration.replace(config, curriculum=Lilo(pool_ratio=4)),
        "lilo_8": configuration.replace(config, curriculum=Lilo(pool_ratio=8)),
    }


STUDY = Study(
    id=7,
    module="experiments.paper.pool_size",
    text=__doc__ or "",
    tiny={"chain": tiny("vineppo")},
    small={"gsm8k": small("vineppo", "gsm8k")},
    paper=paper("rho1b_gsm8k_vineppo"),
    arms=arms,
    measures=(
        better("lilo_4"),
        better("lilo_8", than="lilo_4"),
        metric(
            "curriculum/admitted_zero_variance_fraction",
            "share of the batch without variance",
            "lilo_8",
            than="lilo_4",
            claim="below",
        ),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
