"""What studies measure: speed-ups, accuracies and metrics of one arm beside another's, paired by seed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.study import BASELINE, Claim, Evidence, Finding, Measure, Part, of_seeds
from lilo_jax.report.speedup import accuracy_at, smooth
from lilo_jax.report.summary import ACCURACY, DIFFERENCE, read_curve
from lilo_jax.report.tables import budget_title, interval, median_times, times

COLLECTED, ADMITTED = "curriculum/collected_", "curriculum/admitted_"
SPENT = ("steps", "generated_tokens", "trained_tokens", "flops", "seconds")
LEARNABILITY, ZERO_VARIANCE, SUCCESS = "learnability_mean", "zero_variance_fraction", "success_mean"


def faster(
    arm: str = "lilo", budget: str = "steps", *, than: str = BASELINE, claim: Claim = "above", split: str = ""
) -> Measure:
    """How many times less of a budget an arm needs for the final accuracy of another."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        found = evidence.summary(than, split)["speedup"][arm][budget]
        value = found | {"seeds": f"{found['reached']}/{found['of']}"}
        if found["reached"] < found["of"]:  # an interval of only those seeds that arrived says nothing of all
            value |= {"low": None, "high": None}
        what = f"{budget_title(budget)} to the final accuracy{_on(split)} of {than}, {arm}"
        yield Finding(what, value, 1.0, claim, ".2f", needed(found))

    return measure


def needed(speedup: Mapping[str, Any]) -> str:
    """A speed-up in words, with its interval and seeds; of the median seed where one did not arrive.

    >>> ratios = {"mean": 0.5, "low": 0.4, "high": 0.8, "reached": 5, "of": 5, "by_seed": dict.fromkeys("12345", 0.5)}
    >>> needed(ratios)
    '2.00 times more [1.25, 2.50] (5/5)'
    """
    reached = f"({speedup['reached']}/{speedup['of']})"
    if not speedup["reached"]:
        return f"never reached {reached}"
    if speedup["reached"] == speedup["of"]:
        return f"{_times(*times(speedup))} {reached}"
    if speedup["median"] is None:
        return f"not reached on most seeds {reached}"
    return f"{_times(*median_times(speedup))} in the median seed, not reached on all {reached}"


def _times(factor: Mapping[str, Any], word: str) -> str:
    return f"{factor['mean']:.2f} times {word or 'as much'}{interval(factor, '.2f')}"


def better(arm: str = "lilo", *, than: str = BASELINE, claim: Claim = "above", split: str = "") -> Measure:
    """How much higher the final accuracy of an arm is than another's."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        gap = evidence.summary(than, split)["gap_to_baseline"][arm]["by_seed"]
        yield Finding(
            f"final accuracy{_on(split)}, {arm} less {than}", of_seeds(_whole(gap), DIFFERENCE), 0.0, claim, "+.3f"
        )

    return measure


def better_at(
    budget: str, arm: str = "lilo", *, than: str = BASELINE, claim: Claim = "above", split: str = ""
) -> Measure:
    """How much higher the accuracy of an arm is, when it has spent what another did in all, than that one's final."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        where, gap = split or evidence.split(), {}
        for seed, run in evidence.runs[than].items():
            own, other = read_curve(evidence.runs[arm][seed], where), read_curve(run, where)
            reached = accuracy_at(own, budget, float(other.budget(budget)[-1]))
            gap[seed] = reached - float(smooth(other.accuracy)[-1])
        what = f"accuracy{_on(split)} at equal {budget_title(budget)}, {arm} less {than}"
        yield Finding(what, of_seeds(gap, DIFFERENCE), 0.0, claim, "+.3f")

    return measure


def in_every_budget(claims: Mapping[str, Claim], *, split: str = "") -> Iterator[Measure]:
    """How many times less of each of `SPENT` LILO needs, and how much better it is when it has spent as much."""
    for budget in SPENT:
        yield faster("lilo", budget, claim=claims.get(budget, "none"), split=split)
        yield better_at(budget, claim=claims.get(budget, "none"), split=split)


def compared(arms: Iterable[str]) -> tuple[Measure, ...]:
    """Accuracy at equal steps, and tokens, against uniform, of arms of which nobody has claimed anything."""
    return tuple(
        measure
        for arm in arms
        for measure in (better(arm, claim="none"), faster(arm, "generated_tokens", claim="none"))
    )


def gain(arm: str, *, claim: Claim = "above", split: str = "") -> Measure:
    """How much higher the final accuracy of an arm is than its first."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        summary = evidence.summary(split=split)
        start, final = (summary[moment][arm]["by_seed"] for moment in ("start", "final"))
        gained = {int(seed): final[seed] - start[seed] for seed in final}
        yield Finding(f"final less first accuracy{_on(split)}, {arm}", of_seeds(gained, DIFFERENCE), 0.0, claim, "+.3f")

    return measure


def metric(
    name: str, what: str, arm: str = "lilo", *, than: str = BASELINE, claim: Claim = "above", part: Part = "all"
) -> Measure:
    """How much higher a metric is under one arm than under another, over all steps or a part of them."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        own, other = (evidence.of_metric(name, each, part) for each in (arm, than))
        paired = {seed: own[seed] - other[seed] for seed in own if seed in other}
        yield Finding(f"{what}, {arm} less {than}", of_seeds(paired, DIFFERENCE), 0.0, claim, "+.3f")

    return measure


def level(name: str, what: str, arm: str, *, than: float = 0.0, claim: Claim = "above", part: Part = "all") -> Measure:
    """A metric of an arm, over all steps or a part of them."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        yield Finding(f"{what}, {arm}", of_seeds(evidence.of_metric(name, arm, part), ACCURACY), than, claim)

    return measure


def trend(name: str, what: str, arm: str = "lilo", *, claim: Claim = "below") -> Measure:
    """How much higher a metric is in the last third of the steps than in the first."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        early, late = evidence.of_metric(name, arm, "early"), evidence.of_metric(name, arm, "late")
        risen = {seed: late[seed] - early[seed] for seed in late}
        yield Finding(f"{what}, last less first third, {arm}", of_seeds(risen, DIFFERENCE), 0.0, claim, "+.3f")

    return measure


def _on(split: str) -> str:
    return f" on {split}" if split else ""


def _whole(by_seed: dict[str, float]) -> dict[int, float]:
    return {int(seed): value for seed, value in by_seed.items() if value is not None}
