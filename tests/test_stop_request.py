"""Any signal: the run saves, says where it stopped, exits as shells expect, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import Stopped
from lilo_jax.processes.stop_request import SIGNALS, StopRequest
from lilo_jax.storage.digest import digests
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.run import run

SIGNALLED_RUN = """
import os, pathlib, sys
from lilo_jax import config as configuration
from lilo_jax.training import collection
from lilo_jax.training import trainer
from lilo_jax.config import Launch
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.training.run import run

config, output, number, at = configuration.load(pathlib.Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), sys.argv[4]
collect, update = trainer.collect, trainer.update

def collect_signalled(collector, state, policy, step, clock):
    if at == "collect" and step == 7:
        os.kill(os.getpid(), number)
    return collect(collector, state, policy, step, clock)

def update_signalled(assembly, state, batch, step, clock):
    if at == "update" and step == 7:
        os.kill(os.getpid(), number)
    if at == "twice" and step == 7:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    if at == "slow" and step == 7:
        os.kill(os.getpid(), number)
        import time
        time.sleep(60)
    return update(assembly, state, batch, step, clock)

trainer.collect, trainer.update = collect_signalled, update_signalled
exit_with_message(lambda: run(config, Launch(output_dir=output, grace=float(sys.argv[5]))))
"""


@pytest.fixture(autouse=True)
def heard():
    """Signals do what they do in a terminal, also where the tests run under nohup or in the background of a script."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def signalled(config, root, number, at, grace=60.0):
    """(directory, exit code, stderr) of a run that gets a signal in step 7."""
    (root / "config.json").write_text(json.dumps(configuration.to_dict(config)))
    command = [sys.executable, "-c", SIGNALLED_RUN, str(root / "config.json"), str(root / "run"), str(int(number)), at]
    done = subprocess.run([*command, str(grace)], capture_output=True, text=True, timeout=300, check=False)
    return RunDirectory(root / "run"), done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "at", "saved"),
    [(signal.SIGTERM, "collect", 7), (signal.SIGHUP, "update", 8), (signal.SIGINT, "update", 8)],
)
def test_a_signal_saves_says_where_and_the_same_command_goes_on(tiny_run, tmp_path, number, at, saved):
    config, expected = tiny_run
    directory, code, errors = signalled(config, tmp_path, number, at)
    assert code == 128 + number
    assert errors.splitlines()[-1] == (
        f"error: stopped by {number.name} after {saved} of 20 steps, which are saved: the same command goes on"
    )
    assert "Traceback" not in errors
    assert directory.newest_step() == saved
    assert not (directory.path / "FAILED").exists()
    assert run(config, Launch(output_dir=str(directory.path))).done
    assert digests(directory) == digests(expected)
    for name in ("metrics", "eval", "ledger"):
        assert directory.read(name) == expected.read(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "grace", "says"), [("twice", 60.0, "stopped at once"), ("slow", 0.3, "not being ready after 0.3 s")]
)
def test_at_the_end_of_grace_or_at_a_second_ctrl_c_the_process_ends(tiny_run, tmp_path, at, grace, says):
    config, expected = tiny_run
    directory, code, errors = signalled(config, tmp_path, signal.SIGINT, at, grace)
    assert code == 130
    assert says in errors.splitlines()[-1]
    assert run(config, Launch(output_dir=str(directory.path))).done
    assert digests(directory) == digests(expected)


@pytest.mark.slow
def test_time_that_is_up_stops_a_run_like_stop_at(tiny_run, tmp_path):
    config, expected = tiny_run
    result = run(config, Launch(output_dir=str(tmp_path / "run"), max_seconds=1e-6))
    assert not result.done
    assert int(result.state.step) == result.directory.newest_step() == 0
    assert run(config, Launch(output_dir=str(tmp_path / "run"))).done
    assert digests(result.directory) == digests(expected)


def test_a_request_hears_each_signal_once_and_gives_the_handlers_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        forwarded = []
        with StopRequest(grace=60, forward=lambda forwarded=forwarded: forwarded.append(1)) as stop:
            assert not stop.asked
            stop.check("nowhere")
            os.kill(os.getpid(), number)
            assert stop.asked
            with pytest.raises(Stopped, match=f"stopped by {number.name} here") as found:
                stop.check("here")
            assert found.value.status == 128 + number
            os.kill(os.getpid(), signal.SIGTERM)
        assert forwarded == [1]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(grace=60) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_only_the_time_counts():
    found = []

    def wait():
        with StopRequest(grace=60, max_seconds=0.01) as stop:
            found.append(stop.asked)
            time.sleep(0.02)
            found.append(stop.asked)
            stop.check("time asks without an error")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert found == [False, True]
