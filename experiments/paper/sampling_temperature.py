"""How rollouts are drawn.

Claim: none in the paper, which has 0.6 and 0.9 with PPO, and 1 and 1 with GRPO.
Source: a reviewer of Foster et al. 2025 (NeurIPS 2025): the best number of rollouts may vary with temperature and
    top-p.
Axes: temperature .6, .8, 1 and top-p .9, 1, of the rollouts that choose and are trained on; uniform and LILO.
Expected: no numbers.
Cost: paper: item 1 for each of 12 arms; tiny: minutes on two cores.
Command: python -m experiments.paper.sampling_temperature --preset tiny
Last run: tiny, no claim; seeds 301 to 302, 2026-11-29, commit cef0ceb:
    final accuracy, lilo_0.6_0.9 less uniform_0.6_0.9: +0.038 (+0.015..+0.061) (2)
    final accuracy, lilo_0.6_1 less uniform_0.6_1: +0.185 (+0.104..+0.265) (2)
    final accuracy, lilo_0.8_0.9 less uniform_0.8_0.9: +0.120 (+0.094..+0.145) (2)
    final accuracy, lilo_0.8_1 less uniform_0.8_1: +0.110 (+0.110..+0.111) (2)
    final accuracy, lilo_1_0.9 less uniform_1_0.9: +0.060 (+0.046..+0.074) (2)
    final accuracy, lilo_1_1 less uniform_1_1: +0.063 (-0.002..+0.128) (2)
    share of candidates without variance, lilo_0.6_0.9 less lilo_1_1: +0.155 (+0.133..+0.176) (2)
"""

from experiments.measures import better, metric
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Study
from experiments.study_runs import main
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message

DRAWS = {f"{t:g}_{p:g}": (t, p) for t in (0.6, 0.8, 1.0) for p in (0.9, 1.0)}
FLAT = "curriculum/collected_zero_variance_fraction"


def arms(config: Config) -> dict[str, Config]:
    """Two rules x six ways to draw."""
    return {
        f"{arm}_{name}": configuration.replace(own, rollout__temperature=t, rollout__top_p=p)
        for name, (t, p) in DRAWS.items()
        for arm, own in uniform_and_lilo(config).items()
    }


STUDY = Study(
    id=29,
    module="experiments.paper.sampling_temperature",
    text=__doc__ or "",
    tiny={"chain": tiny("rloo")},
    small={"asdiv": small("rloo", rollout__samples=8)},
    paper=paper("rho1b_gsm8k_ppo"),
    arms=arms,
    measures=(
        *(better(f"lilo_{name}", than=f"uniform_{name}", claim="none") for name in DRAWS),
        metric(FLAT, "share of candidates without variance", "lilo_0.6_0.9", than="lilo_1_1", claim="none"),
    ),
    seeds=2,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
