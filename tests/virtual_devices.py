"""Processes of their own that see several CPU devices."""

import os
import subprocess
import sys
import textwrap


def environment(devices: int) -> dict[str, str]:
    """Of such a process: it compiles as quickly as this one does, and imports what this one can."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)]),
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }


def printed_by(script: str, *arguments: object, devices: int) -> str:
    """What a script prints that runs where there are so many devices."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment(devices), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout
