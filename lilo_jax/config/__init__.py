"""Settings of a run: what they are, how they are written down, and how a command line changes them."""

from lilo_jax.config.command_line import command_line, given_fields, named_fields, option_value, parse
from lilo_jax.config.files import (
    flat,
    from_dict,
    from_text,
    load,
    of_run,
    replace,
    settings_class,
    settings_name,
    to_dict,
)
from lilo_jax.config.settings import TABLES, Config, Launch, ModelConfig, Options, SftConfig, StorageConfig

__all__ = [
    "TABLES",
    "Config",
    "Launch",
    "ModelConfig",
    "Options",
    "SftConfig",
    "StorageConfig",
    "command_line",
    "flat",
    "from_dict",
    "from_text",
    "given_fields",
    "load",
    "named_fields",
    "of_run",
    "option_value",
    "parse",
    "replace",
    "settings_class",
    "settings_name",
    "to_dict",
]
