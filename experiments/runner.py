"""From a command line to runs: what every experiment module shares."""

import json
import sys

from lilo_jax import config as configuration
from lilo_jax.config import Config, Options
from lilo_jax.run import Result, run


def run_single(config: Config, *, module: str, description: str | None) -> Result | None:
    """Runs one config with overrides from the command line."""
    options = configuration.parse(
        Options(config=config), sys.argv[1:], prog=f"python -m {module}", description=description or ""
    )
    if options.launch.print_config:
        print(json.dumps(configuration.to_dict(options.config), indent=2))
        return None
    return run(options.config, options.launch, name=module.split(".")[-1])
