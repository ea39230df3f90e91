"""Paired comparison of arms: by hand, its coverage over simulated pairs, what it refuses."""

import json

import numpy as np
import pytest

from lilo_jax import config as configuration
from lilo_jax.cli import parser
from lilo_jax.errors import UsageError
from lilo_jax.report.paired import compare, difference, last_outcomes, probability_of_improvement
from lilo_jax.storage.run_directory import RunDirectory


def test_a_difference_is_paired_by_seed_and_question():
    before = {1: {"a": 0.0, "b": 0.5, "c": 0.0}, 2: {"a": 0.2, "b": 0.0}, 3: {"a": 1.0}}
    after = {2: {"a": 0.4, "b": 0.2}, 1: {"a": 0.2, "b": 0.7, "d": 1.0}}
    found = difference(before, after)
    assert found["seeds"] == 2
    assert found["mean"] == pytest.approx(0.2)
    assert found["high"] - found["low"] == pytest.approx(0, abs=1e-9)  # the same on all seeds and questions


def test_the_interval_is_that_of_student_where_each_seed_has_one_number():
    rng = np.random.default_rng(0)
    gaps = rng.normal(0.1, 0.05, 8)
    found = difference({s: {"": 0.0} for s in range(8)}, {s: {"": gap} for s, gap in enumerate(gaps)}, draws=20_000)
    half = 2.3646 * gaps.std(ddof=1) / np.sqrt(8)
    assert found["mean"] == pytest.approx(gaps.mean())
    assert found["high"] - found["mean"] == pytest.approx(half, rel=0.02)


def simulated(rng, gain, *, seeds=5, questions=200):
    """Two arms: questions of all difficulties, runs that turn out better or worse, one response to each question."""
    difficulty = rng.normal(0, 1.5, questions)

    def arm(gain):
        runs = {}
        for seed in range(seeds):
            p = 1 / (1 + np.exp(difficulty - rng.normal(0, 0.15))) + gain
            runs[seed] = dict(enumerate((rng.random(questions) < p).astype(float)))
        return runs

    return arm(0.0), arm(gain)


def test_of_equal_arms_the_interval_covers_nothing_and_a_planted_gain_is_seen():
    rng = np.random.default_rng(1)
    equal = [difference(*simulated(rng, 0.0), draws=300) for _ in range(200)]
    covered = np.mean([found["low"] <= 0 <= found["high"] for found in equal])
    assert covered >= 0.93
    assert np.mean([found["high"] - found["low"] for found in equal]) < 0.25  # by not being wider than it must
    planted = [difference(*simulated(rng, 0.05, seeds=12, questions=500), draws=300) for _ in range(40)]
    assert np.mean([found["mean"] for found in planted]) == pytest.approx(0.05, abs=0.01)
    assert np.mean([found["low"] > 0 for found in planted]) >= 0.8


def test_probability_of_improvement_counts_pairs():
    assert probability_of_improvement(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(
        (1 + 0.5 + 1 + 1) / 4
    )


@pytest.mark.slow
def test_arms_of_a_directory_are_compared_and_other_differences_refused(tiny_run, tmp_path, monkeypatch, capsys):
    config, directory = tiny_run
    for seed in (1, 2):
        for arm, gain in (("uniform", 0.0), ("better", 0.25)):
            run = RunDirectory(tmp_path / f"seed_{seed}" / arm)
            run.path.mkdir(parents=True)
            run.describe(configuration.to_dict(configuration.replace(config, seed=seed)), b"")
            for step in (0, 10):
                level = 0.25 + gain * (step > 0)
                run.append("eval", {"step": step, "split": "test", "accuracy": level})
                rights = [level > 0.3, seed == 1, True, False]
                records = [
                    {"question": {"id": str(i)}, "responses": [{"verdict": "correct" if right else "wrong"}]}
                    for i, right in enumerate(rights)
                ]
                run.write_generations(step, "test", records, only=True)
            ledger = directory.read("ledger")[0]
            for step in range(10):
                run.append("ledger", ledger | {"step": step})
                run.append("timings", {"step": step, "sample": 1.0})
                run.append("grading", {"step": step, "seconds": 0.0})
    assert last_outcomes(run, "test") == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0}
    monkeypatch.chdir(tmp_path)
    table = compare(["uniform", "better"], "curriculum")
    lines = table.splitlines()
    assert "| better | 2 |" in lines[3]
    assert "+0.250 [" in lines[3]
    assert "4 questions" in lines[-1]
    changed = configuration.replace(config, seed=2, optimizer__learning_rate=0.5)
    run.store_config(configuration.to_dict(changed))
    (tmp_path / "seed_1" / "better" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"in more than curriculum: optimizer\.learning_rate; --factor any"):
        compare(["seed_2/uniform", "seed_2/better"], "curriculum")
    with pytest.raises(UsageError, match="two arms or more"):
        compare(["seed_2/uniform"], "curriculum")
    with pytest.raises(UsageError, match="is no run directory, and there is no"):
        compare(["seed_2/uniform", "nowhere"], "curriculum")
    assert json.dumps(vars(parser().parse_args(["compare", "a", "b"])), default=str)
