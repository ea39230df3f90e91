"""Training on the rollouts that chose the questions, or on fresh ones.

Claim: none in the paper, which reuses them; choosing by them conditions them on mixed outcomes.
Source: a gap of Foster et al. 2025; its algorithm 2 has both forms.
Axes: uniform; LILO, reusing; the same choice with 8 fresh rollouts of each question (a buffer that is filled anew
    every step and used up by it).
Expected: fresh rollouts cost a quarter more and are less learnable than those that chose; no numbers.
Cost: paper: item 1 for each arm; tiny: minutes on two cores.
Command: python -m experiments.paper.fresh_rollouts --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    final accuracy, lilo_fresh less lilo: -0.027 [-0.059, +0.005] (5)
    generated tokens to the final accuracy of lilo, lilo_fresh: never reached (0/5)
    learnability of the batch, lilo_fresh less lilo: -0.034 [-0.048, -0.019] (5)
"""

from experiments.measures import better, faster, metric
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.processes.endings import exit_with_message


def arms(config: Config) -> dict[str, Config]:
    """Uniform, reused, fresh."""
    batch, candidates = config.rollout, config.curriculum.pool_ratio * config.rollout.questions
    fresh = SflBuffer(
        refresh_every=1, candidates=candidates, buffer_size=batch.questions, attempts=batch.samples, buffer_fraction=1.0
    )
    return uniform_and_lilo(config) | {"lilo_fresh": configuration.replace(config, curriculum=fresh)}


STUDY = Study(
    id=28,
    module="experiments.paper.fresh_rollouts",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo", "rho1b_math_ppo"),
    arms=arms,
    measures=(
        better("lilo_fresh", than="lilo", claim="none"),
        faster("lilo_fresh", "generated_tokens", than="lilo", claim="none"),
        metric(
            "curriculum/admitted_learnability_mean",
            "learnability of the batch",
            "lilo_fresh",
            than="lilo",
            claim="below",
        ),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
