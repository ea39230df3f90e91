"""Summaries, tables and HTML reports of small synthetic runs."""

import html.parser
import json
import math
import re

import numpy as np
import pytest
from written_runs import STEPS, write_run

from lilo_jax.errors import RunError, UsageError
from lilo_jax.report import html as report
from lilo_jax.report.comparison import choose_baseline, choose_split, group_runs, runs_in
from lilo_jax.report.over_training import Axis
from lilo_jax.report.speedup import speedup
from lilo_jax.report.summary import ACCURACY, DIFFERENCE, format_table, mean_interval, read_curve, summarize
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.run_directory import RunDirectory


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def arms(root):
    def runs(name, curriculum, **slopes):
        return {s: write_run(root / name / str(s), curriculum=curriculum, seed=s, **slopes) for s in (2, 0, 1)}

    uniform = {"name": "uniform"}
    return {
        "uniform": runs("uniform", uniform, slope=0.01),
        "lilo": runs("lilo", {"name": "lilo", "pool_ratio": 4}, slope=0.02, groups=16),
        "slow <arm>": runs("slow", uniform, slope=0.001, rollout={"questions": 2, "samples": 8}, done=False),
    }


def test_summary_has_the_agreed_form_and_survives_json(arms):
    summary = summarize(arms, split="test", baseline="uniform")
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["arms"]) == list(arms)
    for records in summary["arms"].values():
        assert [record["seed"] for record in records] == [0, 1, 2]
        for record in records:
            assert set(record) == {"seed", "accuracy", *BUDGETS}
            assert record["steps"] == [0, 5, 10, 15, 20]
    assert set(summary["speedup"]) == {"lilo", "slow <arm>"}
    for budgets in summary["speedup"].values():
        assert set(budgets) == set(BUDGETS)
        assert all(
            set(b) == {"mean", "low", "high", "median", "median_low", "median_high", "reached", "of", "by_seed"}
            for b in budgets.values()
        )


def test_summary_against_direct_computation(arms):
    summary = summarize(arms, split="test", baseline="uniform")
    first = summary["arms"]["lilo"][0]
    assert first["generated_tokens"] == [0, 2000, 4000, 6000, 8000]  # rejected ones count, evaluation does not
    assert first["seconds"] == pytest.approx([0, 3.75, 7.5, 11.25, 15])  # compilation does not
    curves = {arm: {seed: read_curve(run, "test") for seed, run in runs.items()} for arm, runs in arms.items()}
    for budget in BUDGETS:
        direct = speedup(curves["uniform"], curves["lilo"], budget)
        found = summary["speedup"]["lilo"][budget]
        assert (found["mean"], found["low"], found["high"]) == (direct.mean, direct.low, direct.high)
        assert found["by_seed"] == {str(seed): ratio for seed, ratio in direct.by_seed.items()}
    steps = summary["speedup"]["lilo"]["steps"]["by_seed"]["0"]
    # Seed 0: the target is the mean of .30, .35, .40; lilo is at .30 after 10 steps and at .40 after 15.
    assert steps == pytest.approx(20 / 12.5)
    assert summary["speedup"]["lilo"]["generated_tokens"]["by_seed"]["0"] == pytest.approx(steps / 4)
    assert summary["speedup"]["lilo"]["flops"]["by_seed"]["0"] == pytest.approx(steps / 2)
    assert summary["speedup"]["lilo"]["rejected/generated"]["by_seed"]["0"] is None  # uniform rejects nothing
    assert first["flops"] == [0, 10_000, 20_000, 30_000, 40_000]
    assert first["rejected/generated"] == [0, 1500, 3000, 4500, 6000]
    assert first["evaluation/generated"] == [0, 35, 70, 105, 140]
    assert first["grader_seconds"] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert first["screen/generated"] == first["audit/prefilled"] == [0] * 5  # which this old ledger does not know
    slow = summary["speedup"]["slow <arm>"]["steps"]
    assert (slow["mean"], slow["reached"], slow["of"]) == (None, 0, 3)
    finals = [0.35 + 0.002 * seed for seed in range(3)]
    final = summary["final"]["uniform"]
    assert [final["mean"], final["low"], final["high"]] == pytest.approx([0.352, min(finals), max(finals)])
    assert summary["start"]["lilo"]["mean"] == pytest.approx(0.2)
    assert summary["gap_to_baseline"]["lilo"]["by_seed"]["1"] == pytest.approx(0.15)
    assert summary["ledger"]["lilo"]["rejected/generated"] == 6000
    assert summary["unfinished"] == {"uniform": [], "lilo": [], "slow <arm>": [0, 1, 2]}
    shares = [
        np.mean([r["curriculum/collected_zero_variance_fraction"] for r in run.read("metrics")[1:]])
        for run in arms["lilo"].values()
    ]
    assert summary["zero_variance"]["lilo"]["collected"] == pytest.approx(np.mean(shares))
    assert summary["zero_variance"]["lilo"]["admitted"] == 0


