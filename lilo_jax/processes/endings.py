"""How a command ends: in one line on stderr whatever went wrong, with a status that tells of which kind it was."""

import errno
import logging
import os
import select
import sys
import threading
from collections.abc import Callable

from lilo_jax.errors import RunError, Stopped, UsageError
from lilo_jax.processes import hosts

INTERRUPTED, NOBODY_READS = 130, 141
"""Statuses that shells give to what Ctrl-C and a closed pipe end."""
LONGEST = 500
"""Characters that are shown of what somebody else's error says."""

FAULT = "this is a fault of lilo_jax"
AGAIN = "free some, and run the same command again"
KNOWN = {
    "No space left on device": f"no space is left on the disk: {AGAIN}",
    "RESOURCE_EXHAUSTED": (
        "the device has not enough memory: for a run raise --update.microbatches, or lower --update.chunk, "
        "--rollout.slots, --rollout.prefill-tokens, --evaluation.rows or --sft.batch; else give shorter rows or a "
        "smaller model"
    ),
    "Unable to initialize backend": "JAX does not find the device that it is told to use: see JAX_PLATFORMS",
}
"""What libraries say, in errors of many classes, to what it means here; the first that is found counts."""
SYSTEM = {
    errno.ENOSPC: f"no space is left there: {AGAIN}",
    errno.EDQUOT: f"your share of the disk is used up: {AGAIN}",
    errno.EACCES: "you may not do that there: give another path, or yourself the right to it",
    errno.EPERM: "you may not do that there: give another path, or yourself the right to it",
    errno.EROFS: "nothing can be written there: give another path",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.EISDIR: "it is a directory: give a file",
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.ENOENT: "there is nothing: check the path",
    errno.ELOOP: "its links lead in a circle: give another path",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
}
"""What the operating system refuses, with the cure."""


def exit_with_message(main: Callable[[], object]) -> None:
    """Runs an entry point.

    An error becomes one line on stderr, and the exit status is 2 for a user's mistake, 128 and the number of the signal
    for a run that was stopped, and 1 for all else.  If nobody reads stdout any more, as after `| head`, the command
    ends in silence.  With --debug the traceback is shown.
    """
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]  # of every command, so of no parser
    if not debug:
        _silence_libraries()
    try:
        try:
            sys.argv[1:] = hosts.begin(sys.argv[1:])
            main()
        finally:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(NOBODY_READS)
        if debug and hosts.number() == 1:
            raise
        said = " ".join(message(error).splitlines())
        print(f"error: {said}" if status(error) else said, file=sys.stderr, flush=True)
        if hosts.number() > 1 and status(error):  # the others may wait for this one: they see that it is gone
            os._exit(status(error))
        sys.exit(status(error))


def _silence_libraries() -> None:
    """What a library's own threads and loggers have to say of an error comes out of its functions too, in one line."""
    threading.excepthook = lambda _: None
    sys.excepthook = lambda *_: None  # threads of C++, as tensorstore's when a damaged array ends the reading of others
    for name in ("absl", "asyncio", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def status(error: BaseException) -> int:
    """The exit status for an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.status if isinstance(error, UsageError | RunError | Stopped) else 1


def message(error: BaseException) -> str:
    """What a user is told of an error."""
    if isinstance(error, UsageError | RunError | Stopped):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    said = " ".join(str(error).split())[:LONGEST]
    if isinstance(error, OSError) and error.errno in SYSTEM:
        return f"{error.filename or 'a file'}: {SYSTEM[error.errno]}"
    for phrase, meaning in KNOWN.items():
        if phrase in said:
            return meaning
    if isinstance(error, MemoryError):
        return f"the machine has not enough memory ({said or 'asked for in vain'}): give less, or take a larger machine"
    if isinstance(error, RecursionError):
        return "something that was read is nested too deeply: make it flatter"
    if isinstance(error, UnicodeError):
        return f"there is text that cannot be written or read ({said}): correct it, or set PYTHONUTF8=1"
    if isinstance(error, OSError):
        return f"the system refuses: {said}"
    return f"{type(error).__name__}: {said}; {FAULT}: run again with --debug and report it"


def _nobody_reads() -> bool:
    """Whether stdout has lost its reader; what is left to be written then goes nowhere, instead of failing again."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # it is no file, or closed
        return False
    asked = select.poll()
    asked.register(stdout, 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return gone
