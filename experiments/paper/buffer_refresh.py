"""A buffer of learnable questions is overfitted unless it is refreshed every step.

Claim: the policy learns the questions of the buffer by heart: they are answered better than questions drawn afresh,
    the more so the rarer the refresh, and test accuracy suffers.
Source: Foster et al. 2025, figure 11; presets of the first author's fork of VinePPO.
Axes: refresh T, candidates N, kept K, share rho of the batch: rec (50, 1280, 256, .5), fast (10, 256, 64, .5), very
    fast (5, 128, 64, .5), every step (1, 256, 64, 1).  The author's presets change T, N and K together; item 24 does
    not.
Expected: training accuracy on the buffer far above that on fresh questions after some iterations, but for every step.
Cost: paper: 241 of item 1's iterations for each arm; tiny: minutes on two cores, 50 steps, the life of
    the rarest refreshed buffer.
Command: python -m experiments.paper.buffer_refresh --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    success on the buffer less on fresh questions, last less first third, rec: +0.162 [-0.269, +0.594] (5)
    success on the buffer less on fresh questions, last less first third, fast: +0.108 [-0.355, +0.571] (5)
    success on the buffer less on fresh questions, last less first third, very_fast: -0.023 [-0.529, +0.483] (5)
    success on the buffer less on fresh questions, last less first third, every_step: +0.067 [-0.108, +0.242] (5)
    final accuracy, every_step less rec: +0.076 [-0.013, +0.165] (5)
"""

from collections.abc import Iterator

from experiments.measures import better
from experiments.presets import paper, small, tiny
from experiments.study import Claim, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.processes.endings import exit_with_message

BUFFERS = {
    "rec": SflBuffer(refresh_every=50, candidates=1280, buffer_size=256, buffer_fraction=0.5),
    "fast": SflBuffer(refresh_every=10, candidates=256, buffer_size=64, buffer_fraction=0.5),
    "very_fast": SflBuffer(refresh_every=5, candidates=128, buffer_size=64, buffer_fraction=0.5),
    "every_step": SflBuffer(refresh_every=1, candidates=256, buffer_size=64, buffer_fraction=1.0),
}
AUDITED = {"audit__questions": 64, "audit__every": 10, "audit__samples": 2}
"""Accuracy on fresh questions is that of an audit, which draws at random."""


def arms(config: Config) -> dict[str, Config]:
    """The presets by name."""
    return {name: configuration.replace(config, curriculum=buffer) for name, buffer in BUFFERS.items()}


def overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Success on the buffer less that on fresh questions, late less early: trained (1 - rho) fresh + rho buffer."""
    for name, buffer in BUFFERS.items():
        gaps = {}
        for part in ("early", "late"):
            trained = evidence.of_metric("curriculum/admitted_success_mean", name, part)
            fresh = evidence.of_metric("audit/success_mean", name, part)
            gaps[part] = {seed: (trained[seed] - fresh[seed]) / buffer.buffer_fraction for seed in trained}
        risen = {seed: gaps["late"][seed] - gaps["early"][seed] for seed in gaps["late"]}
        claim: Claim = "near" if name == "every_step" else "above"
        yield Finding(f"success on the buffer less on fresh questions, last less first third, {name}",
                      of_seeds(risen), 0.0, claim, "+.3f")  # fmt: skip


STUDY = Study(
    id=8,
    module="experiments.paper.buffer_refresh",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo", num_steps=50, **AUDITED)},
    small={"gsm8k": small("ppo", "gsm8k", **AUDITED)},
    paper=paper("rho1b_gsm8k_ppo", **AUDITED),
    arms=arms,
    measures=(overfitting, better("every_step", than="rec")),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
