"""Which of equals is taken.

Claim: none in the paper; with 8 rollouts p (1 - p) has five values, so that ties decide most of a batch.
Source: a gap of Foster et al. 2025; the first author's code takes the last by index.
Axes: LILO with 4 candidates; equals at random, the first or the last of the data set.
Expected: no difference where the order of the data set means nothing, as in the simulator.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each arm.
Command: python -m experiments.paper.tie_breaking --preset tiny
Last run: tiny, agrees; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    final accuracy, first by index less random: +0.0002 [-0.0003, +0.0007] (16)
    final accuracy, last by index less random: -0.0004 [-0.0009, +0.0002] (16)
"""

from collections.abc import Iterator

from experiments.controls import Scored
from experiments.presets import paper, small, under
from experiments.study import Evidence, Finding, Simulated, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import DIFFERENCE

RULES = {"random": Scored(), "first": Scored(ties="first"), "last": Scored(ties="last")}


def less_random(evidence: Evidence) -> Iterator[Finding]:
    """Final accuracy by index, less that at random, on the same seeds."""
    final = evidence.summary()["final"]
    for arm in ("first", "last"):
        own, random = final[arm]["by_seed"], final["random"]["by_seed"]
        less = {int(seed): own[seed] - random[seed] for seed in own}
        yield Finding(f"final accuracy, {arm} by index less random", of_seeds(less, DIFFERENCE), 0.0, "near", "+.4f")


STUDY = Study(
    id=33,
    module="experiments.paper.tie_breaking",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES)},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo"),
    arms=under(RULES),
    measures=(less_random,),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