def test_mean_interval_against_known_quantiles():
    assert mean_interval([], ACCURACY) == (None, None, None)
    assert mean_interval([0.5], ACCURACY) == (0.5, None, None)
    for few in ([0.5, 0.25], [0.5, 1.0, 0.0, 0.5]):  # of few seeds their range
        assert mean_interval(few, ACCURACY) == (np.mean(few), min(few), max(few))
    for n, quantile in (
        (5, 2.7764),
        (13, 2.1788),
        (14, 2.1604),
        (16, 2.1314),
        (17, 2.1199),
        (31, 2.0423),
        (101, 1.9840),
    ):
        values = np.arange(n) / n
        mean, low, high = mean_interval(values, DIFFERENCE)
        assert (high - low) / 2 == pytest.approx(quantile * values.std(ddof=1) / math.sqrt(n), rel=2e-4)
        assert mean == pytest.approx((low + high) / 2)


def test_no_interval_leaves_what_an_accuracy_can_be():
    near_one, near_zero = [1.0, 1.0, 1.0, 1.0, 0.9], [0.0, 0.0, 0.0, 0.0, 0.1]
    half = 2.7764 * np.std(near_one, ddof=1) / math.sqrt(5)
    assert mean_interval(near_one, ACCURACY) == pytest.approx((0.98, 0.98 - half, 1.0), abs=1e-5)
    assert mean_interval(near_zero, ACCURACY) == pytest.approx((0.02, 0.0, 0.02 + half), abs=1e-5)
    assert mean_interval(near_zero, DIFFERENCE)[1] == pytest.approx(0.02 - half, abs=1e-5)  # a difference may be less


@pytest.mark.parametrize("baseline", [None, "absent"])
def test_without_a_baseline_nothing_is_compared(arms, baseline):
    summary = summarize({"lilo": {0: arms["lilo"][0]}}, split="test", baseline=baseline)
    assert (summary["speedup"], summary["gap_to_baseline"], summary["baseline"]) == ({}, {}, None)
    assert summary["final"]["lilo"]["low"] is None
    assert "Spent to reach" not in format_table(summary)


def test_values_that_are_not_finite_become_none(tmp_path):
    run = write_run(tmp_path / "run", curriculum={"name": "lilo"}, seed=0, slope=0.01)
    run.append("metrics", {"step": 20, "audit/brier": math.nan, "audit/regret": 0.25})
    summary = summarize({"lilo": {0: run}}, split="test", baseline=None)
    assert summary["audit"]["lilo"] == {"brier": None, "regret": 0.25}


def test_a_split_that_was_not_evaluated_is_an_error(arms):
    with pytest.raises(RunError, match="no evaluation on 'longer'"):
        summarize(arms, split="longer", baseline="uniform")


def test_table_lists_every_seed_and_fits(arms):
    table = format_table(summarize(arms, split="test", baseline="uniform"))
    assert max(map(len, table.splitlines())) <= 110
    for arm in arms:
        for seed in range(3):
            row = re.search(rf"^  {re.escape(arm)} +{seed} +20 +0\.2000 +0\.\d{{4}}(.*)$", table, re.MULTILINE)
            assert row, (arm, seed)
            cells = re.split(r"  +", row[1].strip())
            assert cells == ["-"] * 3 if arm == "uniform" else len(cells) == 3
            assert all(re.fullmatch(r"-|never|1\.00|\d+\.\d\d (less|more)", cell) for cell in cells)
    assert "censored on 3 of 3 seeds (0, 1, 2)" in table
    assert "never 0/3!" in table
    assert "includes 1" not in table
    assert "not finished" in table


def test_table_says_so_when_an_interval_includes_one(arms):
    runs = {"uniform": arms["uniform"], "again": dict(arms["uniform"])}
    table = format_table(summarize(runs, split="test", baseline="uniform"))
    assert "1.00 (1.00..1.00) 3/3*" in table
    assert "* again: the range includes 1 in steps, generated tokens and seconds: no clear difference" in table


def test_long_names_fit_and_stay_apart(arms):
    long = {f"uniform, a.long.setting.of.the.curriculum={i}": runs for i, runs in enumerate(arms.values())}
    table = format_table(summarize(long, split="test", baseline=next(iter(long))))
    assert max(map(len, table.splitlines())) <= 110
    assert all(f"riculum={i} " in table for i in range(3))


