"""Going on with a model that RL has already trained on these questions.

Claim: learnable questions are left, LILO finds them, and accuracy hardly moves.
Source: Foster et al. 2025, figure 7.
Axes: GRPO from Oat-Zero-1.5B on its own training set; uniform and LILO.
Expected: batches with learnability far above 0; test accuracy about flat.  Values only in the figure.
Cost: paper: about a day on eight H200 for each arm; tiny: minutes on two cores.  There the start is a run of LILO
    itself.
Command: python -m experiments.paper.continued_training --preset tiny
Last run: tiny, agrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    gain of going on with lilo less that of the first run: -0.278 [-0.330, -0.226] (5)
    learnability of the batch, lilo: 0.059 [0.052, 0.067] (5)
    final less first accuracy, uniform: +0.009 [-0.013, +0.031] (5)
    final less first accuracy, lilo: +0.086 [+0.057, +0.114] (5)
    final accuracy, lilo less uniform: +0.077 [+0.046, +0.107] (5)
"""

from collections.abc import Iterator

from experiments.measures import better, gain, level
from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.config import Config
from lilo_jax.processes.endings import exit_with_message

OAT_ZERO = "sail/Qwen2.5-Math-1.5B-Oat-Zero"


def arms(config: Config) -> dict[str, Config]:
    """The first run, where the model has had none, and two that go on."""
    first = {} if config.model.path == OAT_ZERO else {"first": config}
    return first | uniform_and_lilo(config)


def less_than_before(evidence: Evidence) -> Iterator[Finding]:
    """What going on gained, less what the first run had."""
    if "first" in evidence.runs:
        summary = evidence.summary()
        start, final = summary["start"], summary["final"]
        first, again = (
            {int(s): final[arm]["by_seed"][s] - start[arm]["by_seed"][s] for s in final[arm]["by_seed"]}
            for arm in ("first", "lilo")
        )
        less = {seed: again[seed] - first[seed] for seed in again}
        yield Finding("gain of going on with lilo less that of the first run", of_seeds(less), 0.0, "below", "+.3f")


STUDY = Study(
    id=15,
    module="experiments.paper.continued_training",
    text=__doc__ or "",
    tiny={"chain": tiny("grpo")},
    small={"gsm8k": small("grpo", "gsm8k")},
    paper=paper("qwen2_5_math_1_5b_orz57k_grpo", model__path=OAT_ZERO),
    arms=arms,
    begins="first",
    measures=(
        less_than_before,
        level("curriculum/admitted_learnability_mean", "learnability of the batch", "lilo"),
        gain("uniform", claim="none"),
        gain("lilo", claim="none"),
        better("lilo", claim="none"),
    ),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
