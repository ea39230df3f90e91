"""Configs as dictionaries, in files, and changed in single fields; what is chosen by name, by its name."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from lilo_jax.bounds import Naming, build, shown
from lilo_jax.config.settings import TABLES, Config
from lilo_jax.errors import UsageError
from lilo_jax.storage.classes import class_named
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory


def settings_class(field: str, name: str) -> type:
    """The settings class of a table entry, or of a user's own `package.module:ClassName`."""
    return class_named(field, name, TABLES[field])


def settings_name(field: str, settings: Any) -> str:
    """The name under which `settings_class` finds the class of `settings`."""
    for name, known in TABLES[field].items():
        if type(settings) is known:
            return name
    return f"{type(settings).__module__}:{type(settings).__qualname__}"


def to_dict(config: Config) -> dict[str, Any]:
    """A JSON-ready dictionary; named settings carry their name."""
    values = json.loads(to_json(dataclasses.asdict(config)))
    for path, value in flat(dataclasses.asdict(config)).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{path.replace('_', '-')} is {value}: give a finite number")
    for field in TABLES:
        values[field] = {"name": settings_name(field, getattr(config, field)), **values[field]}
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary by paths: `{"rollout": {"questions": 8}}` is `{"rollout.questions": 8}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def from_dict(values: Any, source: str = "config") -> Config:
    """The inverse of `to_dict`; `UsageError` at anything that is not a config, naming the field and its `source`."""

    def naming(path: tuple[str, ...]) -> str:
        return f"{source}: {'.'.join(path)}" if path else source

    if isinstance(values, Mapping):
        named = {field: _named(field, values[field], naming) for field in TABLES if field in values}
        values = {**values, **named}
    return build(Config, values, naming)


def _named(field: str, values: Any, naming: Naming) -> Any:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise UsageError(f"{naming((field,))} must be an object with the name of a {field}, got {shown(values)}")
    settings = {key: value for key, value in values.items() if key != "name"}
    return build(settings_class(field, values["name"]), settings, naming, (field,))


def load(path: AnyPath) -> Config:
    """Reads a `config.json`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no config at {path}: is {path.parent} a run directory?") from None
    except OSError as error:
        raise UsageError(f"{path} is not a config: {error}") from None
    return from_text(content, path)


def from_text(content: bytes, path: AnyPath) -> Config:
    """The config in the content of the `config.json` at `path`, which a mistake is named by."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a config: {error}") from None
    return from_dict(values, str(path))


def of_run(directory: RunDirectory) -> Config:
    """The config of a run; raises `UsageError` if there is none."""
    return from_text(directory.config_text(), directory.config_path)


def replace(config: Config, **changes: Any) -> Config:
    """A copy of a config with other values in some of its fields; `__` stands between a group and its field.

    >>> config = replace(Config(), rollout__questions=32, seed=1)
    >>> config.rollout.questions, config.seed, Config().seed
    (32, 1, 0)
    """
    for path, value in changes.items():
        group, _, field = path.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, group), **{field: value})
        config = dataclasses.replace(config, **{group: value})
    return config
