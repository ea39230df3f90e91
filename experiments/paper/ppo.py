"""PPO with and without LILO.

Claim: LILO reaches PPO's best test accuracy in fewer steps, and ends above it.
Source: Foster et al. 2025, table 2 and figure 1.
Axes: training set; uniform, or LILO with 4 candidates per question and 8 rollouts each.
Expected: MATH 2.5 times fewer steps, 19.1 -> 21.8%; GSM8K 1.9 times fewer steps, 51.1 -> 53.2%.
Cost: paper: about a week on four L40S for each training set; tiny: minutes on two cores.
Command: python -m experiments.paper.ppo --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    steps to the final accuracy of uniform, lilo: 2.06 times less [1.79, 2.36] (5/5)
    final accuracy, lilo less uniform: +0.135 [+0.077, +0.192] (5)
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

STUDY = Study(
    id=1,
    module="experiments.paper.ppo",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo"),
    arms=uniform_and_lilo,
    measures=(faster("lilo"), better("lilo")),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
