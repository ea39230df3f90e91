"""Settings classes by name: those of a table, and a user's own."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import cast

from lilo_jax.errors import UsageError, unknown_name


def class_named(kind: str, name: str, table: Mapping[str, type]) -> type:
    """The settings class that a table has under a name, or a user's own `package.module:ClassName`.

    Args:
        kind: what the table lists, for messages: "task".
        name: such as "gsm8k" or "mine.sums:Sums".
        table: by name.
    """
    if ":" not in name:
        if name not in table:
            raise unknown_name(kind, name, table)
        return table[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise UsageError(f"cannot load {kind} {name!r}: {error}; the form is package.module:ClassName") from error
    if not (dataclasses.is_dataclass(found) and callable(getattr(found, "build", None))):
        raise UsageError(f"{kind} {name!r} is not a dataclass with a build method")
    return cast(type, found)
