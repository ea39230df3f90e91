"""Candidates until the batch is full, and estimates that are remembered.

Claim: none in the paper, which names both as future work.
Source: Foster et al. 2025, sections 7 to 10.
Axes: LILO with 4 candidates; candidates until the batch is full, at most 16 times as many; counts that fade (decay .9)
    and that do not (MoPPS), which screen nothing.
Expected: no numbers.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each arm.
Command: python -m experiments.paper.adaptive_pool --preset tiny
Last run: tiny, no claim; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    final accuracy, lilo less uniform: +0.151 [+0.117, +0.184] (16)
    generated tokens to the final accuracy of uniform, lilo: 2.17 times more [1.90, 2.38] (16/16)
    final accuracy, until_full less uniform: +0.156 [+0.123, +0.189] (16)
    generated tokens to the final accuracy of uniform, until_full: 1.57 times more [1.34, 1.77] (16/16)
    final accuracy, fading_counts less uniform: +0.012 [+0.004, +0.020] (16)
    generated tokens to the final accuracy of uniform, fading_counts: 1.06 times less [1.01, 1.08] in the median seed,
        not reached on all (14/16)
    final accuracy, counts less uniform: -0.054 [-0.069, -0.040] (16)
    generated tokens to the final accuracy of uniform, counts: not reached on most seeds (2/16)
"""

from experiments.measures import compared
from experiments.presets import paper, small, under
from experiments.study import Simulated, Study
from experiments.study_runs import main
from lilo_jax.curriculum.literature.dapo import Dapo
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.processes.endings import exit_with_message

RULES = {
    "lilo": Lilo(pool_ratio=4),
    "until_full": Dapo(round_ratio=1, most_rounds=16),
    "fading_counts": Mopps(decay=0.9),
    "counts": Mopps(),
}


STUDY = Study(
    id=31,
    module="experiments.paper.adaptive_pool",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES)},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=under(RULES),
    measures=compared(RULES),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
