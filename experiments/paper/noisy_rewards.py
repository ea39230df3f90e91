"""Verdicts that are noise.

Claim: p (1 - p) cannot tell what can be learned from what is random: coin flips score highest, and LILO trains on
    them.
Source: Foster et al. 2025, sections 7 to 10 (limits), which tests none of it.
Axes: a quarter of the training questions judged by a coin; a tenth of all verdicts turned round; uniform, LILO, and
    frontier, which suspects such questions.
Expected: share of coin flips in the batch above a quarter with LILO. No numbers.
Cost: paper: item 1 for each arm; tiny: minutes on two cores.  Partial credit is left out: our p (1 - p) counts
    outcomes, whatever is earned.
Command: python -m experiments.paper.noisy_rewards --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    coin flips, share of coin flips in the batch, lilo less uniform: +0.510 [+0.490, +0.529] (5)
    coin flips, share of coin flips in the batch, frontier less lilo: -0.488 [-0.543, -0.434] (5)
    coin flips, final accuracy, lilo less uniform: +0.025 [-0.079, +0.129] (5)
    coin flips, final accuracy, frontier less lilo: +0.125 [+0.020, +0.231] (5)
    turned verdicts, final accuracy, lilo less uniform: +0.225 [+0.089, +0.361] (5)
    turned verdicts, final accuracy, frontier less lilo: -0.040 [-0.214, +0.134] (5)
"""

from collections.abc import Iterator
from typing import Any

from experiments.measures import better, metric
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.processes.endings import exit_with_message

COINS: dict[str, Any] = {"noise__coin_flips": 0.25}
TURNED: dict[str, Any] = {"noise__label_noise": 0.1}
TRAPS = "curriculum/admitted_trap_fraction"


def arms(config: Config) -> dict[str, Config]:
    """Uniform, LILO, frontier."""
    return uniform_and_lilo(config) | {"frontier": configuration.replace(config, curriculum=Frontier())}


def of_noise(evidence: Evidence) -> Iterator[Finding]:
    """Coin flips in the batch, where there are any, and accuracy."""
    if evidence.settings.noise.coin_flips:
        yield from metric(TRAPS, "share of coin flips in the batch", "lilo")(evidence)
        yield from metric(TRAPS, "share of coin flips in the batch", "frontier", than="lilo", claim="below")(evidence)
    yield from better("lilo", claim="none")(evidence)
    yield from better("frontier", than="lilo", claim="none")(evidence)


STUDY = Study(
    id=32,
    module="experiments.paper.noisy_rewards",
    text=__doc__ or "",
    tiny={"coin flips": tiny("rloo", **COINS), "turned verdicts": tiny("rloo", **TURNED)},
    small={"coin flips": small("rloo", **COINS), "turned verdicts": small("rloo", **TURNED)},
    paper=paper("rho1b_gsm8k_ppo", **COINS),
    arms=arms,
    measures=(of_noise,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
