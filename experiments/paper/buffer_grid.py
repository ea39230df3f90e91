"""The buffer, one setting at a time.

Claim: none; the author's presets change refresh, candidates and size together (item 8).
Source: a gap of the first author's fork of VinePPO.
Axes: refresh T in 1, 2, 5, 10, 25, 50; kept K in 64, 128, 256; candidates N in 128, 256, 1280; share rho in 0, .1,
    .25, .5, .75, 1; around (T, N, K, rho) = (10, 256, 128, .5).
Expected: rarer refreshes and larger shares of an old buffer are worse; no numbers.
Cost: tiny: minutes on two cores, in the simulator; paper: item 1 for each of 14 arms.
Command: python -m experiments.paper.buffer_grid --preset tiny
Last run: tiny, no claim; seeds 301 to 316, 2026-11-30, commit bba0d1c:
    final accuracy, centre less uniform: +0.042 [+0.032, +0.052] (16)
    generated tokens to the final accuracy of uniform, centre: 1.10 times more [1.00, 1.19] (16/16)
    final accuracy, T=1 less uniform: +0.038 [+0.030, +0.045] (16)
    generated tokens to the final accuracy of uniform, T=1: 4.02 times more [3.67, 4.35] (16/16)
    final accuracy, T=2 less uniform: +0.041 [+0.032, +0.050] (16)
    generated tokens to the final accuracy of uniform, T=2: 2.39 times more [2.18, 2.59] (16/16)
    final accuracy, T=5 less uniform: +0.038 [+0.031, +0.046] (16)
    generated tokens to the final accuracy of uniform, T=5: 1.43 times more [1.30, 1.55] (16/16)
    and 22 more: experiments/README.md
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
