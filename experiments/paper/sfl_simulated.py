"""Sampling for learnability itself, in pure JAX on a small world.

Claim: a buffer of the most learnable levels beats uniform sampling (domain randomisation) and prioritised level
    replay.
Source: Rutherford et al. 2024 (SFL, arXiv 2408.15099), on JaxNav, Minigrid and XLand; here the simulator's students
    of item-response theory stand in for the agents, a fast regression test.
Axes: SFL with N 5000 candidates, K 100 kept, T 50 steps, L 8 attempts, rho .5 (the JaxNav code) and with N 1000, K
    1000, T 10, L 2 and 32, rho 1; uniform; PLR.
Expected: SFL above uniform and PLR; larger N and rho better, larger T worse (their appendix I).
Cost: minutes on two cores; small and paper are larger worlds of the same kind.
Command: python -m experiments.paper.sfl_simulated --preset tiny
Last run: tiny, open; seeds 301 to 308, 2026-11-30, commit bba0d1c:
    final accuracy, plr less uniform: +0.006 [-0.004, +0.016] (8)
    final accuracy, sfl less uniform: +0.016 [+0.004, +0.029] (8)
    final accuracy, sfl, N=1000 less uniform: +0.028 [+0.013, +0.043] (8)
    final accuracy, sfl, K=1000 less uniform: +0.039 [+0.025, +0.054] (8)
    final accuracy, sfl, T=10 less uniform: +0.041 [+0.026, +0.056] (8)
    final accuracy, sfl, L=2 less uniform: +0.042 [+0.026, +0.059] (8)
    final accuracy, sfl, L=32 less uniform: -0.041 [-0.058, -0.024] (8)
    final accuracy, sfl, rho=1 less uniform: +0.028 [+0.006, +0.050] (8)
    and 1 more: experiments/README.md
"""

import dataclasses
from collections.abc import Iterator

from experiments.measures import better
from experiments.study import Evidence, Finding, Simulated, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.curriculum.literature.plr import Plr
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import DIFFERENCE

SFL = SflBuffer(refresh_every=50, candidates=5000, buffer_size=100, attempts=8, buffer_fraction=0.5)
RULES = {
    "plr": Plr(),
    "sfl": SFL,
    "sfl, N=1000": dataclasses.replace(SFL, candidates=1000),
    "sfl, K=1000": dataclasses.replace(SFL, buffer_size=1000),
    "sfl, T=10": dataclasses.replace(SFL, refresh_every=10),
    "sfl, L=2": dataclasses.replace(SFL, attempts=2),
    "sfl, L=32": dataclasses.replace(SFL, attempts=32),
    "sfl, rho=1": dataclasses.replace(SFL, buffer_fraction=1.0),
}


def against_both(evidence: Evidence) -> Iterator[Finding]:
    """Accuracy at equal steps, against uniform, and of the plain form against PLR."""
    for arm in RULES:
        yield from better(arm, claim="above" if arm == "sfl" else "none")(evidence)
    final = evidence.summary()["final"]
    own, plr = final["sfl"]["by_seed"], final["plr"]["by_seed"]
    more = {int(seed): own[seed] - plr[seed] for seed in own}
    yield Finding("final accuracy, sfl less plr", of_seeds(more, DIFFERENCE), 0.0, "above", "+.3f")


STUDY = Study(
    id=34,
    module="experiments.paper.sfl_simulated",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES, steps=300)},
    small={"world": Simulated(RULES, steps=1000)},
    paper={"world": Simulated(RULES, steps=5000)},
    measures=(against_both,),
    seeds=8,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
