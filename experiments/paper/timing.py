"""Where the seconds of an iteration go.

Claim: LILO multiplies the seconds of sampling by 4, which is a quarter more of PPO's iteration and next to nothing of
    VinePPO's.
Source: Foster et al. 2025, table 1; GRPO, which it leaves out, is here too.
Axes: PPO, VinePPO, GRPO; uniform and LILO; seconds of sampling, of training, in all.
Expected: PPO 20 -> 80 s sampling, 220 -> 280 s in all (1.27 times); VinePPO 1500 -> 1550, 2000 -> 2050 s (1.025
    times).
Cost: that of items 1 to 3, whose runs these are; nothing besides.
Command: python -m experiments.paper.timing --preset tiny
Last run: tiny, disagrees; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    ppo, seconds of sampling, lilo over uniform: 2.21 [2.06, 2.35] (5)
    ppo, seconds of training, lilo over uniform: 0.93 [0.90, 0.97] (5)
    ppo, seconds of all, lilo over uniform: 1.13 [1.08, 1.17] (5)
    vineppo, seconds of sampling, lilo over uniform: 1.08 [0.78, 1.38] (5)
    vineppo, seconds of training, lilo over uniform: 0.88 [0.76, 1.00] (5)
    vineppo, seconds of all, lilo over uniform: 1.04 [0.78, 1.30] (5)
    grpo, seconds of sampling, lilo over uniform: 2.52 [2.06, 2.97] (5)
    grpo, seconds of training, lilo over uniform: 0.94 [0.83, 1.05] (5)
    and 1 more: experiments/README.md
"""

from collections.abc import Iterator

from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import RATIO, Claim, Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.run_directory import RunDirectory

SAMPLING = ("sample", "grade", "select")
TRAINING = ("score", "update")


def seconds(run: RunDirectory, phases: tuple[str, ...]) -> float:
    """Of a step, the mean over all; the first step's compilation is a phase of its own."""
    steps = [record for record in run.read("timings") if record["step"] >= 0]
    return sum(record.get(phase, 0.0) for record in steps for phase in phases) / len(steps)


def ratios(evidence: Evidence) -> Iterator[Finding]:
    """LILO's seconds over uniform's."""
    parts: dict[str, tuple[tuple[str, ...], Claim]] = {
        "sampling": (SAMPLING, "above"),
        "training": (TRAINING, "near"),
        "all": (SAMPLING + TRAINING, "above"),
    }
    for what, (phases, claim) in parts.items():
        values = {
            seed: seconds(run, phases) / seconds(evidence.runs["uniform"][seed], phases)
            for seed, run in evidence.runs["lilo"].items()
        }
        yield Finding(f"seconds of {what}, lilo over uniform", of_seeds(values, RATIO), 1.0, claim, ".2f")


STUDY = Study(
    id=6,
    module="experiments.paper.timing",
    text=__doc__ or "",
    tiny={"ppo": tiny("ppo"), "vineppo": tiny("vineppo"), "grpo": tiny("grpo")},
    small={"ppo": small("ppo", "gsm8k"), "vineppo": small("vineppo", "gsm8k"), "grpo": small("grpo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_math_vineppo", "qwen2_5_1_5b_orz57k_grpo"),
    arms=uniform_and_lilo,
    measures=(ratios,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
