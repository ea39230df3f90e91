"""The theorem where everything is known: a policy that chooses one of a few answers.

Claim: ||grad J||^2 is at most p (1 - p) E||sum g||^2, a small step gains beta ||grad J||^2, and on average over
    questions ||grad J||^2 grows with p (1 - p).
Source: Foster et al. 2025, equation 1 and theorem 3.1 (RLOO); this project adds the check, which is exact.
Axes: softmax policies over 8 answers of random logits, every one with a random set of right answers.
Expected: the bound holds in every case; relative error of the step's gain goes to 0 with beta; correlation above 0.
Cost: seconds at every preset.  Tests with several tokens and tied parameters: tests/test_rl_theory.py.
Command: python -m experiments.paper.exact_bandit --preset tiny
Last run: tiny, agrees; seeds 301 to 312, 2026-11-30, commit bba0d1c:
    largest ||grad J||^2 / (p(1 - p) E||g||^2): 0.621 [0.597, 0.646] (12)
    largest relative error of beta ||grad J||^2, beta 0.001: 7.0e-05 [6.7e-05, 7.2e-05] (12)
    correlation of p(1 - p) with ||grad J||^2: 0.927 [0.926, 0.929] (12)
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from experiments.study import CORRELATION, RATIO, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message


@dataclasses.dataclass(frozen=True)
class Bandits:
    """What is drawn of each seed."""

    questions: int = 2000
    answers: int = 8
    scale: float = 1.0
    """standard deviation of the logits"""
    step: float = 1e-3
    """beta"""


def policy(logits: np.ndarray) -> np.ndarray:
    """Softmax over the answers of each question."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def exactly(evidence: Evidence) -> Iterator[Finding]:
    """Closed forms: grad J = pi (r - p), E||g||^2 = 1 - sum pi^2."""
    s = evidence.settings
    found: dict[str, dict[int, float]] = {"bound": {}, "gain": {}, "correlation": {}}
    for seed in evidence.seeds:
        rng = np.random.default_rng(seed)
        logits = s.scale * rng.normal(size=(s.questions, s.answers))
        right = (rng.random(logits.shape) < rng.random((s.questions, 1))).astype(float)
        chance = policy(logits)
        p = (chance * right).sum(axis=1)
        gradient = chance * (right - p[:, None])
        squared, fisher = (gradient**2).sum(axis=1), 1 - (chance**2).sum(axis=1)
        mixed = p * (1 - p) > 1e-9
        found["bound"][seed] = float((squared[mixed] / (p * (1 - p) * fisher)[mixed]).max())
        gained = (policy(logits + s.step * gradient) * right).sum(axis=1) - p
        found["gain"][seed] = float(np.abs(gained[mixed] / (s.step * squared[mixed]) - 1).max())
        found["correlation"][seed] = float(np.corrcoef(p * (1 - p), squared)[0, 1])
    yield Finding("largest ||grad J||^2 / (p(1 - p) E||g||^2)", of_seeds(found["bound"], RATIO), 1.0, "below")
    error = f"largest relative error of beta ||grad J||^2, beta {s.step:g}"
    yield Finding(error, of_seeds(found["gain"], RATIO), 0.01, "below", ".1e")
    yield Finding(
        "correlation of p(1 - p) with ||grad J||^2", of_seeds(found["correlation"], CORRELATION), 0.0, "above"
    )


STUDY = Study(
    id=21,
    module="experiments.paper.exact_bandit",
    text=__doc__ or "",
    tiny={"bandits": Bandits()},
    small={"bandits": Bandits(questions=20_000)},
    paper={"bandits": Bandits(questions=200_000)},
    measures=(exactly,),
    seeds=12,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
