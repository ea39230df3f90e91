"""What a report says first, in sentences."""

from collections.abc import Mapping
from typing import Any

from lilo_jax.report.tables import MAIN_BUDGETS, budget_title, factor, includes_one, interval, is_range, listed, times

_FEWER = {"less": "fewer", "more": "more", "": "as many"}


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """One sentence per arm that is compared, or per arm if none is; then one per run that collapsed."""
    if summary["speedup"]:
        sentences = [_speedup_sentence(summary, arm) for arm in summary["speedup"]]
    else:
        sentences = [_accuracy_sentence(summary, arm) for arm in summary["final"]]
    collapsed = [(arm, *found) for arm, seeds in summary["collapses"].items() for found in seeds.items()]
    return sentences + [f"{arm} collapsed on seed {seed}: {listed(clauses)}." for arm, seed, clauses in collapsed]


def _accuracy_sentence(summary: Mapping[str, Any], arm: str) -> str:
    start, final, runs = summary["start"][arm]["mean"], summary["final"][arm], summary["arms"][arm]
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"seed {runs[0]['seed']}"
    return (
        f"{arm}: accuracy on {summary['split']} went from {start:.3f} to {final['mean']:.3f}{interval(final, '.3f')} "
        f"in {max(run['steps'][-1] for run in runs)} steps ({seeds})."
    )


def _speedup_sentence(summary: Mapping[str, Any], arm: str) -> str:
    budgets, baseline = summary["speedup"][arm], summary["baseline"]
    steps = budgets["steps"]
    target = summary["final"][baseline]["mean"]
    goal = f"{baseline}'s final {summary['split']} accuracy ({target:.3f})"
    if not steps["of"]:
        return f"{arm} has no seed in common with {baseline}, so nothing is compared."
    if not steps["reached"]:
        return f"{arm} did not reach {goal} on any of {steps['of']} seeds."
    parts = []
    for name in MAIN_BUDGETS:
        budget = budgets[name]
        if budget["mean"] is None:
            continue
        needed, word = times(budget)
        many = f"{needed['mean']:.2f} times {_FEWER[word]}" if word else "as many"
        parts.append(f"{many} {budget_title(name)}{_spread(budget)}")
    missed = "" if steps["reached"] == steps["of"] else "; the seeds that did not are left out of these means"
    seeds = f"on {steps['reached']} of {steps['of']} seeds"
    return f"{arm} reached {goal} {seeds}, with {listed(parts)}{missed}."


def _spread(budget: Mapping[str, Any]) -> str:
    """Interval or range of a speed-up in words, or nothing if there is none."""
    if budget["low"] is None:
        return ""
    ends = [factor(budget[end]) for end in ("low", "high")]
    if {word for _, word in ends} == {"less", "more"}:  # each end then says its own
        limits = " to ".join(f"{needed:.2f} times {_FEWER[word]}" for needed, word in ends)
    else:
        limits = " to ".join(f"{needed:.2f}" for needed in sorted(needed for needed, _ in ends))
    name = f"range of {budget['reached']} seeds" if is_range(budget) else "95% interval"
    return f" ({name} {limits}{', so no clear difference' if includes_one(budget) else ''})"
