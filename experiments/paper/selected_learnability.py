"""How learnable the selected batch is over training.

Claim: LILO's batches are more learnable than random ones throughout, and become less so late in training.
Source: Foster et al. 2025, figure 6.
Axes: PPO; training set; uniform and LILO; mean p(1 - p) of the batch against steps.
Expected: a decline late in training, larger on GSM8K than on MATH; values only in the figure.
Cost: that of item 1, whose runs these are; nothing besides.
Command: python -m experiments.paper.selected_learnability --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    learnability of the batch, lilo less uniform: +0.088 [+0.075, +0.100] (5)
    learnability of the batch, last less first third, lilo: -0.039 [-0.067, -0.011] (5)
"""

from experiments.measures import metric, trend
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

BATCH = "curriculum/admitted_learnability_mean"

STUDY = Study(
    id=12,
    module="experiments.paper.selected_learnability",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo"),
    arms=uniform_and_lilo,
    measures=(metric(BATCH, "learnability of the batch"), trend(BATCH, "learnability of the batch")),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
