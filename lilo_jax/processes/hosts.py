"""Several processes that train one model, as on the hosts of a TPU slice: how they start, what they tell each other.

JAX makes one machine of them: each runs the same program on its own devices.  The first one (process 0) writes and
prints.  What is decided on hosts, not on devices, is exchanged here, so that all decide alike.  With one process every
function is as if it were not there.
"""

import contextlib
import glob
import importlib.util
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lilo_jax.errors import RunError, UsageError

OPTIONS = ("coordinator", "processes", "process", "heartbeat")
HEARTBEAT = 30
"""Seconds without a sign of life after which a host is given up, and all others end."""
LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables in which srun and mpirun say how many processes there are."""


def begin(arguments: Sequence[str]) -> list[str]:
    """Joins the other processes, if there are any, and returns the arguments without the options that say so.

    `--distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I` name them; without these
    SLURM, MPI, Kubernetes and Cloud TPU are recognised as `jax.distributed.initialize` does.  To be called before JAX
    looks for its devices.

    Raises:
        UsageError: options are missing or no numbers.
    """
    given, rest = split(arguments)
    heartbeat = _number(given, "heartbeat", HEARTBEAT)
    if "coordinator" in given or "processes" in given or "process" in given:
        missing = [name for name in OPTIONS[:3] if name not in given]
        if missing:
            raise UsageError(f"--distributed.{missing[0]} is missing: give coordinator, processes and process together")
        processes, process = _number(given, "processes", 1), _number(given, "process", 0)
        if not 0 <= process < processes:
            raise UsageError(f"--distributed.process {process} must be from 0 to {processes - 1}")
        if processes > 1:
            _join(heartbeat, given["coordinator"], processes, process)
    elif _launched():
        _join(heartbeat)
    elif _on_tpu():  # of one host or of several: its own metadata say
        with contextlib.suppress(ValueError):  # of JAX, where there is no such metadata
            _join(heartbeat)
    return rest


def _join(
    heartbeat: int, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except ValueError:
        raise
    except Exception as error:  # of whatever the runtime finds
        raise RunError(f"the processes did not find each other: {' '.join(str(error).split())[:300]}") from None


def _launched() -> bool:
    """Whether a launcher has started several processes."""
    counts = [os.environ.get(name, "1") for name in LAUNCHERS]
    in_job_set = "JOBSET_NAME" in os.environ and "JOB_COMPLETION_INDEX" in os.environ
    several = any(count.isdigit() and int(count) > 1 for count in counts)
    return several or in_job_set or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _on_tpu() -> bool:
    """Whether there are TPU chips that JAX is going to use."""
    allowed = os.environ.get("JAX_PLATFORMS", "tpu")
    has_chips = any(glob.glob(pattern) for pattern in ("/dev/accel*", "/dev/vfio/[0-9]*"))
    return "tpu" in allowed and has_chips and importlib.util.find_spec("libtpu") is not None


def split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the options that name the processes, and all other arguments."""
    given: dict[str, str] = {}
    rest: list[str] = []
    left = list(arguments)
    while left:
        name, equals, value = left.pop(0).partition("=")
        option = name.removeprefix("--distributed.")
        if not name.startswith("--distributed."):
            rest.append(name + equals + value)
        elif option not in OPTIONS:
            raise UsageError(f"unknown option {name}; known: {', '.join(f'--distributed.{o}' for o in OPTIONS)}")
        elif not equals and not left:
            raise UsageError(f"{name} needs a value")
        else:
            given[option] = value if equals else left.pop(0)
    return given, rest


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not text.isdigit():
        raise UsageError(f"--distributed.{name} must be a whole number, not {text}")
    return int(text)


def number() -> int:
    """How many processes there are; of one JAX need not look for its devices."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the one that writes and prints."""
    return index() == 0


def is_mine(item: int) -> bool:
    """Whether an item of a list that is shared out, as answers that are graded, is this process's."""
    return item % number() == index()


def gathered(value: Any) -> list[Any]:
    """What each process has given, in their order; all must call it, in the same order."""
    if number() == 1:
        return [value]
    from jax.experimental import multihost_utils

    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(own))))
    padded = np.pad(own, (0, int(sizes.max()) - len(own)))
    whole = np.asarray(multihost_utils.process_allgather(padded))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(whole, sizes, strict=True)]


def wait() -> None:
    """Returns when all processes have come as far."""
    gathered(None)


def agree(where: str, decisions: Callable[[], Mapping[str, Any]]) -> None:
    """Raises `RunError`, naming the first that differs, if processes decided differently.

    Args:
        where: when this was decided.
        decisions: what was decided, by name, in the order in which it was; compared as pickled.  Not called where one
            process is alone.
    """
    if number() == 1:
        return
    others = gathered(dict(decisions()))
    for name, own in others[0].items():
        for host, there in enumerate(others):
            if pickle.dumps(there.get(name)) != pickle.dumps(own):
                raise RunError(
                    f"{where}, the hosts differ in {name}: {_shown(own)} on host 0 and {_shown(there.get(name))} on "
                    f"host {host}; start all of them with the same code, options and data"
                )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
