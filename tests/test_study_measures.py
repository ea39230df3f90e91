"""What studies measure, on records that are written by hand: runs whose accuracy climbs by so much a step."""

import itertools
import json

import pytest

import experiments.all
from experiments.measures import better_at, faster, in_every_budget, needed
from experiments.paper.generalisation import off_the_line
from experiments.paper.sequential_sampling import learnability
from experiments.study import CORRELATION, Evidence, Finding, is_trained, of_seeds
from experiments.study_runs import verdict_of
from lilo_jax.config import Config
from lilo_jax.storage.run_directory import RunDirectory

STEPS, EVERY = 20, 5
UNIFORM, TWICE = 0.01, 0.02
METRICS = {
    "success_mean": 0.5,
    "learnability_mean": 0.1,
    "zero_variance_fraction": 0.5,
    "trap_fraction": 0.25,
    "histogram": [2, 1, 1],
}
STUDIES = [study for study in experiments.all.studies() if any(map(is_trained, study.tiny.values()))]
BY_CHECKPOINT = (13, 19, 20)
"""Studies that read a task or a checkpoint besides the records."""


def written(path, *, slope, seed, generated=100, flops=1000, training=0.0):
    """A run: accuracy .2 + slope x step, and success on what it trains on, which climbs by `training`."""
    (path / "rollouts").mkdir(parents=True)
    run = RunDirectory(path)
    run.files.write("config.json", json.dumps({"seed": seed, "num_steps": STEPS}).encode())
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            for split, less in (("test", 0.0), ("validation", 0.0), ("longer", 0.1)):
                run.append("eval", {"step": step, "split": split, "accuracy": 0.2 - less + slope * step})
        if step == STEPS:
            break
        metrics = {f"curriculum/{kind}_{name}": v for kind in ("collected", "admitted") for name, v in METRICS.items()}
        metrics |= {f"curriculum/{kind}_success_mean": 0.2 + training * step for kind in ("collected", "admitted")}
        run.append("metrics", {"step": step, **metrics} | ({"audit/success_mean": 0.3} if step % EVERY == 0 else {}))
        run.append("groups", {"step": step, "correct": [3, 2, 1], "graded": [4, 2, 2], "admitted": [True, True, False]})
        run.append("timings", {"step": step, "sample": 0.5 * generated / 100, "update": 0.25})
        spent = {"train/generated": generated, "train/trained": 250, "train/flops": flops}
        run.append("ledger", {"step": step, **{name: value * (step + 1) for name, value in spent.items()}})
    right = {0: "cc", 1: "cw", 2: "ww", 3: "cw"}
    rows = [
        {"group": group, "admitted": group != 2, "verdict": {"c": "correct", "w": "wrong"}[letter], "gold": "1" * group}
        | {"id": f"q{group}", "prompt": "?"}
        for group, letters in right.items()
        for letter in letters
    ]
    run.write_rollouts(0, rows)
    run.mark("DONE", f"{STEPS} steps")
    return run


def evidence(tmp_path, slopes, *, settings=None, **more):
    """An arm for each name, a seed for each of its slopes."""
    numbered = itertools.count(301)
    seeds = [next(numbered) for _ in next(iter(slopes.values()))]
    runs = {
        arm: {
            seed: written(
                tmp_path / arm / str(seed), slope=slope, seed=seed, training=0.01, **(more if arm != "uniform" else {})
            )
            for seed, slope in zip(seeds, own, strict=True)
        }
        for arm, own in slopes.items()
    }
    return Evidence("chain", settings or Config(), seeds, runs=runs)


def shown(measures, of):
    return [finding.shown() for measure in measures for finding in measure(of)]


def test_every_budget_by_hand(tmp_path):
    """Smoothed, uniform ends at .2 + .01 x 15, where twice the slope is after 12.5 of 20 steps."""
    of = evidence(tmp_path, {"uniform": [UNIFORM] * 5, "lilo": [TWICE] * 5}, generated=400, flops=2000)
    found = dict(line.split(": ") for line in shown(in_every_budget({"steps": "above"}), of))
    to = "to the final accuracy of uniform, lilo"
    at = "lilo less uniform"
    assert found == {
        f"steps {to}": "1.60 times less [1.60, 1.60] (5/5)",
        f"accuracy at equal steps, {at}": "+0.150 [+0.150, +0.150] (5)",
        f"generated tokens {to}": "2.50 times more [2.50, 2.50] (5/5)",
        f"accuracy at equal generated tokens, {at}": "-0.100 [-0.100, -0.100] (5)",  # after 5 steps: .2 + .02 x 2.5
        f"trained tokens {to}": "1.60 times less [1.60, 1.60] (5/5)",
        f"accuracy at equal trained tokens, {at}": "+0.150 [+0.150, +0.150] (5)",
        f"FLOPs {to}": "1.25 times more [1.25, 1.25] (5/5)",
        f"accuracy at equal FLOPs, {at}": "-0.050 [-0.050, -0.050] (5)",  # after 10 steps: .2 + .02 x 5
        f"seconds {to}": "1.88 times more [1.88, 1.88] (5/5)",  # .75 a step against 2.25
        f"accuracy at equal seconds, {at}": "-0.083 [-0.083, -0.083] (5)",  # after 6 2/3 steps: .2 + .02 x 10/3
    }
    elsewhere = dict(line.split(": ") for line in shown(in_every_budget({}, split="longer"), of))
    assert elsewhere["steps to the final accuracy on longer of uniform, lilo"] == "1.60 times less [1.60, 1.60] (5/5)"
    assert elsewhere[f"accuracy on longer at equal steps, {at}"] == "+0.150 [+0.150, +0.150] (5)"


