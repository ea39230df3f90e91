"""What the most and the least learnable questions look like before training.

Claim: the questions of highest p(1 - p) are neither the easiest nor the hardest.
Source: Foster et al. 2025, appendix H.
Axes: groups of the first step by their success rate: all right, mixed, all wrong.
Expected: examples only.
Cost: that of item 1, whose runs these are; nothing besides.
Command: python -m experiments.paper.extreme_questions --preset tiny
Last run: tiny, no claim; seeds 301 to 305, 2026-11-30, commit bba0d1c:
    characters of the answer, mixed less all right: +2.37 [+1.75, +2.98] (5)
    characters of the answer, mixed less all wrong: -0.63 [-1.37, +0.11] (5)
"""

from collections.abc import Iterator
from typing import Any

from experiments.presets import paper, small, tiny, uniform_and_lilo
from experiments.study import Evidence, Finding, Study, of_seeds
from experiments.study_runs import main
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import markdown
from lilo_jax.storage.run_directory import RunDirectory

SHOWN = 4
KINDS = ("all right", "mixed", "all wrong")


def first_groups(run: RunDirectory) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Kind to the groups of step 0: success rate, and one of its rollouts; the most learnable first."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in run.rollouts()[0]:
        groups.setdefault(row["group"], []).append(row)
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    for rows in groups.values():
        rate = sum(row["verdict"] == "correct" for row in rows) / len(rows)
        found["all right" if rate == 1 else "all wrong" if rate == 0 else "mixed"].append((rate, rows[0]))
    return {kind: sorted(own, key=lambda group: abs(group[0] - 0.5)) for kind, own in found.items()}


def lengths(evidence: Evidence) -> Iterator[Finding]:
    """Characters of the gold answer of mixed questions, less of those that are always and never solved."""
    found: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    for seed, run in evidence.runs["lilo"].items():
        for kind, groups in first_groups(run).items():
            if groups:
                found[kind][seed] = sum(len(row["gold"]) for _, row in groups) / len(groups)
    mixed = found["mixed"]
    for kind in ("all right", "all wrong"):
        more = {seed: mixed[seed] - value for seed, value in found[kind].items() if seed in mixed}
        yield Finding(f"characters of the answer, mixed less {kind}", of_seeds(more), 0.0, "none", "+.2f")


def examples(evidence: Evidence) -> str:
    """Some questions of each kind, of the first seed."""
    run = next(iter(evidence.runs["lilo"].values()))
    rows = [
        [f"{rate:.2f}", f"`{row['prompt'].strip()[-300:]}`".replace("\n", " "), f"`{row['gold']}`"]
        for groups in first_groups(run).values()
        for rate, row in groups[:SHOWN]
    ]
    return markdown(["success rate", "question", "answer"], rows, text_columns=3)


STUDY = Study(
    id=18,
    module="experiments.paper.extreme_questions",
    text=__doc__ or "",
    tiny={"chain": tiny("ppo")},
    small={"gsm8k": small("ppo", "gsm8k")},
    paper=paper("rho1b_math_ppo", "rho1b_gsm8k_ppo"),
    arms=uniform_and_lilo,
    measures=(lengths,),
    show=examples,
)

if __name__ == "__main__":
    exit_with_message(lambda: main(STUDY))
