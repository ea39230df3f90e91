"""Runs in several processes, as on several hosts: each has CPU devices of its own, and they meet on a local port."""

import socket
import subprocess
import sys
import textwrap
import time

from virtual_devices import environment

BOUND = 240


def start(arguments, *, processes=2, devices=2, plant="", own=()):
    """Starts the processes of one run of `experiments.train`.

    Args:
        arguments: of the command line, the same for all.
        processes: how many.
        devices: of each.
        plant: Python code that runs in each before the run; `host` is its number.
        own: further arguments of each process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = "import runpy, sys\nhost = int(sys.argv.pop(1))\n" + textwrap.dedent(plant)
    begin += "\nrunpy.run_module('experiments.train', run_name='__main__')"
    started = []
    for host in range(processes):
        where = ["--distributed.coordinator", f"127.0.0.1:{port}", "--distributed.processes", str(processes)]
        where += ["--distributed.process", str(host), "--distributed.heartbeat", "10"]
        more = list(own[host]) if own else []
        command = [sys.executable, "-c", begin, str(host), *arguments, *more, *(where if processes > 1 else [])]
        variables = environment(devices)
        if processes > 1:  # one would read a program from the cache while the other still compiles it, and wait in vain
            variables["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        started.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return started


def ended(started, within=BOUND):
    """(exit statuses, what each printed) when all have ended; those that have not are killed, and the test fails."""
    until, printed = time.monotonic() + within, []
    try:
        for process in started:
            printed.append(process.communicate(timeout=max(until - time.monotonic(), 1))[0])
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], printed


def run(arguments, **how):
    """What the processes printed of a run that all of them ended well."""
    statuses, printed = ended(start(arguments, **how))
    assert statuses == [0] * len(statuses), "\n".join(text[-3000:] for text in printed)
    return printed


def wait_for(path, lines, started, within=BOUND):
    """Returns when a file has so many lines."""
    until = time.monotonic() + within
    while not (path.exists() and len(path.read_text().splitlines()) >= lines):
        assert time.monotonic() < until
        assert all(process.poll() is None for process in started), [process.communicate()[0] for process in started]
        time.sleep(0.1)
