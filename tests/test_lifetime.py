"""Children end with their parent, also when it is killed, and also when they never come back to Python."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

GRADERS = """
import sys, time
from lilo_jax.grading.workers import GradingWorkers
from lilo_jax.questions import Question
sys.path.insert(0, sys.argv[1])
from never import hang

if __name__ == "__main__":
    grading = GradingWorkers(count=2, deadline=600)
    for i in range(2):
        grading.submit(hang, Question("", str(i)), "4")
    time.sleep(600)
"""
EXECUTOR = """
import sys, time
from experiments.runner import executor
sys.path.insert(0, sys.argv[1])
from never import hang

if __name__ == "__main__":
    with executor(2) as workers:
        for i in range(2):
            workers.schedule(hang, (str(i), "4"))
        time.sleep(600)
"""
NEVER = """
import pathlib, time

def hang(question, response):
    name = getattr(question, "answer", question)
    pathlib.Path(__file__).with_name(f"began_{name}").write_text("")
    if name == "0":
        while True:  # C code that keeps the lock of the interpreter for minutes
            pow(7, 10**8)
    time.sleep(600)
"""


def family(process):
    return [process, *process.children(recursive=True)]


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize("script", [GRADERS, EXECUTOR], ids=["graders", "executor"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_nobody_is_left_when_the_parent_is_gone(tmp_path, script, number):
    (tmp_path / "never.py").write_text(NEVER)
    (tmp_path / "parent.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path)]
    parent = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("began_*"))) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    everyone = family(psutil.Process(parent.pid))
    assert len(everyone) >= 3
    parent.send_signal(number)
    parent.wait(30)
    deadline = time.monotonic() + 5
    while left := alive(everyone):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
