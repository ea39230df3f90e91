"""A short run of `benchmarks.fuzz`: hostile options, configs, data files and models, in this process."""

import random

import pytest

from benchmarks import fuzz, hostile
from lilo_jax.grading.workers import GradingWorkers

CASES = {"options": 20, "configs": 60, "lines": 60, "models": 60}


@pytest.fixture(autouse=True)
def ungraded(monkeypatch):
    """`warm_up` puts grading aside; afterwards it is as it was."""
    monkeypatch.setattr(GradingWorkers, "submit", GradingWorkers.submit)
    hostile.warm_up()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_hostile_input_is_taken_or_refused_in_one_line(kind, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {seed: fuzz.attempt(kind, seed) for seed in range(CASES[kind])}
    faults = {seed: outcome for seed, outcome in found.items() if outcome.kind in fuzz.FAULTS}
    assert not faults
    assert {outcome.kind for outcome in found.values()} == {"accepted", "refused"}


@pytest.mark.parametrize("kind", [kind for kind in fuzz.NAMES if kind != "checkpoints"])
def test_a_case_is_a_function_of_kind_and_seed(kind, tmp_path):
    cases = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        cases.append(hostile.KINDS[kind](random.Random(f"{kind}:7"), tmp_path / folder).what)
    assert cases[0] == cases[1]
    assert set(hostile.KINDS) == set(fuzz.NAMES)


@pytest.fixture
def outcomes_of(monkeypatch):
    """The outcome of a case whose attempt is given."""

    def of(attempt):
        monkeypatch.setitem(hostile.KINDS, "lines", lambda rng, directory: hostile.Case("it", attempt))
        return fuzz.attempt("lines", 0)

    return of


def test_what_counts_as_a_fault(outcomes_of):
    def raising(error):
        def attempt():
            raise error

        return attempt

    assert outcomes_of(lambda: None) == ("accepted", "it", "")
    assert outcomes_of(lambda: "they differ") == ("silent", "it", "they differ")
    assert outcomes_of(raising(fuzz.UsageError("no"))) == ("refused", "it", "no")
    assert outcomes_of(raising(SystemExit(2))).kind == "refused"
    assert outcomes_of(raising(PermissionError(13, "x", "/d"))).kind == "refused"
    fault = outcomes_of(raising(KeyError("x")))
    assert fault.kind == "traceback"
    assert fault.said.startswith("KeyError: 'x' (")
    assert "test_fuzz.py" in fault.said


@pytest.mark.slow
def test_a_hang_and_a_death_are_found_and_the_others_go_on():
    programs = ["import time; time.sleep(60)", "1", "import os; os._exit(3)", "2"]
    hang, first, death, second = fuzz.outcomes(exec, [(program,) for program in programs], 3.0)
    assert hang == ("hang", "", "not done after 3 seconds")
    assert death.kind == "traceback"
    assert first is second is None
