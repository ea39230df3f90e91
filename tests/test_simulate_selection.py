"""The command of the simulator: its arms, its table, its files, its mistakes."""

import json
import sys

import numpy as np
import pytest

from experiments import simulate_selection as experiment
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.simulation import TOKENS, read_curves, summarize_cell
from lilo_jax.report.speedup import Curve, accuracy_at, smooth, speedup
from lilo_jax.simulation.run import StepRecord, Trace


def trace(accuracy, generated, trained, graded=0.0):
    """Runs of two steps between evaluations."""
    accuracy = np.array(accuracy, np.float32)
    steps = np.ones((accuracy.shape[0], 2 * (accuracy.shape[1] - 1)), np.float32)
    record = StepRecord(generated * steps, trained * steps, 8 * steps, 2 * steps, 4 * steps, 1 * steps, 0 * steps)
    return Trace(accuracy=accuracy, steps=record, graded=np.full(accuracy.shape[0], graded, np.float32))


UNIFORM = trace([[0.0, 0.2, 0.4, 0.6], [0.1, 0.3, 0.5, 0.5]], 10, 10)
ARM = trace([[0.0, 0.6, 0.9, 0.9], [0.1, 0.1, 0.1, 0.2]], 40, 10, graded=5)


def test_costs_by_hand():
    curve = read_curves(ARM, [7, 8], every=2, generation_share=0.25)[7]
    np.testing.assert_allclose(curve.budget("steps"), [0, 2, 4, 6])
    np.testing.assert_allclose(curve.budget("generated_tokens"), [5, 85, 165, 245])
    np.testing.assert_allclose(
        curve.budget("seconds") * 1e4, 0.25 * curve.budget("generated_tokens") + 0.75 * np.array([0, 20, 40, 60])
    )


def test_the_table_is_the_projects_own_speedup():
    row = summarize_cell({"uniform": UNIFORM, "arm": ARM}, [7, 8], every=2, generation_share=0.5)["arm"]
    curves = [read_curves(t, [7, 8], every=2, generation_share=0.5) for t in (UNIFORM, ARM)]
    for budget, found in row["speedup"].items():
        expected = speedup(*curves, budget)
        assert (found["mean"], found["reached"], found["of"]) == (expected.mean, expected.reached, expected.of)
    assert row["speedup"]["steps"]["by_seed"]["8"] is None
    assert row["gap_at_steps"]["by_seed"]["7"] == pytest.approx(0.8 - 0.4)
    assert row["flat_trained"] == 0.25
    assert row["generated_tokens"] == 245


def test_accuracy_at_equal_tokens():
    curve = Curve(np.array([0.0, 0.4, 0.8]), {"generated_tokens": np.array([0.0, 10, 20])})
    assert accuracy_at(curve, TOKENS, 5) == pytest.approx(smooth(curve.accuracy)[1] / 2)
    assert accuracy_at(curve, TOKENS, 99) == pytest.approx(smooth(curve.accuracy)[2])


def test_arms_by_name():
    arms = experiment.parse_arms("lilo(pool_ratio=8), regression_shuffled,experiments.simulate_selection:MostLearnable")
    assert [*arms] == [
        "uniform", "lilo(pool_ratio=8)", "regression_shuffled", "experiments.simulate_selection:MostLearnable"
    ]  # fmt: skip
    assert arms["lilo(pool_ratio=8)"].spec.pool_ratio == 8
    assert arms["regression_shuffled"].privileges.shuffled_features
    assert len(experiment.parse_arms("")) >= 20


def command(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["simulate_selection", *map(str, args)])
    exit_with_message(experiment.main)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--rules", "lillo"], "did you mean 'lilo'?"),
        (["--rules", "lilo(pool=8)"], "unknown setting of lilo 'pool': known are pool_ratio"),
        (["--rules", "lilo(8)"], "write them as in lilo(pool_ratio=8)"),
        (["--rules", "lilo(pool_ratio='8')"], "pool_ratio takes a value like 4, not '8'"),
        (["--rules", "lilo("], "cannot read the rule 'lilo('"),
        (["--rules", "mopps,lilo)"], "lilo)'"),
        (["--rules", "lilo(pool_ratio={[]: 1})"], "write them as in lilo(pool_ratio=8)"),
        (["--rules", "lilo(pool_ratio=500)"], "change --curriculum.pool-ratio"),
        (["--cells", "standart"], "did you mean 'standard'?"),
        (["--steps", "15"], "not a multiple of 10"),
        (["--seeds", "0"], "must be at least 1"),
        (["--sedes", "1"], "--sedes"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(args, says, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *args)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_command_writes_table_numbers_and_page(monkeypatch, capsys, tmp_path):
    small = ["--steps", 20, "--seeds", 2, "--questions", 8, "--samples", 4, "--jobs", 1]
    command(monkeypatch, "--rules", "lilo", "--cells", "small_pool,generation_80", *small, "--output-dir", tmp_path)
    printed = capsys.readouterr().out
    assert "Cell small_pool: 20 steps of 8 questions x 4 rollouts, 2 seeds" in printed
    cells = json.loads((tmp_path / "summary.json").read_text())["cells"]
    assert set(cells) == {"small_pool", "generation_80"}
    assert set(cells["small_pool"]["arms"]) == {"uniform", "lilo"}
    assert cells["small_pool"]["arms"]["uniform"]["speedup"]["steps"]["mean"] == 1
    assert "| lilo |" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<table>" in page
    assert "Cell generation_80" in page
