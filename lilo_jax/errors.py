"""Exceptions whose message is one sentence for the user: a mistake with its cure, a run that failed or was stopped."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A mistake in a config, a command or a file; its message is one sentence that says how to mend it.

    Entry points print the message on stderr and exit with `status`, without a traceback.

    >>> import lilo_jax
    >>> try:
    ...     lilo_jax.run(lilo_jax.replace(lilo_jax.Config(), rollout__questions=0))
    ... except lilo_jax.UsageError as error:
    ...     print(error)
    --rollout.questions must be at least 1, got 0
    """

    status = 2


class RunError(Exception):
    """A run that cannot go on (a loss that is not finite, say).  Entry points print it and exit with `status`.

    >>> import lilo_jax
    >>> try:
    ...     lilo_jax.load("runs/tiny").curve("nowhere")
    ... except lilo_jax.RunError as error:
    ...     print(str(error).endswith("has no evaluation on 'nowhere'"))
    True
    """

    status = 1


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A `UsageError` that says which name was meant, or lists the valid ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")


class Stopped(Exception):  # noqa: N818 (no error: what was asked for)
    """A run that was asked to stop, and can be gone on with.  Entry points print it and exit with `status`.

    Attributes:
        status: 128 and the number of the signal, as shells have it: 143, 129 or 130; 0 if its time was over.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)  # both, so that it comes whole out of a worker process
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])
