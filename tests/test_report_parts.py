"""Parts of reports, each against cases worked out by hand: pools, beliefs, collapses, budgets, files, completions."""

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from written_runs import ATTACK, POOL, write_run

from lilo_jax.report import html as report
from lilo_jax.report.collapse import collapses, fall
from lilo_jax.report.completions import chosen
from lilo_jax.report.page import escaped, sentence, table_element
from lilo_jax.report.pool import FORGOTTEN, FRONTIER, SOLVED, UNSEEN, UNSOLVED, pool_element, pool_history, pool_table
from lilo_jax.report.pool_figures import reliability, sorted_rows
from lilo_jax.report.provenance import provenance_element, settings_element
from lilo_jax.report.sentences import headlines
from lilo_jax.report.speedup import Curve, accuracy_at, area_under
from lilo_jax.report.summary import summarize
from lilo_jax.report.tables import Table, budget_share_table, factor, median_cell, speedup_cell
from lilo_jax.storage.run_directory import RunDirectory


def recorded(path, *steps):
    """A run whose groups are given, each as (place, correct, graded) or with a belief behind."""
    run = RunDirectory(path)
    run.path.mkdir(parents=True)
    for step, groups in enumerate(steps):
        record = dict(
            zip(("question", "correct", "graded", "belief"), map(list, zip(*groups, strict=True)), strict=False)
        )
        run.append("groups", {"step": step, **record})
    return run


# ------------------------------------------------------------------------------------------------------------ the pool
def test_the_history_of_a_pool_worked_out_by_hand(tmp_path):
    run = recorded(
        tmp_path / "run",
        [(7, 0, 4), (3, 4, 4), (5, 0, 0)],  # 5 has no verdict at all
        [(7, 2, 4)],
        [(7, 4, 4), (3, 0, 4)],
        [(7, 4, 4), (3, 0, 4), (9, 0, 8)],
        [(3, 0, 8)],
    )
    history = pool_history(run)
    assert history.places.tolist() == [7, 3, 9]
    assert history.states.tolist() == [
        # Of 8 of each: 0 + 2, then 2 + 4 are mixed, then 4 + 4 all right.
        [UNSEEN, UNSOLVED, FRONTIER, FRONTIER, SOLVED, SOLVED],
        [UNSEEN, SOLVED, SOLVED, FRONTIER, FORGOTTEN, FORGOTTEN],
        [UNSEEN, UNSEEN, UNSEEN, UNSEEN, UNSOLVED, UNSOLVED],
    ]
    assert (history.correct.tolist(), history.graded.tolist()) == ([10, 4, 0], [16, 20, 8])
    table = pool_table({"arm": {0: history}}, {"arm": {0: 12}})
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "arm": "arm",
        "pool": "12",
        "rolled out": "3",
        "came to the frontier": "2",
        "on it at the end": "0",
        "solved": "1",
        "forgotten": "1",
        "never solved": "1",
        "ever forgotten": "1",
    }


def test_a_large_group_counts_whole_and_alone(tmp_path):
    history = pool_history(recorded(tmp_path / "run", [(0, 1, 2)], [(0, 0, 16)], [(0, 1, 1)]))
    assert history.states.tolist() == [[UNSEEN, FRONTIER, FORGOTTEN, FRONTIER]]


def test_groups_that_were_recorded_from_a_later_step_on_stand_there(tmp_path):
    run = recorded(tmp_path / "run")
    for step in (2, 3):  # as of a run that an older version began
        run.append("groups", {"step": step, "question": [0], "correct": [step - 2], "graded": [1]})
    assert pool_history(run).states.tolist() == [[UNSEEN, UNSEEN, UNSEEN, UNSOLVED, FRONTIER]]


def test_runs_without_groups_have_no_history(tmp_path):
    old = RunDirectory(tmp_path / "old")
    old.path.mkdir()
    old.append("metrics", {"step": 0})
    assert pool_history(old) is None
    assert pool_history(recorded(tmp_path / "run", [(0, 0, 0)])) is None


