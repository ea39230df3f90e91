"""Dividing by the deviation, and whitening.

Claim: theorem 3.1 promises LILO less where advantages are divided by their deviation: GRPO, and whitened PPO.
Source: a gap of Foster et al. 2025, whose PPO whitens blocks of 16 rows and whose GRPO's division is not said.
Axes: GRPO and Dr. GRPO; PPO and VinePPO with and without whitening; each uniform and LILO.
Expected: no numbers.
Cost: paper: items 1 to 3, twice; tiny: minutes on two cores.
Command: python -m experiments.paper.normalisation --preset tiny
Last run: tiny, open; seeds 301 to 302, 2026-11-30, commit bba0d1c:
    grpo, final accuracy, lilo_divided less uniform_divided: +0.056 (+0.021..+0.091) (2)
    grpo, steps to the final accuracy of uniform_divided, lilo_divided: 1.50 times less (1.29..1.74) (2/2)
    grpo, final accuracy, lilo_plain less uniform_plain: +0.069 (+0.031..+0.107) (2)
    grpo, steps to the final accuracy of uniform_plain, lilo_plain: 1.69 times less (1.51..1.88) (2/2)
    ppo, final accuracy, lilo_divided less uniform_divided: +0.114 (+0.071..+0.157) (2)
    ppo, steps to the final accuracy of uniform_divided, lilo_divided: 2.08 times less (2.02..2.14) (2/2)
    ppo, final accuracy, lilo_plain less uniform_plain: +0.137 (+0.094..+0.180) (2)
    ppo, steps to the final accuracy of uniform_plain, lilo_plain: 1.99 times less (1.67..2.37) (2/2)
    and 4 more: experiments/README.md
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo


def with_and_without(algorithm: Any) -> dict[str, Any]:
    """An algorithm that normalises its advantages, and its like that does not."""
    if isinstance(algorithm, Grpo):
        return {"divided": algorithm, "plain": DrGrpo()}
    return {
        "divided": dataclasses.replace(algorithm, whitening="blocks"),
        "plain": dataclasses.replace(algorithm, whitening="none"),
    }


def arms(config: Config) -> dict[str, Config]:
    """Two forms x two rules."""
    return {
        f"{arm}_{form}": configuration.replace(own, algorithm=algorithm)
        for form, algorithm in with_and_without(config.algorithm).items()
        for arm, own in uniform_and_lilo(config).items()
    }


def in_both_forms(evidence: Evidence) -> Iterator[Finding]:
    """What LILO is worth in each."""
    for form in ("divided", "plain"):
        for measure in (better, faster):
            yield from measure(f"lilo_{form}", than=f"uniform_{form}", claim="above")(evidence)


STUDY = Study(
    id=30,
    module="experiments.paper.normalisation",
    text=__doc__ or "",
    tiny={"grpo": tiny("grpo"), "ppo": tiny("ppo"), "vineppo": tiny("vineppo")},
    small={"asdiv": small("grpo", rollout__samples=8)},
    paper=paper("qwen2_5_1_5b_orz57k_grpo", "rho1b_gsm8k_ppo", "rho1b_gsm8k_vineppo"),
    arms=arms,
    measures=(in_both_forms,),
    seeds=2,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
