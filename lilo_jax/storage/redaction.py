"""Command lines without their secrets, to be kept with what they made."""

import re
from collections.abc import Sequence

HIDDEN = "[redacted]"
_NAME = re.compile(r"token(?!s|iz)|(?<!query.)key(?![a-z])|secret|passw|credential", re.IGNORECASE)
"""Names whose values are secret; what this library counts or calls so itself is none."""
_VALUE = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        hf_[A-Za-z0-9]{6,} | gh[opsur]_[A-Za-z0-9]{6,} | github_pat_\w{6,} | glpat-[\w-]{6,}
        | sk-[\w-]{6,} | (?:AKIA|ASIA)[A-Z0-9]{8,} | AIza[\w-]{20,} | xox[a-z]-[\w-]{6,}
    )""",
    re.VERBOSE,
)
"""What the tokens of well-known services look like, wherever they stand."""
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_BEARER = re.compile(r"(?<=\bbearer\s)\S+", re.IGNORECASE)


def redacted(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line, with `[redacted]` for each value that its name or its form shows to be a secret."""
    found, secret_follows = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_option = argument.startswith("-")
        if secret_follows and not is_option:
            found.append(HIDDEN)
        elif equals and value and _NAME.search(name):
            found.append(f"{name}={HIDDEN}")
        else:
            found.append(_without_secrets(argument))
        secret_follows = is_option and not equals and _NAME.search(argument) is not None
    return found


def _without_secrets(text: str) -> str:
    for pattern in (_VALUE, _LOGIN, _BEARER):
        text = pattern.sub(HIDDEN, text)
    return text
