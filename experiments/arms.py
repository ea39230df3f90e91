"""Arms of a comparison: RULE[@QUESTIONSxSAMPLES][+OPTION=VALUE...].

`uniform@128x2` rolls out 128 questions twice each, and `frontier@64x1+algorithm.baseline=posterior` has an option of
its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from lilo_jax import config as configuration
from lilo_jax.config import Config, Options
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.errors import UsageError, unknown_name

Rule = Callable[[Config], Config]
"""From what the arms have in common to an arm."""

RULES: dict[str, Rule] = {
    "uniform": lambda config: configuration.replace(config, curriculum=Uniform()),
    "lilo": lambda config: configuration.replace(config, curriculum=Lilo(pool_ratio=4)),
    "frontier": lambda config: configuration.replace(config, curriculum=Frontier()),
    "sfl_buffer": lambda config: configuration.replace(
        config, curriculum=SflBuffer(refresh_every=10, candidates=256, buffer_size=64)
    ),
}
"""Rules with settings of their own; any other curriculum is an arm with its default settings."""

SHAPE = re.compile(r"([1-9]\d*)x([1-9]\d*)")
"""Questions and samples of an arm."""


def config_of(name: str, config: Config, rules: Mapping[str, Rule] = RULES) -> Config:
    """The config of an arm, RULE[@QUESTIONSxSAMPLES][+OPTION=VALUE...]; RULE is in `rules` or a curriculum by name.

    >>> config_of("lilo@32x2+curriculum.pool-ratio=8", Config()).curriculum.pool_ratio
    8
    """
    name, *given = name.split("+")
    rule, at, shape = name.partition("@")
    if at:
        sizes = SHAPE.fullmatch(shape)
        if not sizes:
            raise UsageError(f"the shape of an arm is QUESTIONSxSAMPLES, such as {rule}@32x2, not {name}")
        config = configuration.replace(config, rollout__questions=int(sizes[1]), rollout__samples=int(sizes[2]))
    if rule in rules:
        config = rules[rule](config)
    elif ":" in rule or rule in CURRICULA:
        config = configuration.replace(config, curriculum=configuration.settings_class("curriculum", rule)())
    else:
        raise unknown_name("arm", rule, rules.keys() | CURRICULA.keys())
    options = [f"--{option}" for option in given]
    return configuration.parse(Options(config=config), options, prog="--arms", description="").config


def labelled(names: Sequence[str]) -> dict[str, str]:
    """Arms by label, under which a run is stored and shown: the name, or the class of a `package.module:ClassName`."""
    labels = [rule.rpartition(":")[2] + plus + given for rule, plus, given in (name.partition("+") for name in names)]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"two arms would be called {label}: leave one out, or give its class another name")
    return dict(zip(labels, names, strict=True))
