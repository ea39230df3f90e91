"""`benchmarks.faults` finds what it is there to find; a short run of it finds nothing."""

import pathlib
import re
import subprocess
import time

import pytest

from benchmarks import faults


@pytest.fixture
def of_kills(monkeypatch, capsys):
    """(exit status, what was printed) of two trials of kills that end so, without a run."""

    class NoLab:
        root, seconds, damage = pathlib.Path("/nowhere"), {}, None

        def __init__(self, root, kinds):
            assert kinds == {"kills"}

    def outcome(*found):
        monkeypatch.setattr(faults, "Lab", NoLab)
        monkeypatch.setitem(faults.PROCESSES, "kills", lambda lab, rng, output: found)
        none = [part for kind in faults.COUNTS if kind != "kills" for part in (f"--{kind}", "0")]
        try:
            faults.main(["--kills", "2", *none])
        except SystemExit as error:
            return error.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    return outcome


def test_a_trial_that_ends_otherwise_is_shown_and_the_exit_status_tells(of_kills):
    status, printed = of_kills("equal", "kill -9 after 1.00 s")
    assert status == 0
    assert "kills:0" not in printed
    for fault in faults.FAULTS:
        status, printed = of_kills(fault, "kill -9 after 1.00 s")
        assert status == 1
        assert f"kills:1: {fault}: kill -9 after 1.00 s" in printed


def test_who_is_left_over_is_found_and_ended(monkeypatch):
    monkeypatch.setattr(faults, "ENDS_WITHIN", 0.2)
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert [left.pid for left in faults.left_over(process.pid)] == [process.pid]
    process.wait(5)
    assert faults.left_over(process.pid) == []


def test_what_a_clock_measured_makes_no_summaries_differ():
    found = []
    for seconds, accuracy in ((1.0, 0.5), (2.0, 0.5), (2.0, 0.25)):
        summary = {"arms": [{"seconds": seconds, "grader_seconds": seconds, "accuracy": accuracy}]}
        found.append(faults._timeless(summary))
    assert found[0] == found[1] != found[2]


def test_a_moment_is_waited_for_or_comes_too_late():
    process = subprocess.Popen(["sleep", "1"])
    until = time.monotonic() + 0.05
    assert faults.Moment("soon", lambda: time.monotonic() > until).wait(process)
    assert not faults.Moment("never", lambda: False).wait(process)


@pytest.mark.slow
def test_a_short_run_finds_nothing(capsys):
    few = {"kills": 1, "signals": 1, "writers": 1, "flips": 2, "cuts": 1, "deletions": 1, "reads": 0, "comparisons": 0}
    faults.main([part for kind, count in few.items() for part in (f"--{kind}", str(count))])
    printed = capsys.readouterr().out
    for kind, count in few.items():
        assert bool(re.search(rf"\| {kind} +\| +{count} \|", printed)) == bool(count)
