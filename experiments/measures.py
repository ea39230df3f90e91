"""What studies measure: speed-ups, accuracies and metrics of one arm beside another's, paired by seed."""

from collections.abc import Iterable, Iterator

from experiments.study import BASELINE, Claim, Evidence, Finding, Measure, Part, of_seeds
from lilo_jax.report.tables import budget_title

COLLECTED, ADMITTED = "curriculum/collected_", "curriculum/admitted_"
LEARNABILITY, ZERO_VARIANCE, SUCCESS = "learnability_mean", "zero_variance_fraction", "success_mean"


def faster(
    arm: str = "lilo", budget: str = "steps", *, than: str = BASELINE, claim: Claim = "above", split: str = ""
) -> Measure:
    """How many times less of a budget an arm needs for the final accuracy of another."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        found = evidence.summary(than, split)["speedup"][arm][budget]
        value = {name: found[name] for name in ("mean", "low", "high")}
        value["seeds"] = f"{found['reached']}/{found['of']}"
        # An interval of only those seeds that arrived says nothing of all.
        complete = value if found["reached"] == found["of"] else value | {"low": None, "high": None}
        yield Finding(f"times fewer {budget_title(budget)}, {arm} against {than}", complete, 1.0, claim, ".2f")

    return measure


def better(arm: str = "lilo", *, than: str = BASELINE, claim: Claim = "above", split: str = "") -> Measure:
    """How much higher the final accuracy of an arm is than another's."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        gap = evidence.summary(than, split)["gap_to_baseline"][arm]["by_seed"]
        where = f" on {split}" if split else ""
        yield Finding(f"final accuracy{where}, {arm} less {than}", of_seeds(_whole(gap)), 0.0, claim, "+.3f")

    return measure


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
        where = f" on {split}" if split else ""
        gained = {int(seed): final[seed] - start[seed] for seed in final}
        yield Finding(f"final less first accuracy{where}, {arm}", of_seeds(gained), 0.0, claim, "+.3f")

    return measure


def metric(
    name: str, what: str, arm: str = "lilo", *, than: str = BASELINE, claim: Claim = "above", part: Part = "all"
) -> Measure:
    """How much higher a metric is under one arm than under another, over all steps or a part of them."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        own, other = (evidence.of_metric(name, each, part) for each in (arm, than))
        paired = {seed: own[seed] - other[seed] for seed in own if seed in other}
        yield Finding(f"{what}, {arm} less {than}", of_seeds(paired), 0.0, claim, "+.3f")

    return measure


def level(name: str, what: str, arm: str, *, than: float = 0.0, claim: Claim = "above", part: Part = "all") -> Measure:
    """A metric of an arm, over all steps or a part of them."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        yield Finding(f"{what}, {arm}", of_seeds(evidence.of_metric(name, arm, part)), than, claim)

    return measure


def trend(name: str, what: str, arm: str = "lilo", *, claim: Claim = "below") -> Measure:
    """How much higher a metric is in the last third of the steps than in the first."""

    def measure(evidence: Evidence) -> Iterator[Finding]:
        early, late = evidence.of_metric(name, arm, "early"), evidence.of_metric(name, arm, "late")
        risen = {seed: late[seed] - early[seed] for seed in late}
        yield Finding(f"{what}, last less first third, {arm}", of_seeds(risen), 0.0, claim, "+.3f")

    return measure


def _whole(by_seed: dict[str, float]) -> dict[int, float]:
    return {int(seed): value for seed, value in by_seed.items() if value is not None}
