"""Whether the assumptions of theorem 3.1 hold.

Claim: what the proof takes to be uncorrelated is so, and the other factor of each bound hardly moves with the score.
Source: Foster et al. 2025, tables 3 and 4, appendix C, which gives neither sample sizes nor the test.
Axes: pairs of quantities of tokens, responses and questions; checkpoints after a tenth, half and all of RLOO's steps.
Expected: table 4, all not significant: g_t.g_t' with products of increments .036 (GSM8K) and .013 (MATH), ||g_t||^2
    with the increment -.003 and -.003, with t -.007 and -.005, with learnability -.006 and .011; table 3, small:
    -.046, -.017, -.033 (GSM8K), -.032, -.021, -.032 (MATH).
Cost: paper: a backward pass for each rollout, not done here; tiny: minutes on two cores, with exact values and success
    rates, as each question has one right sequence of tokens; small (an hour on one core) and paper: table 3 alone,
    after all steps.
Command: python -m experiments.paper.assumption_correlations --preset tiny
Last run: tiny, disagrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    table 3, r^2 and ||sum g||^2, tenth: -0.425 [-0.575, -0.275] (5)
    table 3, (r - p)^2 and ||sum g||^2, tenth: +0.259 [+0.138, +0.379] (5)
    table 3, learnability and ||sum g||^2, tenth: +0.013 [-0.078, +0.104] (5)
    table 4, g_t.g_t' and A_t A_t', tenth: +0.024 [+0.001, +0.046] (5)
    table 4, ||g_t||^2 and A_t, tenth: -0.288 [-0.368, -0.209] (5)
    as the proof needs it, ||g_t||^2 and A_t^2, tenth: +0.406 [+0.268, +0.544] (5)
    table 4, ||g_t||^2 and t, tenth: -0.010 [-0.020, -0.001] (5)
    table 4, ||g_t||^2 and learnability, tenth: -0.004 [-0.039, +0.031] (5)
    and 16 more: experiments/README.md
small, no claim; seed 301, 2026-11-30, commit e2acd24:
    table 3, r^2 and ||sum g||^2, end: -0.356 (1)
    table 3, (r - p)^2 and ||sum g||^2, end: +0.136 (1)
    table 3, learnability and ||sum g||^2, end: -0.049 (1)
"""

from collections.abc import Iterator

import numpy as np

from experiments.gradients import Correlation, Gradients, TokenGradients, correlation, of_checkpoint
from experiments.presets import paper, small, tiny
from experiments.study import CORRELATION, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import markdown


def checkpoints(config: Config) -> dict[str, Config]:
    """One training that ends after a tenth, a half and all of its steps: a run's last checkpoint is what is read.

    A pretrained model's is read after all of them alone: on a CPU its gradients take an hour.
    """
    steps = {"tenth": -(-config.num_steps // 10), "half": -(-config.num_steps // 2), "end": config.num_steps}
    if config.model.path:
        steps = {"end": config.num_steps}
    uniform = configuration.replace(config, curriculum=Uniform())
    return {name: configuration.replace(uniform, num_steps=n) for name, n in steps.items()}


def correlations(g: Gradients) -> dict[str, Correlation]:
    """Tables 3 and, where values are known, 4."""
    score = np.broadcast_to(g.learnability[:, None], g.reward.shape)
    found = {
        "table 3, r^2 and ||sum g||^2": correlation(g.reward**2, g.response),
        "table 3, (r - p)^2 and ||sum g||^2": correlation((g.reward - g.success[:, None]) ** 2, g.response),
        "table 3, learnability and ||sum g||^2": correlation(score, g.response),
    }
    return found | (of_tokens(g.tokens, score) if g.tokens else {})


def of_tokens(g: TokenGradients, score: np.ndarray) -> dict[str, Correlation]:
    """Table 4: what the proof assumes."""
    live, width = g.mask, g.mask.shape[2]
    step = np.einsum("qgtt->qgt", g.products)[live]
    pairs = live[..., :, None] & live[..., None, :] & ~np.eye(width, dtype=bool)
    both = g.increments[..., :, None] * g.increments[..., None, :]
    place, score = np.broadcast_to(np.arange(width), live.shape), np.broadcast_to(score[..., None], live.shape)
    return {
        "table 4, g_t.g_t' and A_t A_t'": correlation(g.products[pairs], both[pairs]),
        "table 4, ||g_t||^2 and A_t": correlation(step, g.increments[live]),
        "as the proof needs it, ||g_t||^2 and A_t^2": correlation(step, g.increments[live] ** 2),
        "table 4, ||g_t||^2 and t": correlation(step, place[live].astype(float)),
        "table 4, ||g_t||^2 and learnability": correlation(step, score[live]),
    }


def of_every_checkpoint(evidence: Evidence) -> Iterator[Finding]:
    """Each correlation at each checkpoint, the mean over seeds; the paper calls those of table 4 not significant."""
    for checkpoint, runs in evidence.runs.items():
        found = {seed: correlations(of_checkpoint(str(run.path))) for seed, run in runs.items()}
        for name in next(iter(found.values())):
            values = {seed: own[name].r for seed, own in found.items()}
            yield Finding(
                f"{name}, {checkpoint}",
                of_seeds(values, CORRELATION),
                0.0,
                "none" if "table 3" in name else "near",
                "+.3f",
            )


def significance(evidence: Evidence) -> str:
    """Sample size and p-value of every correlation, of the first seed."""
    rows = []
    for checkpoint, runs in evidence.runs.items():
        seed, run = next(iter(runs.items()))
        for name, c in correlations(of_checkpoint(str(run.path))).items():
            rows.append([checkpoint, name, str(seed), f"{c.r:+.3f}", str(c.n), f"{c.p:.2g}"])
    return markdown(["checkpoint", "pair", "seed", "r", "n", "p"], rows, text_columns=2)


STUDY = Study(
    id=19,
    module="experiments.paper.assumption_correlations",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"sums": small("rloo", "sums", num_steps=20)},
    paper=paper("rho1b_gsm8k_vineppo", "rho1b_math_vineppo"),
    arms=checkpoints,
    measures=(of_every_checkpoint,),
    show=significance,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
