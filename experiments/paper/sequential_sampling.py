"""Choosing by p(1 - p) without extra rollouts.

Claim: giving rollouts to candidates in proportion to what their first ones show (algorithm 3) makes batches nearly as
    learnable as LILO's (algorithm 2) at uniform's number of samples.
Source: Foster et al. 2025, figure 8 and appendix D.1, which gives no number of candidates; its readers then ask for
    training with it.
Axes: uniform; algorithm 2 with 4 candidates per question; algorithm 3 with 2 and 3, and 2 with a prior, without which
    a candidate whose first two rollouts agree is never asked again.
Expected: learnability of algorithm 3 near that of algorithm 2, at a quarter of its samples.
Cost: paper: that of item 1; tiny: minutes on two cores.  1.5 candidates per question are left out: ours are whole.
Command: python -m experiments.paper.sequential_sampling --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    learnability of the batch, lilo less uniform: +0.076 [+0.053, +0.098] (5)
    learnability of the batch, sequential_2 less uniform: +0.007 [-0.006, +0.020] (5)
    learnability of the batch, sequential_3 less uniform: +0.003 [-0.007, +0.013] (5)
    learnability of the batch, sequential_2_prior less uniform: +0.002 [-0.003, +0.007] (5)
    final accuracy, sequential_2 less uniform: +0.011 [-0.085, +0.107] (5)
    generated tokens to the final accuracy of uniform, sequential_2: 1.10 times less [never, 1.37] in the median seed,
        not reached on all (4/5)
    final accuracy, sequential_3 less uniform: +0.007 [-0.068, +0.082] (5)
    generated tokens to the final accuracy of uniform, sequential_3: 1.04 times less [never, 1.52] in the median seed,
        not reached on all (3/5)
    and 2 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.measures import compared
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.lilo_sequential import LiloSequential
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import DIFFERENCE
from lilo_jax.storage.run_directory import RunDirectory

SEQUENTIAL = {
    "sequential_2": LiloSequential(pool_ratio=2),
    "sequential_3": LiloSequential(pool_ratio=3),
    "sequential_2_prior": LiloSequential(pool_ratio=2, prior=0.5),
}


def arms(config: Config) -> dict[str, Config]:
    """Algorithms 0, 2 and 3."""
    third = {name: configuration.replace(config, curriculum=rule) for name, rule in SEQUENTIAL.items()}
    return uniform_and_lilo(config) | third


def learnability(run: RunDirectory) -> float:
    """Mean over the rollouts trained on of s (n - s) / n (n - 1), unbiased where groups have several sizes."""
    total = rows = 0.0
    for step in run.read("groups"):
        for right, n, admitted in zip(step["correct"], step["graded"], step["admitted"], strict=True):
            if admitted:
                total, rows = total + right * (n - right) / max(n - 1, 1), rows + n
    return total / rows


def of_batches(evidence: Evidence) -> Iterator[Finding]:
    """The learnability of the batch under each sampler, less uniform's."""
    found = {arm: {seed: learnability(run) for seed, run in runs.items()} for arm, runs in evidence.runs.items()}
    for arm in ("lilo", *SEQUENTIAL):
        more = {seed: value - found["uniform"][seed] for seed, value in found[arm].items()}
        yield Finding(
            f"learnability of the batch, {arm} less uniform", of_seeds(more, DIFFERENCE), 0.0, "above", "+.3f"
        )


STUDY = Study(
    id=16,
    module="experiments.paper.sequential_sampling",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo"),
    arms=arms,
    measures=(
        of_batches,
        *compared(SEQUENTIAL),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
