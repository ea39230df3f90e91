"""How many candidates per question, and how to spend a fixed number of screening rollouts.

Claim: none in the paper, which takes 4 (and 8 once).
Source: a gap of Foster et al. 2025, seen by its readers.
Axes: 1, 2, 4, 8, 16 candidates per question at 8 rollouts; and candidates x rollouts = 32: 16 x 2, 8 x 4, 4 x 8, 2 x
    16.
Expected: more candidates, fewer steps, at the cost of tokens; no numbers.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each arm.
Command: python -m experiments.paper.pool_ratio --preset tiny
Last run: tiny, agrees; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    8 rollouts, final accuracy, lilo_1 less uniform: -0.000 [-0.000, +0.000] (16)
    8 rollouts, generated tokens to the final accuracy of uniform, lilo_1: 1.00 times as much [1.00, 1.00] in the median
        seed, not reached on all (12/16)
    8 rollouts, final accuracy, lilo_2 less uniform: +0.104 [+0.080, +0.128] (16)
    8 rollouts, generated tokens to the final accuracy of uniform, lilo_2: 1.22 times more [1.06, 1.36] (16/16)
    8 rollouts, final accuracy, lilo_4 less uniform: +0.151 [+0.117, +0.184] (16)
    8 rollouts, generated tokens to the final accuracy of uniform, lilo_4: 2.17 times more [1.90, 2.38] (16/16)
    8 rollouts, final accuracy, lilo_8 less uniform: +0.141 [+0.111, +0.172] (16)
    8 rollouts, generated tokens to the final accuracy of uniform, lilo_8: 4.45 times more [3.90, 4.90] (16/16)
    and 10 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.measures import better, faster
from experiments.presets import paper, small, under
from experiments.study import Evidence, Finding, Simulated, Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.processes.endings import exit_with_message

RATIOS = (1, 2, 4, 8, 16)
SCREENED = {16: 2, 8: 4, 4: 8, 2: 16}
"""Candidates per question to rollouts each, 32 together."""


RULES = {f"lilo_{ratio}": Lilo(pool_ratio=ratio) for ratio in RATIOS}


def arms(config: Config) -> dict[str, Config]:
    """All ratios, and all ways to spend 32."""
    found = under(RULES)(config)
    spent = {
        f"lilo_{ratio}x{samples}": configuration.replace(found[f"lilo_{ratio}"], rollout__samples=samples)
        for ratio, samples in SCREENED.items()
    }
    return found | spent


def of_every_arm(evidence: Evidence) -> Iterator[Finding]:
    """Accuracy at equal steps, and tokens to the baseline's accuracy, of each ratio."""
    for arm in evidence.arms():
        if arm != "uniform":
            yield from better(arm, claim="none" if arm == "lilo_1" else "above")(evidence)
            yield from faster(arm, "generated_tokens", claim="none")(evidence)


STUDY = Study(
    id=23,
    module="experiments.paper.pool_ratio",
    text=__doc__ or "",
    tiny={
        "8 rollouts": Simulated(RULES),
        **{f"{r} x {n}": Simulated({f"lilo_{r}x{n}": Lilo(pool_ratio=r)}, samples=n) for r, n in SCREENED.items()},
    },
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=arms,
    measures=(of_every_arm,),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
