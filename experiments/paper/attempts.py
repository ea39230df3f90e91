"""How many rollouts an estimate of p (1 - p) needs.

Claim: none in the paper, which takes 8; its reviewer asks how that is chosen.
Source: a reviewer of Foster et al. 2025 (NeurIPS 2025): "ablation of N_learnability".
Axes: 2, 4, 8, 16, 32 rollouts per candidate at a fixed number of candidates; rank correlation with 256 other rollouts.
Expected: rising with the number of rollouts, ever more slowly.
Cost: tiny: seconds, on questions and the starting student of the simulator; paper: item 1 for each arm.
Command: python -m experiments.paper.attempts --preset tiny
Last run: tiny, agrees; seeds 301 to 312, 2026-11-30, commit bba0d1c:
    rank correlation, 2 rollouts: 0.441 [0.430, 0.451] (12)
    rank correlation, 4 rollouts: 0.667 [0.661, 0.673] (12)
    rank correlation, 8 rollouts: 0.798 [0.792, 0.803] (12)
    rank correlation, 16 rollouts: 0.877 [0.875, 0.879] (12)
    rank correlation, 32 rollouts: 0.926 [0.925, 0.928] (12)
    rank correlation, 8 less 2 rollouts: +0.357 [+0.346, +0.368] (12)
    rank correlation, 32 less 8 rollouts: +0.129 [+0.124, +0.134] (12)
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from experiments.measures import better, faster
from experiments.presets import paper, small, uniform_and_lilo
from experiments.study import CORRELATION, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.evaluation.calibration import rank_correlation, reference_learnability
from lilo_jax.keys import stream_key
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.simulation.student import StudentSettings
from lilo_jax.simulation.world import WorldSettings, draw_world

ATTEMPTS = (2, 4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Screening:
    """A pool, screened once."""

    questions: int = 2000
    reference: int = 256
    """rollouts of the reference"""


def arms(config: Config) -> dict[str, Config]:
    """LILO with each number of rollouts, which are trained on as well, and uniform with the published one."""
    uniform = {"uniform": uniform_and_lilo(config)["uniform"]}
    return uniform | {f"lilo_{n}": configuration.replace(config, rollout__samples=n) for n in ATTEMPTS}


def of_screening(evidence: Evidence) -> Iterator[Finding]:
    """Rank correlations of estimates with the reference; from 2 to 8 and from 8 to 32 how much they rise."""
    if evidence.runs:
        return
    found: dict[int, dict[int, float]] = {n: {} for n in ATTEMPTS}
    for seed in evidence.seeds:
        world = draw_world(stream_key(seed, "world"), WorldSettings(), evidence.settings.questions)
        ability = np.full(WorldSettings().skills, StudentSettings().ability, np.float32)
        p = np.asarray(jax.device_get(world.success(ability)), np.float64)
        rng, n = np.random.default_rng(seed), evidence.settings.reference
        reference = reference_learnability(rng.binomial(n, p).astype(float), np.full(p.shape, float(n)))
        for n in ATTEMPTS:
            rate = rng.binomial(n, p) / n
            found[n][seed] = rank_correlation(rate * (1 - rate), reference) or 0.0
    for n, values in found.items():
        yield Finding(f"rank correlation, {n} rollouts", of_seeds(values, CORRELATION), 0.0, "none")
    for few, many in ((2, 8), (8, 32)):
        more = {seed: found[many][seed] - found[few][seed] for seed in evidence.seeds}
        yield Finding(f"rank correlation, {many} less {few} rollouts", of_seeds(more), 0.0, "above", "+.3f")


def of_training(evidence: Evidence) -> Iterator[Finding]:
    """What each number of rollouts is worth, where it was trained with."""
    for n in ATTEMPTS if evidence.runs else ():
        yield from better(f"lilo_{n}", claim="none")(evidence)
        yield from faster(f"lilo_{n}", "generated_tokens", claim="none")(evidence)


STUDY = Study(
    id=22,
    module="experiments.paper.attempts",
    text=__doc__ or "",
    tiny={"world": Screening()},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=arms,
    measures=(of_screening, of_training),
    seeds=12,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
