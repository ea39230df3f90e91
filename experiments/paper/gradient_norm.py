"""Whether learnability says how large a policy gradient is.

Claim: p (1 - p) correlates with ||grad J||^2 for every estimator but GRPO's with its division by the deviation.
Source: Foster et al. 2025, table 5, appendix C; theorem 3.1 bounds it by p (1 - p) times E||sum g||^2.
Axes: REINFORCE, RLOO, GRPO with and without the division, increments of exact values (PPO, VinePPO), and the exact
    gradient; checkpoints after a tenth, half and all of RLOO's steps; groups of 8 rollouts.
Expected: GSM8K and MATH: REINFORCE .16 and .31, RLOO .15 and .43, GRPO normalised .13 (not significant) and .38,
    unnormalised .17 and .42, PPO and VinePPO .38 and .71.
Cost: paper: not done here; tiny and small: the runs and the gradients of item 19.
Command: python -m experiments.paper.gradient_norm --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    p(1 - p) and ||grad J||^2, reinforce, tenth: +0.612 [+0.423, +0.802] (5)
    p(1 - p) and ||grad J||^2, rloo, tenth: +0.443 [+0.341, +0.544] (5)
    p(1 - p) and ||grad J||^2, grpo_normalised, tenth: +0.325 [+0.267, +0.384] (5)
    p(1 - p) and ||grad J||^2, grpo_unnormalised, tenth: +0.443 [+0.341, +0.544] (5)
    p(1 - p) and ||grad J||^2, ppo_vineppo, tenth: +0.414 [+0.275, +0.553] (5)
    p(1 - p) and ||grad J||^2, exact, tenth: +0.696 [+0.403, +0.988] (5)
    p(1 - p) and ||grad J||^2, reinforce, half: +0.425 [+0.220, +0.630] (5)
    p(1 - p) and ||grad J||^2, rloo, half: +0.411 [+0.221, +0.602] (5)
    and 10 more: experiments/README.md
small, open; seed 301, 2026-11-30, commit e2acd24:
    p(1 - p) and ||grad J||^2, reinforce, end: +0.740 (1)
    p(1 - p) and ||grad J||^2, rloo, end: +0.715 (1)
    p(1 - p) and ||grad J||^2, grpo_normalised, end: +0.723 (1)
    p(1 - p) and ||grad J||^2, grpo_unnormalised, end: +0.715 (1)
"""

from collections.abc import Iterator

from experiments.gradients import correlation, of_checkpoint
from experiments.paper.assumption_correlations import checkpoints
from experiments.presets import paper, small, tiny
from experiments.study import CORRELATION, Claim, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import markdown


def of_every_estimator(evidence: Evidence) -> Iterator[Finding]:
    """The correlation over questions, at each checkpoint, the mean over seeds."""
    for checkpoint, runs in evidence.runs.items():
        found = {seed: of_checkpoint(str(run.path)) for seed, run in runs.items()}
        for name in next(iter(found.values())).squares:
            values = {seed: correlation(g.learnability, g.squares[name]).r for seed, g in found.items()}
            claim: Claim = "none" if name == "grpo_normalised" else "above"
            yield Finding(
                f"p(1 - p) and ||grad J||^2, {name}, {checkpoint}", of_seeds(values, CORRELATION), 0.0, claim, "+.3f"
            )


def significance(evidence: Evidence) -> str:
    """Sample size and p-value of every correlation, of the first seed."""
    rows = []
    for checkpoint, runs in evidence.runs.items():
        seed, run = next(iter(runs.items()))
        g = of_checkpoint(str(run.path))
        for name, squares in g.squares.items():
            c = correlation(g.learnability, squares)
            rows.append([checkpoint, name, str(seed), f"{c.r:+.3f}", str(c.n), f"{c.p:.2g}"])
    return markdown(["checkpoint", "estimator", "seed", "r", "n", "p"], rows, text_columns=2)


STUDY = Study(
    id=20,
    module="experiments.paper.gradient_norm",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"sums": small("rloo", "sums", num_steps=20)},
    paper=paper("rho1b_gsm8k_vineppo", "rho1b_math_vineppo"),
    arms=checkpoints,
    measures=(of_every_estimator,),
    show=significance,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
