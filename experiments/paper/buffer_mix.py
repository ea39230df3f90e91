"""How much of the batch comes from the buffer.

Claim: the more of the batch comes from an old buffer the worse; with none the run is the baseline.
Source: presets of the first author's fork of VinePPO ("fast", "very fast", each also with a low mix, and a check p0).
Axes: share rho of .1 and .5 at (T, N, K) = (10, 256, 64) and (5, 128, 64); rho 0 as a check against uniform.
Expected: no numbers; rho 0 must match uniform.
Cost: paper: that of item 1 for each arm; tiny: minutes on two cores, in the simulator.
Command: python -m experiments.paper.buffer_mix --preset tiny
Last run: tiny, agrees; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    final accuracy, rho_0 less uniform: +0.002 [-0.006, +0.009] (16)
    final accuracy, fast_rho_0.5 less uniform: +0.064 [+0.050, +0.078] (16)
    final accuracy, fast_rho_0.1 less uniform: +0.013 [+0.007, +0.019] (16)
    final accuracy, very_fast_rho_0.5 less uniform: +0.042 [+0.032, +0.053] (16)
    final accuracy, very_fast_rho_0.1 less uniform: +0.008 [+0.002, +0.013] (16)
"""

import dataclasses

from experiments.measures import better
from experiments.paper.buffer_refresh import BUFFERS
from experiments.presets import paper, small, under
from experiments.study import Simulated, Study
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message

MIXES = {"rho_0.5": 0.5, "rho_0.1": 0.1}
RULES = {
    f"{buffer}_{mix}": dataclasses.replace(BUFFERS[buffer], buffer_fraction=share)
    for buffer in ("fast", "very_fast")
    for mix, share in MIXES.items()
} | {"rho_0": dataclasses.replace(BUFFERS["fast"], buffer_fraction=0.0)}


STUDY = Study(
    id=9,
    module="experiments.paper.buffer_mix",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES)},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=under(RULES),
    measures=(
        better("rho_0", claim="near"),
        *(better(rule, claim="none") for rule in RULES if rule != "rho_0"),
    ),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