def test_lines_stand_by_their_end_and_then_by_when_they_got_there():
    states = np.array([[-1, UNSOLVED, SOLVED], [-1, SOLVED, SOLVED], [-1, -1, UNSOLVED], [SOLVED, FRONTIER, FRONTIER]])
    assert sorted_rows(states).tolist() == [2, 3, 0, 1]  # from the bottom: never solved, frontier, solved


def test_beliefs_are_held_against_outcomes_in_bins(tmp_path):
    run = recorded(
        tmp_path / "run",
        [(0, 1, 2, 0.12), (1, 1, 6, 0.18), (2, 3, 4, 1.0), (3, 0, 0, 0.15)],
        [(0, 2, 2, 0.1), (4, 1, 4, None)],
    )
    bins = reliability([run])
    # From .1 to .2: three groups of 2, 6 and 2 rollouts, 4 of them right; the one without a verdict is no evidence.
    assert bins[1].tolist() == pytest.approx([3, (0.12 * 2 + 0.18 * 6 + 0.1 * 2) / 10, 0.4])
    assert bins[9].tolist() == [1, 1, 0.75]
    assert bins[[0, *range(2, 9)]].sum() == 0
    assert reliability([recorded(tmp_path / "other", [(0, 1, 2)])]) is None


# ----------------------------------------------------------------------------------------------------------- collapses
def curve(*accuracies):
    return Curve(np.array(accuracies), {"steps": 10.0 * np.arange(len(accuracies))})


def test_a_fall_is_told_from_a_dip():
    assert fall(curve(0.2, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2)) == "accuracy fell from 0.500 at step 30 to 0.200"
    assert fall(curve(0.2, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4)) == ""
    assert fall(curve(0.06, 0.06, 0.06, 0.03, 0.03, 0.03)) == ""  # half is lost, of next to nothing


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("rollout/surprisal_mean", [0.5] * 30 + [0.001] * 3, "the surprisal of a sampled token went to 0.0010 nats"),
        ("rollout/surprisal_mean", [0.001] * 30 + [0.5] * 3, ""),
        ("rollout/surprisal_mean", [0.001] * 2, ""),  # too few steps to say
        ("curriculum/admitted_zero_variance_fraction", [0.0] * 30 + [1.0] * 3, "no group of the last 3 steps had any"),
        ("curriculum/admitted_zero_variance_fraction", [1.0] * 32 + [0.9], ""),
        ("curriculum/admitted_zero_variance_fraction", [None] * 33, ""),
    ],
)
def test_collapses_of_entropy_and_variance(name, values, says, tmp_path):
    for step, value in enumerate(values):
        RunDirectory(tmp_path).append("metrics", {"step": step, name: value})
    found = collapses(RunDirectory(tmp_path), curve(0.5, 0.5))
    assert len(found) == bool(says)
    assert all(clause.startswith(says) for clause in found)


def test_a_collapse_is_named_in_the_sentences_and_in_the_table(tmp_path):
    runs = {s: write_run(tmp_path / str(s), curriculum={"name": "lilo"}, seed=s, slope=0.01) for s in (0, 1)}
    for _ in range(3):
        runs[1].append("eval", {"step": 20, "split": "test", "accuracy": 0.01})
    summary = summarize({"lilo": runs}, split="test", baseline=None)
    assert set(summary["collapses"]["lilo"]) == {"1"}
    assert headlines(summary)[1].startswith("lilo collapsed on seed 1: accuracy fell from 0.3")
    assert any("! lilo, seed 1: collapsed" in note for note in report.build_tables(summary)[0].notes)


