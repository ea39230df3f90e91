"""The sweep on a tiny model: what it writes, that it runs only what is new, and what it refuses."""

import json
import os
import re
import shlex
import signal
import sys
import types

import pytest

from experiments import algorithms, quickstart, runner, sweep
from experiments.arms import config_of, labelled
from experiments.runner import refuse_ignored
from lilo_jax import config as configuration
from lilo_jax.errors import Stopped, UsageError
from lilo_jax.processes import stop_request
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import MAIN_BUDGETS, speedup_cell
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.checks import check

TINY = shlex.split("""--algorithms rloo --seeds 2 --num-steps 2 --jobs 1 --task.pool 32 --task.validation 8
    --task.test 8
    --task.longer 4 --task.demonstrations 64 --model.num-layers 1 --model.embed-dim 16 --model.num-heads 2
    --model.num-kv-heads 1 --model.head-dim 8 --model.mlp-dim 16 --sft.steps 2 --sft.batch 8 --rollout.questions 2
    --rollout.samples 2 --rollout.max-new-tokens 4 --evaluation.every 1 --evaluation.rows 8""")


@pytest.fixture
def sweep_with(monkeypatch, tmp_path):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["sweep", *args, "--output-dir", str(tmp_path / "out")])
        sweep.main()
        return tmp_path / "out"

    return call


def written(root):
    """When each record of a run was written last."""
    return {path.relative_to(root): path.stat().st_mtime_ns for path in root.glob("seed_*/*/*.jsonl")}


def rows(root):
    lines = (root / "table.md").read_text().splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


