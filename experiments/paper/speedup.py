"""One speed-up in every budget.

Claim: LILO's fewer steps are paid for with more generated samples where rollouts are few per question (PPO), and
    hardly where they are many (VinePPO).
Source: Foster et al. 2025, table 2 with the costs of table 1; the paper counts steps alone.
Axes: PPO, VinePPO; budgets: steps, seconds, generated tokens, tokens trained on, FLOPs, to the baseline's best.
Expected: PPO 2.5 and 1.9 times fewer steps are 1.6 and 2.1 times more samples; VinePPO 3.2 times fewer steps are about
    3.1 times fewer samples and seconds.
Cost: that of items 1 and 2, whose runs these are; nothing besides.
Command: python -m experiments.paper.speedup --preset tiny
Last run: not run.
"""

from collections.abc import Iterator

from experiments.measures import faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Claim, Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.vineppo import VinePpo

BUDGETS = ("steps", "seconds", "generated_tokens", "trained_tokens", "flops")


def in_every_budget(evidence: Evidence) -> Iterator[Finding]:
    """How many times less of each LILO needs; of PPO's samples the paper's own numbers imply more."""
    for budget in BUDGETS:
        vine = isinstance(evidence.settings.algorithm, VinePpo)
        claim: Claim = "below" if budget == "generated_tokens" and not vine else "above"
        yield from faster("lilo", budget, claim=claim)(evidence)


STUDY = Study(
    id=5,
    module="experiments.paper.speedup",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "vineppo": tiny("vineppo")},
    small={"ppo": small("ppo", "gsm8k"), "vineppo": small("vineppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo", "rho1b_math_vineppo", "rho1b_gsm8k_vineppo"),
    arms=uniform_and_lilo,
    measures=(in_every_budget,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
