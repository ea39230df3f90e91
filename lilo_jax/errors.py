"""The exceptions that a user is told of: their message is one sentence that names the cure."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input.  Entry points print the message on stderr and exit with `status`, without a traceback."""

    status = 2


class RunError(Exception):
    """A run that cannot go on (a loss that is not finite, say).  Entry points print it and exit with `status`."""

    status = 1


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A `UsageError` that says which name was meant, or lists the valid ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")
