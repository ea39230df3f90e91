"""`lilo plan`: its options are those of the experiment's config, and what a plan asks besides."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Annotated

import jax
import tyro

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.planning import plan as planning
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import path_of


@dataclasses.dataclass(frozen=True)
class _PlanOptions:
    """The command line of a plan: where to run, and what is not known without data; then the config's own options."""

    topology: str
    """slice to plan for, GENERATION:SHAPE, such as v5p:2x2x4"""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    programs: str = ""
    """which to compile, with commas between: sample, follow_ups, prepare, update, propose, admit; empty: all"""
    prompt: int = 512
    """tokens of the longest prompt"""
    pool: int = 12_000
    """training questions"""
    follow_ups: int = 0
    """rollouts from inside completions that a step asks for; 0: 96 for each row"""
    effort: float = -1.0
    """of the compiler: 0 is what a run takes, -1 takes a quarter of the time"""
    propose: bool = False
    """look for settings with which everything fits"""
    json: bool = False
    """print the plan for programs to read"""


def plan(experiment: str, options: Sequence[str]) -> None:
    """Prints what an experiment needs on a slice; a plan that does not fit is refused."""
    given = _PlanOptions(topology="", config=_config_of(experiment))
    found = configuration.parse(given, options, prog=f"lilo plan {experiment}", description=planning.__doc__ or "")
    if not found.topology:
        raise UsageError("--topology is missing: give a slice, such as --topology v5p:2x2x4")
    jax.config.update("jax_exec_time_optimization_effort", found.effort)
    names = tuple(filter(None, (name.strip() for name in found.programs.split(","))))
    asked = planning.Request(found.topology, names, found.prompt, found.pool, found.follow_ups)
    made = planning.make_plan(found.config, asked, tell=planning.say)
    if found.propose and made.too_large():
        changes, made = planning.propose(made, asked, tell=planning.say)
        planning.say(f"it fits with {changes}")
    print(to_json(planning.as_record(made), indent=1) if found.json else "\n".join(planning.lines(made)))
    planning.refuse(made)


def _config_of(experiment: str) -> Config:
    """The config of an experiment module, or of a run directory or its file."""
    path = path_of(experiment)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return configuration.load(path)
    try:
        return importlib.import_module(f"experiments.{experiment}").config()
    except (ImportError, AttributeError):
        raise UsageError(
            f"no experiment {experiment}: give a module of experiments/, such as train, or a run's directory"
        ) from None
