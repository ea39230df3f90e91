"""A run in a terminal: plots by hand, a frame of a run that is written and of one that is done, broken files."""

import io
import sys

import numpy as np
import pytest
from directories import opened
from rich.console import Console
from test_sinks import evaluate, write_records

from lilo_jax import cli
from lilo_jax.config import Config
from lilo_jax.errors import RunError, UsageError
from lilo_jax.report import watch as module
from lilo_jax.report.plots import Bars, Plot, columns_of, curve
from lilo_jax.report.watch import duration, watch
from lilo_jax.training.accounting import describe_pool

POOL = {"unseen": 0.5, "unsolved": 0.125, "mixed": 0.25, "solved": 0.125}


def shown(renderable, width=80, **how):
    console = Console(file=io.StringIO(), width=width, highlight=False, **how)
    console.print(renderable)
    return console.file.getvalue()


def lines_of(directory, width=100, **how):
    console = Console(file=io.StringIO(), width=width, highlight=False, **how)
    watch(directory.path, once=True, console=console)
    return console.file.getvalue().splitlines()


@pytest.fixture
def directory(tmp_path):
    found = opened(tmp_path / "run", Config(num_steps=10))
    evaluate(found, 0)
    for step in range(4):
        record = {"curriculum/collected_histogram": [3, 0, 1], "rollout/surprisal_mean": 2.0 - step / 2}
        record |= {f"curriculum/pool_{name}_fraction": share for name, share in POOL.items()}
        found.append("metrics", {"step": step, "curriculum/collected_reward_mean": step / 4, **record})
        found.append("timings", {"step": step, "sample": 20.0, "update": 10.0, "compile": 99.0})
        found.append("ledger", {"step": step, "train/generated": 1000 * (step + 1), "evaluation/generated": 7})
    evaluate(found, 4)
    return found


# --------------------------------------------------------------------------------------------------------------- plots
def test_columns_are_means_and_hold_what_came_before():
    np.testing.assert_allclose(columns_of([0, 1, 2, 3], [1.0, 3.0, 5.0, 7.0], 2), [2, 6])
    np.testing.assert_allclose(columns_of([0, 10], [1.0, 2.0], 5), [1, 1, 1, 1, 2])
    np.testing.assert_allclose(columns_of([4], [1.5], 3), [1.5, 1.5, 1.5])


def test_a_curve_is_filled_from_below():
    assert curve(np.array([0.0, 0.5, 1.0]), 0.0, 1.0, " #") == ["  #", "  #", " ##", "###"]
    assert curve(np.array([1.0, 1.0]), 1.0, 1.0, " #") == ["  ", "  ", "##", "##"]


def test_bars_by_hand():
    assert shown(Bars(["a", "bb"], [4, 2], ["4", "2"]), width=13).splitlines() == [" a ████████ 4", "bb ████     2"]
    assert shown(Bars(["a"], [0], ["0"]), width=9).splitlines() == ["a       0"]
    assert shown(Plot([], [])).strip() == "nothing yet"


@pytest.mark.parametrize(("seconds", "text"), [(8, "8 s"), (150, "2 min"), (9000, "2 h 30 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_shares_of_the_pool_by_hand():
    class State:
        attempts, successes = np.array([0.0, 0, 4, 4, 4, 2, 8, 1]), np.array([0.0, 0, 4, 0, 1, 1, 7, 1])

    found = describe_pool(State)
    assert found == {
        "curriculum/pool_unseen_fraction": 0.25,
        "curriculum/pool_solved_fraction": 0.25,
        "curriculum/pool_unsolved_fraction": 0.125,
        "curriculum/pool_mixed_fraction": 0.375,
    }


# -------------------------------------------------------------------------------------------------------------- frames
def test_a_frame_says_what_the_run_has_recorded(directory):
    text = "\n".join(lines_of(directory))
    for part in (
        "lilo with ppo on chain; step 4 of 10; last step ended 0 s ago",
        "accuracy on test 0.400",
        "reward 0.750",
        "surprisal 0.500",
        "0/2 ",
        "unseen █",
        "50.0%",
        "4,000",
        "30 s a step, 3 min left",
        "20.000 s",
    ):
        assert part in text, text


@pytest.mark.parametrize("width", [20, 40, 89, 90, 133])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_width_is_respected(directory, width, encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    watch(directory.path, once=True, console=Console(file=file, width=width, highlight=False))
    file.flush()
    lines = file.buffer.getvalue().decode(encoding).splitlines()
    assert max(map(len, lines)) <= width
    beside = [line for line in lines if "surprisal" in line and "zero-variance" in line]
    assert bool(beside) == (width >= 90)


def test_a_run_without_a_step_and_one_that_has_ended(tmp_path, directory):
    new = opened(tmp_path / "new", Config(num_steps=10))
    assert "step 0 of 10; before the first step" in "\n".join(lines_of(new))
    write_records(new, 2)  # records of before there were shares of the pool
    assert "this run did not record it" in "\n".join(lines_of(new))
    directory.mark("DONE", "10 steps")
    assert "step 4 of 10; done" in "\n".join(lines_of(directory))
    directory.mark("FAILED", "no gradient was finite")
    assert "failed: no gradient was finite" in "\n".join(lines_of(directory, width=140))


def test_a_half_written_last_line_is_as_if_it_were_not_there(directory):
    before = lines_of(directory)
    for name in ("metrics", "ledger", "eval", "timings"):
        with open(directory.path / f"{name}.jsonl", "a") as file:
            file.write('{"step": 4, "policy/ent')
    assert lines_of(directory)[2:] == before[2:]


def test_it_refreshes_until_the_run_has_ended_and_goes_on_past_a_look_that_fails(directory, monkeypatch):
    whole = (directory.path / "checksums.json").read_bytes()
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 1:
            (directory.path / "checksums.json").write_text("{")
        if len(looks) == 2:
            (directory.path / "checksums.json").write_bytes(whole)
            directory.append("metrics", {"step": 4, "curriculum/collected_histogram": [1, 2, 1]})
        if len(looks) == 3:
            directory.mark("DONE", "5 steps")

    monkeypatch.setattr(module.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=300, force_terminal=True, highlight=False)  # no path is broken
    watch(directory.path, once=False, console=console)
    text = console.file.getvalue()
    assert len(looks) == 3
    assert "checksums.json cannot be read" in text
    assert "step 4 of 10; last step" in text
    assert "step 5 of 10; done" in text


def test_mistakes_are_one_sentence(directory, tmp_path):
    with pytest.raises(UsageError, match=r"no run in .*nowhere"):
        lines_of(type(directory)(tmp_path / "nowhere"))
    (directory.path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl is not what was written there"):
        lines_of(directory)
    opened(tmp_path / "many", Config())
    for arm in ("lilo", "uniform"):
        opened(tmp_path / "many" / "seed_1" / arm, Config())
    with pytest.raises(UsageError, match=r"many holds 2 runs: pass one of them, such as .*seed_1/uniform"):
        lines_of(type(directory)(tmp_path / "many"))


def test_the_command_prints_one_frame_where_there_is_no_terminal(directory, monkeypatch, capsys):
    for args in (["--once"], []):
        monkeypatch.setattr(sys, "argv", ["lilo", "watch", str(directory.path), *args])
        cli.main()
        assert "accuracy on test 0.400" in capsys.readouterr().out