class Page(html.parser.HTMLParser):
    """Collects what a test asks about, and checks that tags close in order."""

    VOID = ("meta", "br", "hr", "img", "link", "input", "wbr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.targets, self.open, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.targets += [value for name, value in attrs if name.endswith(("href", "src"))]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(arms, tmp_path_factory):
    pytest.importorskip("matplotlib")
    summary = summarize(arms, split="test", baseline="uniform")
    path = report.write_report(
        tmp_path_factory.mktemp("report") / "out" / "report.html", summary, arms, title="A & B", command="run <all>"
    )
    return path.read_text(encoding="utf-8")


def test_html_is_whole_and_self_contained(written, arms):
    page, shown = Page(written), " ".join(Page(written).text)
    assert all(target.startswith(("#", "data:image/png")) for target in page.targets)
    assert not re.search(r"https?://|@import|url\((?!#)", written)
    assert not {"link", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1  # the page's own
    figures = {"accuracy", "histogram", "selection", "zero-variance", "level", "frontier", "belief"}
    assert figures <= set(page.ids)
    assert page.tags.count("svg") == page.tags.count("figcaption") == len(figures)
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target[0] == "#"} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", written)) <= set(page.ids)
    for arm in arms:
        assert arm in shown
    for piece in (
        "A & B",
        "run <all>",
        "jax 0.9",
        "on 3 of 3 seeds",
        "on any of 3 seeds",
        "rejected",
        "every budget",
        "No run collapsed.",
        "Settings that differ between arms",
        "FLOPs",
    ):
        assert piece in shown


def test_html_leaves_no_placeholder_colours(written):
    assert not re.search(r"#0102|#01f00", written)
    for colour in ("currentColor", "var(--arm-0)", "var(--arm-1)", "var(--arm-2)", "var(--muted)", "var(--grid)"):
        assert colour in written


def test_text_from_runs_is_escaped(written):
    assert written.count("<script") == 1
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; 10" in written
    assert "<dd>&amp;lt;</dd>" in written
    assert "slow <arm>" not in written


def test_report_is_a_pure_function_of_the_runs(written, arms, tmp_path):
    summary = summarize(arms, split="test", baseline="uniform")
    again = report.write_report(tmp_path / "again.html", summary, arms, title="A & B", command="run <all>")
    assert again.read_text(encoding="utf-8") == written


def test_report_without_matplotlib_says_so(arms, tmp_path, monkeypatch):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    summary = summarize(arms, split="test", baseline="uniform")
    text = report.write_report(tmp_path / "r.html", summary, arms, title="t", command="c").read_text()
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    with pytest.raises(UsageError, match=r'--data needs matplotlib: pip install "lilo-jax\[plot\]"'):
        report.write_report(tmp_path / "r.html", summary, arms, title="t", command="c", data=tmp_path / "data")


@pytest.mark.usefixtures("arms")
def test_runs_are_grouped_into_arms_by_what_differs(root):
    found = group_runs([root])
    assert {name: sorted(runs) for name, runs in found.items()} == {
        "lilo": [0, 1, 2],
        "uniform, questions=2": [0, 1, 2],
        "uniform, questions=4": [0, 1, 2],
    }
    assert choose_baseline(found) == "uniform, questions=4"
    assert choose_split(found) == "test"
    assert choose_baseline({"uniform": found["uniform, questions=4"]}) is None


def test_a_comparison_is_reported_by_its_own_directory(tmp_path):
    for name in ("uniform", "lilo"):
        write_run(tmp_path / "seed_0" / name, curriculum={"name": name}, seed=0, slope=0.01)
    (tmp_path / "config.json").write_text("{}")  # what its runs have in common
    assert set(group_runs([tmp_path])) == {"uniform", "lilo"}
    assert [run.path for run in runs_in(tmp_path / "seed_0" / "lilo")] == [tmp_path / "seed_0" / "lilo"]


def test_algorithms_are_named_where_they_differ(tmp_path):
    for name in ("ppo", "grpo"):
        write_run(
            tmp_path / name, curriculum={"name": "mine.curricula:Mine"}, seed=0, slope=0.01, algorithm={"name": name}
        )
    assert set(group_runs([tmp_path])) == {"Mine/ppo", "Mine/grpo"}
    assert set(group_runs([tmp_path / "ppo"])) == {"Mine"}


@pytest.mark.slow
def test_report_of_one_run_and_of_many(arms, root, tmp_path):
    pytest.importorskip("matplotlib")
    one = report.report_runs([arms["lilo"][1].path], tmp_path / "one.html").read_text(encoding="utf-8")
    assert "accuracy on test went from 0.200" in one
    assert "Spent to reach" not in one
    many = report.report_runs([root / "lilo", root / "uniform"], tmp_path / "many.html").read_text(encoding="utf-8")
    assert "lilo reached uniform&#x27;s final test accuracy (0.352) on 3 of 3 seeds" in many
    assert Page(many).tags.count("svg") == 7


def test_audits_are_averaged_and_shown(tmp_path):
    run = write_run(tmp_path / "run", curriculum={"name": "lilo"}, seed=0, slope=0.01)
    assert summarize({"lilo": {0: run}}, split="test", baseline=None)["audit"] == {}
    for step, (score, correlation) in enumerate(((0.25, None), (0.15, 0.5))):
        measures = {"audit/brier": score, "audit/spearman": correlation, "audit/success_mean": 0.4}
        run.append("metrics", {"step": STEPS + step, **measures})
    summary = summarize({"lilo": {0: run}}, split="test", baseline=None)
    assert summary["audit"] == {"lilo": {"brier": pytest.approx(0.2), "spearman": 0.5, "success_mean": 0.4}}
    text = " ".join(Page(report.report_runs([run.path], tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert re.search(r"lilo\s+all\s+0\.2000\s+-\s+-\s+-\s+0\.5000\s+-\s+0\.4000\s+-\s", text)


def test_curves_are_drawn_against_what_is_asked_for(arms, root, tmp_path):
    pytest.importorskip("matplotlib")
    asked = ["flops", "trained_tokens", "rejected/generated", "follow_up/prefilled"]
    path = report.report_runs([root / "lilo", root / "uniform"], tmp_path / "r.html", asked)
    written = path.read_text(encoding="utf-8")
    assert written.count(">FLOPs</text>") == 1 + 2 + 2  # accuracy, selection of two kinds, zero variance of two kinds
    for label in ("trained tokens", "generated tokens: rejected", "prefilled tokens: follow up"):
        assert written.count(f">{label}</text>") == 1
    assert "--against flops,trained_tokens,rejected/generated,follow_up/prefilled" in written
    assert written.count(">training steps</text>") == 3 + 2  # of the heat maps, which are no curves
    with pytest.raises(UsageError, match="unknown budget 'flop': did you mean 'flops'"):
        report.report_runs([root / "lilo"], tmp_path / "r.html", ["flop"])


def test_an_axis_is_the_mean_of_the_seeds_that_got_there(arms):
    axis = Axis.of(arms, "flops")
    np.testing.assert_allclose(axis.at("lilo", np.array([0.0, 0.5, 20.0])), [0, 1000, 40_000])
    np.testing.assert_allclose(axis.at("uniform", np.array([10.0])), [10_000])


def test_report_of_a_run_with_evaluations_only(tmp_path):
    pytest.importorskip("matplotlib")
    run = RunDirectory(tmp_path / "bare")
    run.path.mkdir()
    config = {"seed": 0, "curriculum": {"name": "lilo"}, "algorithm": {"name": "ppo"}}
    run.files.write("config.json", json.dumps(config).encode())
    run.files.write("environment.json", b"{}")
    run.append("eval", {"step": 0, "split": "validation", "accuracy": 0.25})
    text = report.report_runs([run.path], tmp_path / "bare.html").read_text(encoding="utf-8")
    assert Page(text).tags.count("svg") == 1
    assert "went from 0.250 to 0.250 in 0 steps (seed 0)" in text


@pytest.mark.usefixtures("arms")
def test_mistakes_are_one_sentence(root, tmp_path):
    with pytest.raises(UsageError, match="no run directory and holds none"):
        group_runs([tmp_path / "absent"])
    copy = tmp_path / "copy"
    write_run(copy, curriculum={"name": "uniform"}, seed=0, slope=0.01)
    with pytest.raises(UsageError, match="same arm and seed"):
        group_runs([root / "uniform", copy])
    other = tmp_path / "other"
    write_run(other, curriculum={"name": "uniform"}, seed=7, slope=0.01, task={"name": "jsonl"})
    with pytest.raises(UsageError, match="different tasks"):
        group_runs([root / "uniform", other])
    with pytest.raises(UsageError, match="is a directory"):
        report.report_runs([copy], tmp_path)
    with pytest.raises(UsageError, match="is a file; pass a folder"):
        report.report_runs([copy], tmp_path / "r.html", data=copy / "config.json")