# ------------------------------------------------------------------------------------------------- budgets and factors
def test_accuracy_and_area_at_shares_of_a_budget():
    rising = curve(0.0, 0.3, 0.6, 0.9)  # smoothed: 0, .15, .3, .6
    assert accuracy_at(rising, "steps", 15) == pytest.approx(0.225)
    assert accuracy_at(rising, "steps", 99) == pytest.approx(0.6)
    assert area_under(rising, "steps", 20) == pytest.approx((0.075 + 0.225) / 2)
    assert area_under(rising, "steps", 15) == pytest.approx((0.075 * 10 + 0.1875 * 5) / 15)
    assert area_under(rising, "steps", 60) == pytest.approx((0.075 + 0.225 + 0.45 + 3 * 0.6) / 6)  # held at its last
    assert area_under(rising, "steps", 0) is None


def test_success_at_shares_of_what_uniform_spent(tmp_path):
    arms = {
        name: {0: write_run(tmp_path / name, curriculum={"name": name}, seed=0, slope=slope)}
        for name, slope in (("uniform", 0.01), ("lilo", 0.02))
    }
    summary = summarize(arms, split="test", baseline="uniform")
    tokens, steps = (summary["at_budget"][budget]["lilo"] for budget in ("generated_tokens", "steps"))
    # Of 20 steps 50% are 10, where lilo has .2, .3 and .4 behind it; it generates 4 times the tokens of uniform.
    assert steps["50%"]["mean"] == pytest.approx(0.3)
    assert tokens["100%"]["mean"] == pytest.approx(steps["25%"]["mean"]) == pytest.approx(0.25)
    table = budget_share_table(summary)
    assert table.columns == ["budget", "arm", "25%", "50%", "75%", "100%", "area"]
    assert [row[:3] for row in table.rows][-1] == ["steps", "lilo", "0.250"]


def test_no_factor_is_below_one():
    assert factor(0.5) == (2, "more")
    assert factor(2.0) == (2, "less")
    assert factor(1.004)[1] == ""
    by_seed = dict(zip("01234", (0.5, 0.5, 0.5, 0.5, 0.5), strict=True))
    needed = {"mean": 0.5, "low": 0.4, "high": 0.8, "reached": 5, "of": 5, "by_seed": by_seed}
    assert speedup_cell(needed) == "2.00 more [1.25, 2.50] 5/5"
    median = {"median": 0.5, "median_low": 0.0, "median_high": 0.8, "by_seed": by_seed}
    assert median_cell(median) == "2.00 more [1.25, never]"
    few = needed | {"by_seed": {"0": 0.4, "1": 0.8}, "reached": 2, "of": 2}
    assert speedup_cell(few) == "2.00 more (1.25..2.50) 2/2"


