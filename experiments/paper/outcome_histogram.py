"""How many questions are always solved, never solved, or mixed.

Claim: most questions are answered alike in all their rollouts and teach nothing; LILO's batches have few of them.
Source: Foster et al. 2025, section 1, and the abstract of its first version, which asserts it without a number.
Axes: PPO, GRPO; uniform and LILO; shares of groups with success rate 0, 1 and between, of all steps.
Expected: more than half without variance under uniform; fewer under LILO. No number survives.
Cost: that of items 1 and 3, whose runs these are; nothing besides.
Command: python -m experiments.paper.outcome_histogram --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    ppo, share of groups with success rate 0, uniform: 0.370 [0.307, 0.433] (5)
    ppo, share of groups with success rate 1, uniform: 0.375 [0.328, 0.422] (5)
    ppo, share of groups without variance, uniform: 0.745 [0.669, 0.821] (5)
    ppo, share of the batch without variance, lilo less uniform: -0.569 [-0.619, -0.519] (5)
    grpo, share of groups with success rate 0, uniform: 0.295 [0.228, 0.361] (5)
    grpo, share of groups with success rate 1, uniform: 0.381 [0.335, 0.428] (5)
    grpo, share of groups without variance, uniform: 0.676 [0.591, 0.760] (5)
    grpo, share of the batch without variance, lilo less uniform: -0.469 [-0.606, -0.332] (5)
"""

from collections.abc import Iterator

from experiments.measures import level, metric
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import ACCURACY

FLAT = "zero_variance_fraction"


def shares(evidence: Evidence) -> Iterator[Finding]:
    """Of groups with no success and with nothing else, rolled out under uniform."""
    found: dict[str, dict[int, float]] = {"0": {}, "1": {}}
    for seed, run in evidence.runs["uniform"].items():
        counts = [sum(column) for column in zip(*(r["curriculum/collected_histogram"] for r in run.read("metrics")),
                                                strict=True)]  # fmt: skip
        found["0"][seed], found["1"][seed] = counts[0] / sum(counts), counts[-1] / sum(counts)
    for rate, values in found.items():
        yield Finding(f"share of groups with success rate {rate}, uniform", of_seeds(values, ACCURACY), 0.0, "none")


STUDY = Study(
    id=17,
    module="experiments.paper.outcome_histogram",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "grpo": tiny("grpo")},
    small={"ppo": small("ppo", "gsm8k"), "grpo": small("grpo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo", "rho1b_math_vineppo", "qwen2_5_1_5b_orz57k_grpo"),
    arms=uniform_and_lilo,
    measures=(
        shares,
        level(f"curriculum/collected_{FLAT}", "share of groups without variance", "uniform", than=0.5),
        metric(f"curriculum/admitted_{FLAT}", "share of the batch without variance", claim="below"),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
