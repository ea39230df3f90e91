"""GRPO and Dr. GRPO with and without LILO.

Claim: LILO reaches GRPO's best accuracy in fewer steps, and ends above it on four of five test sets.
Source: Foster et al. 2025, table 2, figures 3 and 4; the paper leaves template, base model and division by the
    standard deviation open, so all are here.
Axes: base model (Qwen2.5-1.5B, its Math sister); template (r1, qwen_math); GRPO, or Dr. GRPO, which does not divide;
    uniform, or LILO with 4 candidates per question.
Expected: mean of five sets 1.5 times fewer steps, 35.5 -> 37.1%; AIME about equal, the other four above.
Cost: paper: about a day on eight H200 for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.grpo --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    steps to the final accuracy on test of grpo, grpo_lilo: 1.83 times less [1.50, 2.18] (5/5)
    final accuracy on test, grpo_lilo less grpo: +0.107 [+0.026, +0.188] (5)
    steps to the final accuracy on test of dr_grpo, dr_grpo_lilo: 1.90 times less [1.67, 2.15] (5/5)
    final accuracy on test, dr_grpo_lilo less dr_grpo: +0.102 [+0.047, +0.158] (5)
    steps to the final accuracy on longer of grpo, grpo_lilo: 1.76 times less [1.60, 1.88] (5/5)
    final accuracy on longer, grpo_lilo less grpo: +0.145 [+0.055, +0.235] (5)
    steps to the final accuracy on longer of dr_grpo, dr_grpo_lilo: 1.89 times less [1.72, 2.10] (5/5)
    final accuracy on longer, dr_grpo_lilo less dr_grpo: +0.137 [+0.084, +0.189] (5)
"""

import dataclasses
from collections.abc import Iterator

from experiments.measures import better, faster
from experiments.presets import paper, small, tiny
from experiments.study import Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.dr_grpo import DrGrpo


def arms(config: Config) -> dict[str, Config]:
    """Two advantages x two rules."""
    dr_grpo = configuration.replace(config, algorithm=DrGrpo())
    return {
        "grpo": configuration.replace(config, curriculum=Uniform()),
        "grpo_lilo": config,
        "dr_grpo": configuration.replace(dr_grpo, curriculum=Uniform()),
        "dr_grpo_lilo": dr_grpo,
    }


def in_both_templates(settings: dict[str, Config]) -> dict[str, Config]:
    """The settings, and those with the other prompt, which ends where the model's turn does."""
    other = {
        f"{name}_qwen_math": configuration.replace(
            config, task=dataclasses.replace(config.task, template="qwen_math"), rollout__stop=()
        )
        for name, config in settings.items()
    }
    return settings | other


def on_every_set(evidence: Evidence) -> Iterator[Finding]:
    """Steps and final accuracy on each set but the one for tuning, LILO beside its own baseline."""
    for split in evidence.splits():
        for algorithm in ("grpo", "dr_grpo") if split != "validation" else ():
            for make in (faster, better):
                yield from make(f"{algorithm}_lilo", than=algorithm, split=split)(evidence)


STUDY = Study(
    id=3,
    module="experiments.paper.grpo",
    text=__doc__ or "",
    tiny={"chain": tiny("grpo")},
    small={"asdiv": small("grpo")},
    paper=in_both_templates(paper("qwen2_5_1_5b_orz57k_grpo", "qwen2_5_math_1_5b_orz57k_grpo")),
    arms=arms,
    measures=(on_every_set,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
