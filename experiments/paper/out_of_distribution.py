"""Test sets that training had nothing of.

Claim: what LILO gains carries over to harder test sets that were not trained on.
Source: Foster et al. 2025, table 6.
Axes: PPO and VinePPO, each uniform and LILO, against the fine-tuned start; sets CollegeMath and OlympiadBench.
Expected: trained on MATH, CollegeMath 20.3 (start), PPO 25.4 -> 26.4, VinePPO 26.9 -> 28.8%; OlympiadBench 2.6, PPO
    3.5 -> 3.8, VinePPO 4.1 -> 4.5%; trained on GSM8K: said to improve, no numbers.
Cost: paper: that of items 1 and 2, whose runs need two more test sets; tiny: the runs of items 1 and 2.  There the set
    is chains of 11 to 14 steps, where training has at most 10.
Command: python -m experiments.paper.out_of_distribution --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    ppo, final less first accuracy on longer, uniform: +0.203 [+0.109, +0.297] (5)
    ppo, steps to the final accuracy on longer of uniform, lilo: 2.13 times less [1.83, 2.46] (5/5)
    ppo, accuracy on longer at equal steps, lilo less uniform: +0.187 [+0.116, +0.258] (5)
    ppo, generated tokens to the final accuracy on longer of uniform, lilo: 1.86 times more [1.61, 2.15] (5/5)
    ppo, accuracy on longer at equal generated tokens, lilo less uniform: -0.131 [-0.217, -0.045] (5)
    ppo, trained tokens to the final accuracy on longer of uniform, lilo: 2.09 times less [1.79, 2.42] (5/5)
    ppo, accuracy on longer at equal trained tokens, lilo less uniform: +0.184 [+0.114, +0.253] (5)
    ppo, FLOPs to the final accuracy on longer of uniform, lilo: 1.94 times less [1.66, 2.25] (5/5)
    and 14 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.measures import gain, in_every_budget
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import TEST, Claim, Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

SUITES = ("collegemath", "olympiadbench")


CLAIMS: dict[str, Claim] = {"steps": "above"}


def on_other_sets(evidence: Evidence) -> Iterator[Finding]:
    """What PPO or VinePPO gains there, and LILO on top: at equal steps, as the paper has it, and in other budgets."""
    for split in evidence.splits():
        if split not in (TEST, "validation"):
            yield from gain("uniform", split=split)(evidence)
            for measure in in_every_budget(CLAIMS, split=split):
                yield from measure(evidence)


STUDY = Study(
    id=4,
    module="experiments.paper.out_of_distribution",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "vineppo": tiny("vineppo")},
    small={"asdiv": small("ppo", evaluation__suites=("svamp",))},
    paper=paper(
        "rho1b_math_ppo", "rho1b_gsm8k_ppo", "rho1b_math_vineppo", "rho1b_gsm8k_vineppo", evaluation__suites=SUITES
    ),
    arms=uniform_and_lilo,
    measures=(on_other_sets,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