# --------------------------------------------------------------------------------------------------- files of a figure
@pytest.mark.slow
def test_every_figure_has_its_numbers_and_a_file_of_its_own(tmp_path):
    pytest.importorskip("matplotlib")
    for name, slope in (("uniform", 0.01), ("lilo", 0.02)):
        write_run(tmp_path / "runs" / name, curriculum={"name": name}, seed=0, slope=slope)
    page = report.report_runs([tmp_path / "runs"], tmp_path / "r.html", data=tmp_path / "data").read_text("utf-8")
    names = {"accuracy", "histogram", "selection", "zero-variance", "level", "frontier", "belief"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {f"{n}.{e}" for n in names for e in ("csv", "svg")}
    assert f"--data {tmp_path / 'data'}" in page
    for name in names:
        root = ET.parse(tmp_path / "data" / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in ET.tostring(root, encoding="unicode")
    rows = {n: list(csv.DictReader((tmp_path / "data" / f"{n}.csv").open(encoding="utf-8"))) for n in names}
    assert [float(row["accuracy"]) for row in rows["accuracy"] if row["arm"] == "lilo"] == pytest.approx(
        [0.2, 0.3, 0.4, 0.5, 0.6]
    )
    assert [float(row["generated_tokens"]) for row in rows["accuracy"]][-1] == 8000
    history = pool_history(RunDirectory(tmp_path / "runs" / "uniform"))
    assert {int(row["place_in_pool"]) for row in rows["frontier"] if row["arm"] == "uniform"} == set(history.places)
    assert sum(int(row["groups"]) for row in rows["belief"]) == 20 * 4
    shares = [float(row["share"]) for row in rows["histogram"] if row["arm"] == "uniform" and row["from_step"] == "0"]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.slow
def test_a_report_of_many_long_runs_is_below_5_megabytes(tmp_path):
    pytest.importorskip("matplotlib")
    rng, arms = np.random.default_rng(0), {}
    for arm in range(4):
        run = write_run(tmp_path / str(arm), curriculum={"name": "lilo", "pool_ratio": arm}, seed=0, slope=0.001)
        arms[f"lilo, pool_ratio={arm}"] = {0: run}
        for step in range(20, 120):
            groups = {"question": rng.choice(20_000, 64, replace=False), "correct": rng.integers(0, 9, 64)}
            record = {name: values.tolist() for name, values in groups.items()} | {"graded": [8] * 64}
            run.append("groups", {"step": step, **record})
            run.append("eval", {"step": step, "split": "test", "accuracy": float(rng.random())})
            run.append("ledger", {"step": step - 1, "train/generated": 100 * step})
            run.append("timings", {"step": step - 1})
        rows = {"verdict": "wrong", "response": "x" * 4000, "prompt": "y" * 4000, "gold": "1", "group": 0}
        for step in range(0, 100, 10):
            run.write_rollouts(step, [rows | {"question": q, "id": "z" * 64, "where": ""} for q in range(64)])
    summary = summarize(arms, split="test", baseline=None)
    path = report.write_report(tmp_path / "r.html", summary, arms, title="t", command="c", data=tmp_path / "data")
    assert path.stat().st_size < 5e6


# ------------------------------------------------------------------------------------------------ the text of a report
def test_completions_are_shown_of_different_questions_first():
    asked = [(0, "correct"), (0, "correct"), (1, "correct"), (2, "wrong")]
    records = [{"question": q, "verdict": v, "response": str(i)} for i, (q, v) in enumerate(asked)]
    assert chosen(records, 2) == [records[0], records[3], records[2]]
    assert chosen(records, 3) == [records[0], records[3], records[2], records[1]]


def test_long_names_may_be_broken_at_their_punctuation_only():
    assert sentence("a frontier@64x1+algorithm.baseline=posterior <b>") == (
        "a frontier@<wbr>64x1+<wbr>algorithm.<wbr>baseline=<wbr>posterior &lt;b&gt;"
    )
    assert sentence(ATTACK).replace("<wbr>", "") == escaped(ATTACK)
    assert sentence("plain words, nothing longer") == "plain words, nothing longer"


def test_a_long_cell_of_a_table_may_have_several_lines():
    words = " ".join(["final accuracy, lilo less uniform"] * 3)
    element = table_element(Table("", ["study", "measured"], [["ppo", words]], text_columns=1))
    assert f'<td class="text">ppo</td><td class="long">{words}</td>' in element


def test_settings_that_differ_stand_before_those_that_do_not(tmp_path):
    for name in ("uniform", "lilo"):
        run = write_run(tmp_path / name, curriculum={"name": name}, seed=0, slope=0.01)
        run.files.write(
            "environment.json", json.dumps({"device_kinds": {"TPU v5e": 8}, "cores": 112, "python": "3"}).encode()
        )
    arms = {name: {0: RunDirectory(tmp_path / name)} for name in ("uniform", "lilo")}
    table, _, folded = settings_element(arms).partition("<details>")
    assert "curriculum.name" in table
    assert "rollout.samples" not in table
    assert "rollout.samples" in folded
    assert "8 x TPU v5e, 112 cores" in provenance_element(arms, "command")
    assert f"<td>{POOL}</td>" in pool_element(arms)
