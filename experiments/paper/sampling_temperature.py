"""How rollouts are drawn.

Claim: none in the paper, which has 0.6 and 0.9 with PPO, and 1 and 1 with GRPO.
Source: a reviewer of Foster et al. 2025 (NeurIPS 2025): the best number of rollouts may vary with temperature and
    top-p.
Axes: temperature .6, .8, 1 and top-p .9, 1, of the rollouts that choose and are trained on; uniform and LILO.
Expected: no numbers.
Cost: paper: item 1 for each of 12 arms; tiny: minutes on two cores.
Command: python -m experiments.paper.sampling_temperature --preset tiny
Last run: tiny, no claim; seeds 301 to 302, 2026-11-30, commit bba0d1c:
    final accuracy, lilo_0.6_0.9 less uniform_0.6_0.9: +0.079 (+0.006..+0.151) (2)
    final accuracy, lilo_0.6_1 less uniform_0.6_1: +0.067 (+0.049..+0.086) (2)
    final accuracy, lilo_0.8_0.9 less uniform_0.8_0.9: +0.062 (+0.046..+0.078) (2)
    final accuracy, lilo_0.8_1 less uniform_0.8_1: +0.079 (+0.043..+0.115) (2)
    final accuracy, lilo_1_0.9 less uniform_1_0.9: +0.090 (+0.046..+0.133) (2)
    final accuracy, lilo_1_1 less uniform_1_1: +0.059 (-0.012..+0.131) (2)
    share of candidates without variance, lilo_0.6_0.9 less lilo_1_1: +0.138 (+0.132..+0.143) (2)
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