def test_below_five_seeds_there_is_a_range_and_no_verdict(tmp_path):
    for number, spread, verdict in ((2, "(1.60..1.60)", "open"), (5, "[1.60, 1.60]", "agrees")):
        of = evidence(tmp_path / str(number), {"uniform": [UNIFORM] * number, "lilo": [TWICE] * number})
        (finding,) = faster()(of)
        assert spread in finding.shown()
        assert finding.verdict == verdict
        (finding,) = better_at("steps")(of)
        assert ("[" in finding.shown()) == (number == 5)
        assert finding.verdict == verdict


def test_an_arm_that_never_arrives_says_so(tmp_path):
    never = evidence(tmp_path / "never", {"uniform": [UNIFORM] * 5, "lilo": [UNIFORM / 2] * 5})
    (finding,) = faster()(never)
    assert finding.shown() == "steps to the final accuracy of uniform, lilo: never reached (0/5)"
    assert finding.verdict == "open"
    few = evidence(tmp_path / "few", {"uniform": [UNIFORM] * 5, "lilo": [TWICE, *[UNIFORM / 2] * 4]})
    assert next(iter(faster()(few))).shown().endswith("not reached on most seeds (1/5)")
    most = evidence(tmp_path / "most", {"uniform": [UNIFORM] * 5, "lilo": [*[TWICE] * 4, UNIFORM / 2]})
    (finding,) = faster()(most)
    assert "1.60 times less [never, 1.60] in the median seed, not reached on all (4/5)" in finding.shown()
    assert finding.verdict == "open"  # an interval of those that arrived says nothing of all
    assert needed({"mean": 1.0, "low": 1.0, "high": 1.0, "reached": 1, "of": 1, "by_seed": {"1": 1.0}}).startswith(
        "1.00 times as much"
    )


def test_who_climbs_faster_is_not_off_the_line_for_it(tmp_path):
    """Training and test accuracy are equal after every step: half a step of the difference in slope is left."""
    runs = {
        arm: {1: written(tmp_path / arm, slope=slope, seed=1, training=slope)}
        for arm, slope in (("uniform", UNIFORM), ("lilo", TWICE))
    }
    (finding,) = off_the_line(Evidence("chain", Config(), [1], runs=runs))
    assert finding.value["mean"] == pytest.approx((TWICE - UNIFORM) / 2)


def test_learnability_of_groups_of_several_sizes(tmp_path):
    """Unbiased p (1 - p) of 3 right of 4 is 3 x 1 / (4 x 3), of 2 of 2 nothing; of four rollouts and of two."""
    run = written(tmp_path / "run", slope=UNIFORM, seed=1)
    assert learnability(run) == pytest.approx((4 * 1 / 4 + 2 * 0) / 6)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("study", [s for s in STUDIES if s.id not in BY_CHECKPOINT], ids=lambda study: study.name)
def test_a_study_finds_something_in_its_records(study, seeds, tmp_path):
    """Every measure of every study: numbers, whatever arm has what slope; nothing decided with two seeds."""
    for name, settings in study.tiny.items():
        slopes = {arm: [0.01 + 0.001 * i] * seeds for i, arm in enumerate(study.arms(settings))}
        of = evidence(tmp_path / name, slopes, settings=settings)
        findings = list(study.findings([of]))
        assert findings
        for finding in findings:
            assert isinstance(finding, Finding)
            assert "nan" not in finding.shown()
            assert finding.value["mean"] is not None or "reached" in finding.shown()
            if seeds == 2:
                assert finding.verdict == ("no claim" if finding.claim == "none" else "open")
        assert verdict_of(findings) in ("agrees", "disagrees", "open", "no claim")
        assert isinstance(study.show(of), str)


def test_an_interval_is_no_wider_than_what_a_correlation_can_be():
    found = of_seeds({1: 0.6, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: float("nan")}, CORRELATION)
    assert found["high"] == 1.0
    assert found["low"] == pytest.approx(0.92 - 2.7764 * 0.17889 / 5**0.5, abs=1e-3)  # t of 4 degrees, deviation .179
    assert found["seeds"] == "5"
