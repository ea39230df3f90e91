"""Other scores of the same candidates.

Claim: choosing by p (1 - p) is what helps, not drawing four times as many questions.
Source: gaps of Foster et al. 2025, seen by its readers; the random control is the first author's.
Axes: 4 candidates per question, ranked by p (1 - p); mixed ones at random (as DAPO); in the band .2 to .8; the hardest
    that is solved at all; the easiest that is not always; nearness to 1/2; drawn in proportion to p (1 - p) or 1 - p;
    at random.  Ranking by the size of advantages is that by p (1 - p).
Expected: p (1 - p) above the random control; no numbers.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each arm.
Command: python -m experiments.paper.score_alternatives --preset tiny
Last run: tiny, agrees; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    final accuracy, variance less uniform: +0.151 [+0.117, +0.184] (16)
    final accuracy, mixed less uniform: +0.152 [+0.118, +0.186] (16)
    final accuracy, band less uniform: +0.136 [+0.103, +0.169] (16)
    final accuracy, hardest less uniform: +0.159 [+0.123, +0.195] (16)
    final accuracy, easiest less uniform: +0.142 [+0.111, +0.173] (16)
    final accuracy, near_half less uniform: +0.151 [+0.117, +0.184] (16)
    final accuracy, variance_drawn less uniform: +0.151 [+0.117, +0.186] (16)
    final accuracy, failure_drawn less uniform: +0.021 [+0.010, +0.033] (16)
    and 1 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.controls import Scored
from experiments.measures import better
from experiments.presets import paper, small, under
from experiments.study import Claim, Evidence, Finding, Simulated, Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

RULES = {
    "variance": Scored("variance"),
    "mixed": Scored("mixed"),
    "band": Scored("band"),
    "hardest": Scored("hardest"),
    "easiest": Scored("easiest"),
    "near_half": Scored("near_half"),
    "variance_drawn": Scored("variance", drawn=True),
    "failure_drawn": Scored("failure", drawn=True),
    "random": Scored("random"),
}


CLAIMS: dict[str, Claim] = {"variance": "above", "random": "near"}


def of_every_score(evidence: Evidence) -> Iterator[Finding]:
    """Accuracy at equal steps, against uniform; the control must be like it."""
    for arm in RULES:
        yield from better(arm, claim=CLAIMS.get(arm, "none"))(evidence)


STUDY = Study(
    id=25,
    module="experiments.paper.score_alternatives",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES)},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=under(RULES),
    measures=(of_every_score,),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
