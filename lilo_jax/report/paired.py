"""Two arms compared seed by seed and question by question: whether their difference is more than chance.

The runs of a seed share their start, and all runs their held-out questions, so that most of what makes accuracies vary
is the same in both arms and falls out of the difference.  What is left varies over seeds and over questions: both are
drawn anew, with replacement, in a bootstrap of two levels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from lilo_jax.errors import UsageError
from lilo_jax.report.comparison import choose_split, differences, runs_in
from lilo_jax.report.summary import Arms, read_curve, speedups
from lilo_jax.report.tables import MAIN_BUDGETS, budget_title, markdown, speedup_cell
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.run_directory import RunDirectory

DRAWS = 2000
"""Of the bootstrap."""
TRIMMED = 0.25
"""Share that the interquartile mean leaves out at either end."""

Outcomes = Mapping[int, Mapping[str, float]]
"""Seed to question to the share of right responses; one entry, "", where only the accuracy of a run is known."""


def compare(paths: Sequence[str], factor: str) -> str:
    """A table of arms, each against the first, as Markdown.

    Args:
        paths: arms, each a run directory, or ROOT/ARM for the runs in ROOT/seed_*/ARM.
        factor: dotted name of the setting, or of the settings, in which arms may differ; any: all.

    Raises:
        UsageError: there is no such run, fewer than two arms, or arms differ in more than the factor.
    """
    arms = {path.rstrip("/"): _runs_of(path) for path in paths}
    if len(arms) < 2:
        raise UsageError("a comparison needs two arms or more, each a run directory or ROOT/ARM of ROOT/seed_*/ARM")
    if factor != "any":
        _refuse_other_differences(arms, factor)
    split = choose_split(arms)
    outcomes = {name: {seed: last_outcomes(run, split) for seed, run in runs.items()} for name, runs in arms.items()}
    baseline, *others = arms
    head = ["arm", "seeds", split, "interquartile mean", "difference", "P(better)", *map(budget_title, MAIN_BUDGETS)]
    rows = [[baseline, str(len(arms[baseline])), *_level(outcomes[baseline]), *[""] * (2 + len(MAIN_BUDGETS))]]
    for name in others:
        found = difference(outcomes[baseline], outcomes[name])
        better = probability_of_improvement(_accuracies(outcomes[baseline]), _accuracies(outcomes[name]))
        before, after = ({seed: read_curve(run, split) for seed, run in arms[arm].items()} for arm in (baseline, name))
        needed = speedups(before, after)
        cells = [f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]", f"{better:.2f}"]
        cells += [speedup_cell(needed[budget]) for budget in MAIN_BUDGETS]
        rows.append([name, str(found["seeds"]), *_level(outcomes[name]), *cells])
    questions = len(next(iter(outcomes[baseline].values())))
    by_question = f", {questions} questions" if questions > 1 else "; of single questions nothing was kept"
    note = f"paired by seed{by_question}; 95% intervals of a bootstrap over {'seeds and questions' * (questions > 1)}"
    return f"{markdown(head, rows)}\n\n{note}{'seeds' * (questions == 1)}"


def difference(before: Outcomes, after: Outcomes, *, draws: int = DRAWS) -> dict[str, Any]:
    """How much higher the accuracy of one arm is than that of another, on their common seeds and questions.

    With x_sq the difference on seed s and question q, and m their mean, the interval is m -+ t e.  e^2 is the variance
    of the means over S seeds and Q questions that are drawn anew with replacement, times S / (S - 1), as resampling S
    seeds shows only (S - 1) / S of their variance; t is Student's quantile for S - 1 degrees of freedom.  Of one seed
    only questions are drawn, and the interval says nothing of other seeds.

    Returns:
        `mean`, `low`, `high`, and `seeds`, S.

    Raises:
        UsageError: the arms have no seed or no question in common.
    """
    seeds = sorted(before.keys() & after.keys())
    questions = sorted(set.intersection(*[set(arm[s]) for arm in (before, after) for s in seeds])) if seeds else []
    if not questions:
        raise UsageError("the arms have no seed and question in common: run them on the same seeds and held-out set")
    x = np.array([[after[s][q] - before[s][q] for q in questions] for s in seeds])
    rng = np.random.default_rng(0)
    means = np.array(
        [
            x[rng.integers(len(seeds), size=len(seeds))][:, rng.integers(len(questions), size=len(questions))].mean()
            for _ in range(draws)
        ]
    )
    spare = max(len(seeds) - 1, 1)
    error = means.std() * np.sqrt(len(seeds) / spare)
    quantile = scipy.stats.t.ppf(0.975, spare) if len(seeds) > 1 else scipy.stats.norm.ppf(0.975)
    mean = float(x.mean())
    return {"mean": mean, "low": mean - quantile * error, "high": mean + quantile * error, "seeds": len(seeds)}


def probability_of_improvement(before: Float[np.ndarray, "n"], after: Float[np.ndarray, "m"]) -> float:
    """P(a run of one arm is better than one of the other), ties counted half (Agarwal et al. 2021, section 4.3)."""
    higher = after[:, None] > before[None]
    return float((higher + 0.5 * (after[:, None] == before[None])).mean())


def last_outcomes(run: RunDirectory, split: str) -> dict[str, float]:
    """The share of right responses to each question in the last evaluation; of exact evaluations the accuracy alone."""
    evaluations = [record for record in run.read("eval") if record["split"] == split]
    if not evaluations:
        raise UsageError(f"{run.path} has no evaluation on {split!r}")
    last = evaluations[-1]
    kept = run.generations(last["step"], split)
    if not kept:
        return {"": last["accuracy"]}
    return {
        record["question"]["id"]: float(np.mean([r["verdict"] == "correct" for r in record["responses"]]))
        for record in kept
    }


def _accuracies(outcomes: Outcomes) -> np.ndarray:
    return np.array([np.mean(list(own.values())) for own in outcomes.values()])


def _level(outcomes: Outcomes) -> tuple[str, str]:
    """Mean accuracy, and the interquartile mean over seeds (Agarwal et al. 2021)."""
    values = _accuracies(outcomes)
    return f"{values.mean():.3f}", f"{scipy.stats.trim_mean(values, TRIMMED):.3f}"


def _runs_of(path: str) -> dict[int, RunDirectory]:
    """Seed to run of an arm."""
    given = path_of(path)
    seeds: list[AnyPath] = sorted(given.parent.glob("seed_*"))
    named: list[AnyPath] = [seed / given.name for seed in seeds]
    beside = [given] if given.exists() else [each for each in named if each.exists()]
    if not beside:
        raise UsageError(f"{path} is no run directory, and there is no {given.parent}/seed_*/{given.name}")
    runs = [run for each in beside for run in runs_in(each)]
    found = {int(run.config_values()["seed"]): run for run in runs}
    if len(found) < len(runs):
        raise UsageError(f"{path} holds several runs of a seed: name one arm, as ROOT/ARM")
    return found


def _refuse_other_differences(arms: Arms, factor: str) -> None:
    first = {name: next(iter(runs.values())) for name, runs in arms.items()}
    other = [name for name in differences(first.values()) if name != factor and not name.startswith(f"{factor}.")]
    if other:
        raise UsageError(
            f"the arms differ in more than {factor}: {', '.join(other[:6])}; --factor any compares them all the same"
        )