@pytest.mark.slow
def test_a_sweep_writes_its_table_and_goes_on_with_what_is_new(sweep_with):
    root = sweep_with("--arms", "uniform,lilo", *TINY)
    first = written(root)
    assert {path.parts[:2] for path in first} == {
        (f"seed_{seed}", run) for seed in (601, 602) for run in ("sft", "rloo_uniform", "rloo_lilo")
    }
    head, rule, *body = rows(root)
    assert {len(line) for line in (head, rule, *body)} == {11}
    assert [line[:3] for line in body] == [("rloo", "`uniform`", "2"), ("rloo", "`lilo`", "2")]
    summary = json.loads((root / "summary.json").read_text())["rloo"]
    assert set(summary["arms"]) == {"uniform", "lilo"}
    for arm, cells in zip(("uniform", "lilo"), body, strict=True):
        assert cells[3].startswith(f"{summary['final'][arm]['mean']:.3f} (")
        tokens = [run["generated_tokens"][-1] for run in summary["arms"][arm]]
        if arm == "lilo":
            assert cells[4:7] == tuple(speedup_cell(summary["speedup"][arm][budget]) for budget in MAIN_BUDGETS)
        assert cells[7] == f"{sum(tokens) / 2 / 1e3:.0f}k"
    root = sweep_with("--arms", "uniform,lilo,kimi", *TINY)
    again = written(root)
    assert {path: again[path] for path in first} == first
    assert {path.parts[1] for path in set(again) - set(first)} == {"rloo_kimi"}
    assert [line[1] for line in rows(root)[2:]] == ["`uniform`", "`lilo`", "`kimi`"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--arms", "uniform,fronteir@32x2"], r"unknown arm 'fronteir': did you mean 'frontier'"),
        (["--arms", "uniform,frontier@32"], "the shape of an arm is QUESTIONSxSAMPLES, such as frontier@32x2"),
        (["--arms", "uniform,frontier@0x8"], "the shape of an arm is QUESTIONSxSAMPLES"),
        (["--arms", "uniform,frontier+algorithm.basline=posterior"], "--algorithm.basline=posterior"),
        (["--arms", "uniform,frontier+algorithm.baseline=mean"], "invalid choice 'mean'"),
        (["--arms", "uniform,mine:No"], "package.module:ClassName"),
        (["--algorithms", "rlo"], "did you mean 'rloo'"),
        (["--arms", "uniform,uniform"], "different names"),
        (["--arms", "uniform,"], "different names"),
        (["--split", "tset"], "did you mean 'test'"),
        (["--seeds", "0"], "--seeds and --num-steps must be at least 1"),
        (["--arms", "uniform,sec"], "chooses between categories"),
        (["--arms", "uniform,a:Rule,b:Rule"], "two arms would be called Rule"),
        (["--optimizer.learning-rate", "0.009"], "--optimizer.learning-rate would be ignored, .* rloo_uniform"),
        (["--algorithm", "dapo"], "--algorithm would be ignored"),
        (
            ["--algorithm", "grpo"],
            "--algorithm would be ignored",
        ),  # what all arms have in common without a command line
        (["--curriculum", "lilo"], "--curriculum would be ignored"),
        (["--arms", "uniform,uniform@8x4", "--rollout.samples", "16"], "--rollout.samples .* rloo_uniform@8x4"),
        (["--seed", "3"], "choose them with --first-seed"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(args, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["sweep", "--algorithms", "rloo", *args, "--output-dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        exit_with_message(sweep.main)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert re.search(says, err)
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_no_arm_admitted_is_a_dash():
    interval = {"mean": 0.5, "low": None, "high": None}
    summary = {
        "final": {"picky": interval},
        "arms": {"picky": [{"generated_tokens": [0, 2000]}]},
        "speedup": {},
        "zero_variance": {"picky": {"admitted": None}},
    }
    assert sweep._row("rloo", "picky", summary, {"picky": {}})[-4:] == ["2k", "-", "-", "-"]


def test_traps_rolled_out_are_told_as_a_multiple_of_the_pool_s(tmp_path):
    """Half of the groups of two steps were traps, of a pool of which they are a tenth."""
    run = RunDirectory(tmp_path)
    run.store_config({"noise": {"wrong_keys": 0.04, "coin_flips": 0.06}})
    for collected, admitted in ((0.25, None), (0.75, 0.3)):
        shares = {"curriculum/collected_trap_fraction": collected, "curriculum/admitted_trap_fraction": admitted}
        run.append("metrics", shares)
    assert sweep._of_steps({1: run}, "collected", sweep._planted) == pytest.approx(5)
    assert sweep._of_steps({1: run}, "admitted", lambda run: 1) == pytest.approx(0.3)


def test_options_that_reach_every_arm_are_kept_and_those_of_an_arms_own_value_too():
    shared, names = sweep.config(), ("uniform", "lilo")

    def arms(config):
        tuned = configuration.replace(config, **quickstart.SETTINGS["grpo"])
        return {name: config_of(name, tuned) for name in names}

    given = configuration.replace(shared, rollout__questions=16, optimizer__learning_rate=7.5e-4, update__epochs=3)
    refuse_ignored(given, shared, arms)
    with pytest.raises(
        UsageError, match=r"--update[.]minibatches would be ignored, because the arm uniform has its own"
    ):
        refuse_ignored(configuration.replace(given, update__minibatches=2), shared, arms)


def test_an_arm_has_a_rule_a_shape_and_options_of_its_own():
    shared = quickstart.config("rloo")
    plain = config_of("frontier", shared)
    assert plain.rollout == shared.rollout
    own = config_of("frontier@64x1+algorithm.baseline=posterior+curriculum.pool-ratio=8", shared)
    expected = {"rollout__questions": 64, "rollout__samples": 1}
    expected |= {"algorithm__baseline": "posterior", "curriculum__pool_ratio": 8}
    assert own == configuration.replace(plain, **expected)
    names = ["frontier@64x1+algorithm.baseline=posterior", "mine.near:Near@8x4+update.epochs=2"]
    assert list(labelled(names)) == [names[0], "Near@8x4+update.epochs=2"]


@pytest.mark.parametrize("algorithm", quickstart.SETTINGS)
def test_the_arms_of_every_algorithm_have_as_many_rows(algorithm):
    small = Chain(pool=640, validation=8, test=8, longer=4, demonstrations=8)
    shared = configuration.replace(quickstart.config(algorithm), task=small)
    names = quickstart.BEST.get(algorithm, "uniform,lilo,frontier").split(",")
    arms = [config_of(name, shared) for name in names]
    assert {arm.rollout.questions * arm.rollout.samples for arm in arms} == {64}
    for arm in arms:
        check(arm)


def test_the_comparison_of_algorithms_refuses_the_same(monkeypatch, tmp_path):
    arguments = ["--algorithms", "ppo", "--update.epochs", "7", "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["algorithms", *arguments])
    with pytest.raises(UsageError, match=r"--update[.]epochs would be ignored, because the arm ppo_uniform"):
        algorithms.main()
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- when it is stopped
def test_a_signal_between_two_runs_ends_the_comparison_in_one_line(sweep_with, monkeypatch):
    begun = []

    def run(config, launch, **_):
        begun.append(launch.output_dir)
        os.kill(os.getpid(), signal.SIGTERM)  # while no run listens

    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(Stopped, match="stopped by SIGTERM with the runs saved") as found:
        sweep_with("--arms", "uniform,lilo", *TINY)
    assert (len(begun), found.value.status) == (1, 143)


def test_the_runs_of_a_comparison_share_its_seconds(sweep_with, monkeypatch):
    given, clock = [], [100.0]

    def run(config, launch, **_):
        given.append(launch.max_seconds)
        clock[0] += 0.25

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(stop_request, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    with pytest.raises(Stopped, match="stopped at --max-seconds with 6 of 6 runs left: the same command") as found:
        sweep_with("--arms", "uniform,lilo", *TINY, "--max-seconds", "0.5")
    assert found.value.status == 0
    assert given == [0.5, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_comparison_that_ran_out_of_time_goes_on(jobs, sweep_with):
    asked = ["--arms", "uniform", *TINY, "--seeds", "1", "--jobs", jobs]
    with pytest.raises(Stopped, match="2 of 2 runs left"):
        sweep_with(*asked, "--max-seconds", "1e-6")
    assert len(rows(sweep_with(*asked))) == 3
