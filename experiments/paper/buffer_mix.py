"""How much of the batch comes from the buffer.

Claim: the more of the batch comes from an old buffer the worse; with none the run is the baseline.
Source: presets of the first author's fork of VinePPO ("fast", "very fast", each also with a low mix, and a check p0).
Axes: share rho of .1 and .5 at (T, N, K) = (10, 256, 64) and (5, 128, 64); rho 0 as a check against uniform.
Expected: no numbers; rho 0 must match uniform.
Cost: paper: that of item 1 for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.buffer_mix --preset tiny
Last run: not run.
"""

import dataclasses

from experiments.measures import better
from experiments.paper.buffer_refresh import BUFFERS
from experiments.presets import paper, small, tiny
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.processes.endings import exit_with_message

MIXES = {"rho_0.5": 0.5, "rho_0.1": 0.1}


def arms(config: Config) -> dict[str, Config]:
    """Two buffers x two mixes, and the check."""
    found = {"uniform": configuration.replace(config, curriculum=Uniform())}
    for buffer in ("fast", "very_fast"):
        for mix, share in MIXES.items():
            rule = dataclasses.replace(BUFFERS[buffer], buffer_fraction=share)
            found[f"{buffer}_{mix}"] = configuration.replace(config, curriculum=rule)
    nothing = dataclasses.replace(BUFFERS["fast"], buffer_fraction=0.0)
    return found | {"rho_0": configuration.replace(config, curriculum=nothing)}


STUDY = Study(
    id=9,
    module="experiments.paper.buffer_mix",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=arms,
    measures=(
        better("rho_0", claim="near"),
        *(better(f"{buffer}_{mix}", claim="none") for buffer in ("fast", "very_fast") for mix in MIXES),
    ),
    seeds=2,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
