"""LILO learns the training set faster, and generalises as well.

Claim: training accuracy rises faster with LILO, and at equal training accuracy test accuracy is the same: one line for
    all runs.
Source: Foster et al. 2025, figures 9 and 10.
Axes: PPO and VinePPO on MATH and GSM8K; uniform and LILO; training accuracy is that of questions drawn at random,
    LILO's candidates among them.
Expected: all runs on one line; on GSM8K training accuracy nears 95% while the test stays below 60%.
Cost: that of items 1 and 2, whose runs these are; nothing besides.
Command: python -m experiments.paper.generalisation --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    ppo, training accuracy, lilo less uniform: +0.139 [+0.058, +0.219] (5)
    ppo, test accuracy at equal training accuracy, lilo less uniform: +0.009 [-0.013, +0.031] (5)
    vineppo, training accuracy, lilo less uniform: +0.061 [-0.005, +0.127] (5)
    vineppo, test accuracy at equal training accuracy, lilo less uniform: +0.001 [-0.002, +0.004] (5)
"""

import itertools
from collections.abc import Iterator

import numpy as np

from experiments.measures import metric
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import TEST, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.summary import DIFFERENCE
from lilo_jax.storage.run_directory import RunDirectory

TRAINED = "curriculum/collected_success_mean"


def points(run: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Training accuracy between two evaluations, and test accuracy, the mean of both: the later favours who climbs.

    Half a step is left between the two: the steps are those of the models before each update.
    """
    tested = [(r["step"], r["accuracy"]) for r in run.read("eval") if r["split"] == TEST]
    success = np.array([r[TRAINED] for r in run.read("metrics")])
    spans = [(before, after) for (before, _), (after, _) in itertools.pairwise(tested)]
    test = [(before + after) / 2 for (_, before), (_, after) in itertools.pairwise(tested)]
    return np.array([success[a:b].mean() for a, b in spans]), np.array(test)


def off_the_line(evidence: Evidence) -> Iterator[Finding]:
    """LILO's test accuracy less what uniform's line has at the same training accuracy, where both have been."""
    gaps = {}
    for seed, run in evidence.runs["lilo"].items():
        (train, test), (x, y) = points(run), points(evidence.runs["uniform"][seed])
        shared = train <= x.max()
        if np.ptp(x) == 0 or not shared.any():  # no line, or none of it that both have been on
            continue
        slope, start = np.polyfit(x, y, 1)
        gaps[seed] = float(np.mean((test - (slope * train + start))[shared]))
    yield Finding(
        "test accuracy at equal training accuracy, lilo less uniform", of_seeds(gaps, DIFFERENCE), 0.0, "near", "+.3f"
    )


STUDY = Study(
    id=14,
    module="experiments.paper.generalisation",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "vineppo": tiny("vineppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo", "rho1b_math_vineppo", "rho1b_gsm8k_vineppo"),
    arms=uniform_and_lilo,
    measures=(metric(TRAINED, "training accuracy", part="late"), off_the_line),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
