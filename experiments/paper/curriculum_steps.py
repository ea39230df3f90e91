"""How long the solutions of the selected questions are.

Claim: LILO is a curriculum: on MATH it starts with questions of fewer steps than average and goes on to longer ones.
Source: Foster et al. 2025, figure 5.
Axes: steps of the gold solution, of the selected questions less those of all candidates, early and late.
Expected: MATH: below 0 early, above 0 late; GSM8K: above 0 throughout.  Values only in the figure.
Cost: that of item 1, with the rollouts of every 20th step kept; nothing besides.  A chain has a step for every digit.
Command: python -m experiments.paper.curriculum_steps --preset tiny
Last run: tiny, open; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    steps of selected questions less of candidates, first half: +0.45 [+0.11, +0.79] (5)
    steps of selected questions less of candidates, second half: -0.05 [-0.61, +0.52] (5)
    steps of selected questions less of candidates, risen by: -0.50 [-1.13, +0.14] (5)
"""

from collections.abc import Iterator

from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.config import of_run
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.steps import newlines


def excess_by_step(run: RunDirectory) -> list[float]:
    """Mean steps of the selected questions less those of all candidates, at each recorded step."""
    config = of_run(run)
    task = config.task.build(config.seed)
    split = task.steps or newlines
    steps = {q.id: len(split(q.solution or q.answer)) for q in task.splits["train"]}
    found = []
    for _, rows in sorted(run.rollouts().items()):
        groups = {row["group"]: row for row in rows}.values()
        selected = [steps[row["id"]] for row in groups if row["admitted"]]
        everyone = [steps[row["id"]] for row in groups]
        found.append(sum(selected) / len(selected) - sum(everyone) / len(everyone))
    return found


def early_and_late(evidence: Evidence) -> Iterator[Finding]:
    """The excess in the first and the last half of the recorded steps, and how it rose."""
    excess = {seed: excess_by_step(run) for seed, run in evidence.runs["lilo"].items()}
    halves = {seed: (values[: len(values) // 2], values[len(values) // 2 :]) for seed, values in excess.items()}
    early, late = ({seed: sum(h[i]) / len(h[i]) for seed, h in halves.items()} for i in (0, 1))
    what = "steps of selected questions less of candidates"
    yield Finding(f"{what}, first half", of_seeds(early), 0.0, "none", "+.2f")
    yield Finding(f"{what}, second half", of_seeds(late), 0.0, "above", "+.2f")
    yield Finding(f"{what}, risen by", of_seeds({s: late[s] - early[s] for s in late}), 0.0, "above", "+.2f")


STUDY = Study(
    id=13,
    module="experiments.paper.curriculum_steps",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo"),
    arms=uniform_and_lilo,
    measures=(early_and_late,),
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
