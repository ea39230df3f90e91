"""The buffer, one setting at a time.

Claim: none; the author's presets change refresh, candidates and size together (item 8).
Source: a gap of the first author's fork of VinePPO.
Axes: refresh T in 1, 2, 5, 10, 25, 50; kept K in 64, 128, 256; candidates N in 128, 256, 1280; share rho in 0, .1,
    .25, .5, .75, 1; around (T, N, K, rho) = (10, 256, 128, .5).
Expected: rarer refreshes and larger shares of an old buffer are worse; no numbers.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each of 14 arms.
Command: python -m experiments.paper.buffer_grid --preset tiny
Last run: not run.
"""

import dataclasses
from typing import Any

from experiments.measures import compared
from experiments.presets import paper, small, under
from experiments.study import Simulated, Study
from experiments.study_runs import main
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.processes.endings import exit_with_message

CENTRE = SflBuffer(refresh_every=10, candidates=256, buffer_size=128, buffer_fraction=0.5)
GRID: dict[str, tuple[str, tuple[Any, ...]]] = {
    "T": ("refresh_every", (1, 2, 5, 10, 25, 50)),
    "K": ("buffer_size", (64, 128, 256)),
    "N": ("candidates", (128, 256, 1280)),
    "rho": ("buffer_fraction", (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)),
}
RULES = {"centre": CENTRE} | {
    f"{letter}={value:g}": dataclasses.replace(CENTRE, **{field: value})
    for letter, (field, values) in GRID.items()
    for value in values
    if value != getattr(CENTRE, field)
}


STUDY = Study(
    id=24,
    module="experiments.paper.buffer_grid",
    text=__doc__ or "",
    tiny={"world": Simulated(RULES)},
    small={"asdiv": small("rloo")},
    paper=paper("rho1b_gsm8k_ppo"),
    arms=under(RULES),
    measures=compared(RULES),
    seeds=16,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
