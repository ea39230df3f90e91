"""Nothing takes long in silence: compilations are told, and what goes on is said once a minute."""

import contextlib
import time

import jax
import jax.numpy as jnp
import pytest

from lilo_jax.device import compiling
from lilo_jax.device.compiling import announced, watched
from lilo_jax.storage import progress as module
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.progress import Progress


class Heard:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def compiling(self, name):
        self.told.append(("begins", name))

    def compiled(self, name, seconds):
        assert seconds > 0
        self.told.append(("ends", name))


def test_a_program_is_told_when_it_is_compiled_and_never_when_it_only_runs():
    program, heard = jax.jit(announced("double", lambda x, *, times=2: times * x), static_argnames="times"), Heard()
    with watched(heard):
        assert program(jnp.ones(3)).sum() == 6
        assert heard.told == [("begins", "double"), ("ends", "double")]
        program(jnp.ones(3))
        assert len(heard.told) == 2
        program(jnp.ones(4), times=3)  # another shape is another program
        assert len(heard.told) == 4
    program(jnp.ones(5))
    assert len(heard.told) == 4


def test_other_programs_that_are_compiled_meanwhile_end_nothing():
    heard = Heard()

    def function(x):
        jax.jit(lambda y: y + 0.25).lower(1.0).compile()
        heard.told.append("still")
        return x - 0.125

    with watched(heard):
        jax.jit(announced("outer", function))(jnp.float32(1))
    assert heard.told == [("begins", "outer"), "still", ("ends", "outer")]


def test_a_function_that_cannot_be_traced_ends_too():
    heard = Heard()
    with watched(heard), contextlib.suppress(ZeroDivisionError):
        jax.jit(announced("broken", lambda x: x / (1 // 0)))(jnp.ones(2))
    assert heard.told == [("begins", "broken"), ("ends", "broken")]
    assert compiling._WATCH.watchers == []


@pytest.fixture
def quick(monkeypatch):
    """A minute of a few hundredths of a second."""
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    progress = Progress("run", total=100, every=50)
    yield progress
    progress.close()


def test_what_takes_long_is_said_with_its_seconds(quick, capsys):
    with quick.doing("update"):
        time.sleep(0.3)
        quick.compiling("update")
        time.sleep(0.3)
        quick.compiled("update", 75.04)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("run: update ... 0 s")
    assert any(line.startswith("run: compiling update ... ") for line in lines)
    assert lines[-1] == "run: compiled update in 75.0 s"
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # nothing is being done


def test_what_is_quick_is_not_said(capsys):
    progress = Progress("run", total=100, every=50)
    with progress.doing("update"):
        progress.compiling("update")
        progress.compiled("update", 0.5)
    progress.step(1, {}, "note")
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_slow_step_has_its_line(quick, capsys):
    quick.step(1, {"update": 0.06}, "success 0.5")
    assert capsys.readouterr().err == ""
    time.sleep(0.06)
    quick.step(2, {"update": 0.06}, "success 0.5")
    assert capsys.readouterr().err == "run: step 2/100: success 0.5 | update 60ms\n"


def test_a_phase_that_fails_is_over(quick):
    clock = PhaseClock(quick.doing)
    with contextlib.suppress(ValueError), clock.phase("sample"):
        assert [what for what, _ in quick._doing] == ["sample"]
        raise ValueError
    assert quick._doing == []
