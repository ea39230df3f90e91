"""Sinks: trackers that a run's records also go to (`--log`), one file each, behind the protocol of `contract.py`."""

import importlib.util
from collections.abc import Sequence

from lilo_jax.errors import UsageError, unknown_name

SINKS = ("mlflow", "tensorboard", "trackio", "wandb")
"""Each is the name of a module here, of the package that it needs, and of the extra that installs it."""


def chosen_sinks(names: str) -> Sequence[str]:
    """The names of `--log`, with commas between, each once.

    Raises:
        UsageError: one is not known, or its package is not installed.
    """
    found = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in found:
        if name not in SINKS:
            raise unknown_name("sink of --log", name, SINKS)
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # a folder of that name, as W&B leaves one, is no package
            raise UsageError(f'--log {name} needs the package {name}: pip install "lilo-jax[{name}]"')
    return found
