"""Table 2 in every budget.

Claim: LILO's fewer steps are paid for with more generated samples where rollouts are few per question (PPO, GRPO), and
    hardly where they are many (VinePPO).
Source: Foster et al. 2025, table 2 with the costs of table 1; the paper counts steps alone.
Axes: PPO, VinePPO, GRPO, Dr. GRPO; tiny has RLOO besides, whose theorem 3.1 is.  Budgets: steps, generated tokens,
    tokens trained on, FLOPs, seconds: how many times less of each to the baseline's final accuracy, and accuracy when
    as much of it had been spent.
Expected: PPO 2.5 and 1.9 times fewer steps are 1.6 and 2.1 times more samples; VinePPO 3.2 times fewer steps are about
    3.1 times fewer samples and seconds; GRPO 1.5 times fewer steps are 2.7 times more samples.
Cost: that of items 1 to 3, whose runs these are, and of item 16's; nothing besides.
Command: python -m experiments.paper.speedup --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    ppo, steps to the final accuracy of uniform, lilo: 2.06 times less [1.79, 2.36] (5/5)
    ppo, accuracy at equal steps, lilo less uniform: +0.135 [+0.077, +0.192] (5)
    ppo, generated tokens to the final accuracy of uniform, lilo: 1.92 times more [1.68, 2.21] (5/5)
    ppo, accuracy at equal generated tokens, lilo less uniform: -0.118 [-0.183, -0.053] (5)
    ppo, trained tokens to the final accuracy of uniform, lilo: 2.02 times less [1.75, 2.32] (5/5)
    ppo, accuracy at equal trained tokens, lilo less uniform: +0.132 [+0.076, +0.188] (5)
    ppo, FLOPs to the final accuracy of uniform, lilo: 1.87 times less [1.62, 2.16] (5/5)
    ppo, accuracy at equal FLOPs, lilo less uniform: +0.124 [+0.070, +0.177] (5)
    and 42 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.measures import in_every_budget
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Claim, Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.processes.endings import exit_with_message

FEW: dict[str, Claim] = {"steps": "above", "trained_tokens": "above", "generated_tokens": "below"}
CLAIMS: dict[str, dict[str, Claim]] = {
    "ppo": FEW | {"seconds": "above"},
    "vineppo": {"steps": "above", "trained_tokens": "above", "generated_tokens": "above", "seconds": "above"},
    "grpo": FEW,
    "dr_grpo": FEW,
}
"""What tables 1 and 2 imply of each algorithm; they have no FLOPs, and of GRPO no seconds."""


def of_every_row(evidence: Evidence) -> Iterator[Finding]:
    """What LILO needs, and what it reaches."""
    algorithm = configuration.settings_name("algorithm", evidence.settings.algorithm)
    for measure in in_every_budget(CLAIMS.get(algorithm, {})):
        yield from measure(evidence)


STUDY = Study(
    id=5,
    module="experiments.paper.speedup",
    text=__doc__ or "",
    tiny={name: tiny(name) for name in ("ppo", "vineppo", "grpo", "dr_grpo", "rloo")},
    small={"ppo": small("ppo", "gsm8k"), "vineppo": small("vineppo", "gsm8k")},
    paper=paper(
        "rho1b_math_ppo",
        "rho1b_gsm8k_ppo",
        "rho1b_math_vineppo",
        "rho1b_gsm8k_vineppo",
        "qwen2_5_1_5b_orz57k_grpo",
    ),
    arms=uniform_and_lilo,
    measures=(of_every_row,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
