"""VinePPO with and without LILO.

Claim: LILO reaches VinePPO's best test accuracy in fewer steps, and ends above it.
Source: Foster et al. 2025, table 2 and figure 2.
Axes: training set; uniform, or LILO with 4 candidates per question (8 on GSM8K); 9 rollouts from every state.
Expected: MATH 3.2 times fewer steps, 22.8 -> 24.9%; GSM8K 3.3 times fewer steps, 53.2 -> 55.9%.
Cost: paper: about a week on four L40S for each training set; tiny: minutes on two cores.
Command: python -m experiments.paper.vineppo --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    steps to the final accuracy of uniform, lilo: 1.48 times less [1.29, 1.67] (5/5)
    final accuracy, lilo less uniform: +0.049 [+0.008, +0.090] (5)
"""

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

STUDY = Study(
    id=2,
    module="experiments.paper.vineppo",
    text=__doc__ or "",
    tiny={"chain": tiny("vineppo")},
    small={"gsm8k": small("vineppo", "gsm8k")},
    paper=paper("rho1b_math_vineppo", "rho1b_gsm8k_vineppo"),
    arms=uniform_and_lilo,
    measures=(faster("lilo"), better("lilo")),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
