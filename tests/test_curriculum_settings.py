"""Settings of the curricula: which are refused, by which option, and that every one is explained."""

import ast
import dataclasses
import inspect
import itertools

import pytest
from curriculum_simulation import POOL, QUESTIONS, SAMPLES

from lilo_jax.bounds import check
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.errors import UsageError

FITS = {"sfl_buffer": {"candidates": 20, "buffer_size": 8}}
"""Settings without which the defaults do not fit the pool."""
BAD = {
    "lilo": {"pool_ratio": (0, -1, 11)},
    "sfl_buffer": {
        "refresh_every": (0,),
        "candidates": (7, POOL + 1),
        "buffer_size": (1, 21),
        "attempts": (0, 1),
        "buffer_fraction": (-0.1, 1.5),
    },
    "lilo_sequential": {"pool_ratio": (0, 3, 11), "first": (0, 3), "more": (0,), "rounds": (0,), "prior": (-0.1,)},
    "plr": {"beta": (0.0,), "staleness": (-0.1, 1.5), "replay": (-0.1, 1.5)},
    "dapo": {"round_ratio": (0, 11), "most_rounds": (0,)},
    "prime": {"oversample": (0, 11), "low": (-0.1, 0.9), "high": (0.1, 1.1)},
    "balanced": {"low": (-0.1, 0.9), "high": (0.1, 1.1), "most_rounds": (0,)},
    "speed": {"pool_ratio": (0, 11), "screen": (1.0,)},
    "pilot_commit": {
        "pool_ratio": (0, 11),
        "pilot": (1.0,),
        "low": (-0.1, 0.9),
        "high": (0.1, 1.1),
        "age": (-1,),
        "solved": (0.0, 1.1),
        "most_rounds": (0,),
    },
    "vcrl": {"threshold": (0.0, 1.1), "momentum": (-0.1, 1.0)},
    "lze": {"share": (0.0, 0.05, 1.1), "floor": (-0.1, 1.1), "momentum": (-0.1,), "rate": (0.0, 1.1), "noise": (-0.1,)},
    "greso": {
        "easy_target": (-0.1, 1.1),
        "hard_target": (-0.1, 1.1),
        "explore": (0.0, 1.1),
        "first_ratio": (0.5, 10.5),
        "margin": (0.0, 0.9),
        "most_rounds": (0,),
    },
    "hive": {"pool_ratio": (0,), "refresh_every": (0,)},
    "mapp": {"pool_ratio": (0,), "decay": (0.0, 1.1), "prior": (0.0,)},
    "mopps": {"pool_ratio": (0,), "target": (-0.1, 1.1), "decay": (0.0, 1.1), "prior": (0.0,)},
    "bots": {
        "forget": (-0.1, 1.1),
        "share": (-0.1, 2.0),
        "target": (-0.1, 1.1),
        "tokens": (0,),
        "pairs": (0,),
        "window": (0,),
    },
    "spo": {"floor": (-1.0,), "decay": (0.0, 1.1)},
    "adarft": {"start": (-1.0, 101.0), "pace": (-1.0,), "rate": (-0.1, 1.1), "grade": (0,)},
    "dps": {"pool_ratio": (0,), "prior": (0.0,), "decay": (-0.1, 1.1)},
    "sec": {"rate": (0.0, 1.1), "temperature": (0.0,), "categories": (1,)},
    "dump": {"window": (SAMPLES - 1,), "temperature": (0.0,), "categories": (1,)},
    "e2h": {"schedule": ("linear",), "steps": (0,), "levels": (1,), "grade": (0,)},
    "dots": {"temperature": (0.0,), "hidden": (0,), "window": (0,)},
    "pcl": {"pool_ratio": (0,), "target": (-0.1, 1.1), "hidden": (0,), "window": (0,)},
    "knapsack": {"least": (0, SAMPLES + 1), "most": (SAMPLES - 1,)},
    "reinforce_ada": {"rounds": (0, SAMPLES + 1), "right": (-1,), "wrong": (-1,)},
    "prime_rl_pools": {
        "hard": (0.9,),
        "normal": (0.1,),
        "hard_weight": (-1.0,),
        "normal_weight": (-1.0,),
        "easy_weight": (-1.0,),
        "unseen_weight": (-1.0,),
    },
    "retire_solved": {"threshold": (0.0, 1.1)},
    "remind": {"enter": (0.0, 1.1), "every": (0,), "share": (0.0, 1.1)},
    "rlve": {"window": (0,), "threshold": (0.0, 1.1), "least": (0,), "categories": (0,), "levels": (0,)},
    "frontier": {
        "pool_ratio": (0,),
        "tokens": (-1,),
        "pairs": (-1,),
        "hidden": (-1,),
        "refresh_every": (0,),
        "window": (0,),
        "traps": (-0.1, 1.0),
    },
}
"""Values on either side of what a setting may be, in a pool of 40."""
FREE = {"adarft": {"sharpness"}}
"""Settings that take every number."""
CASES = [(n, setting, v) for n, settings in BAD.items() for setting, values in settings.items() for v in values]


def settings_of(spec):
    return {field.name for field in dataclasses.fields(spec)}


def option(setting):
    return f"--curriculum.{setting.replace('_', '-')}"


def checked_and_built(spec):
    check(spec, path=("curriculum",))
    return spec.build(pool_size=POOL, questions=QUESTIONS, samples=SAMPLES)


@pytest.mark.parametrize(("name", "setting", "value"), CASES)
def test_a_bad_setting_is_refused_by_its_option(name, setting, value):
    spec = CURRICULA[name](**FITS.get(name, {}) | {setting: value})
    with pytest.raises((UsageError, ValueError), match=rf"{option(setting)}\b") as refusal:
        checked_and_built(spec)
    assert "\n" not in str(refusal.value)


def test_every_setting_has_values_that_are_refused():
    assert {
        name: settings_of(spec) - FREE.get(name, set()) for name, spec in CURRICULA.items() if settings_of(spec)
    } == {name: set(settings) for name, settings in BAD.items()}


@pytest.mark.parametrize(
    ("spec", "pool_size", "questions", "samples", "cure"),
    [
        (SflBuffer(candidates=POOL, buffer_size=POOL), POOL, POOL + 1, SAMPLES, "--rollout.questions"),
        (CURRICULA["speed"](), POOL, QUESTIONS, 2, "--rollout.samples"),
        (CURRICULA["knapsack"](), POOL, QUESTIONS, 1, "--rollout.samples"),
        (CURRICULA["balanced"](), POOL, POOL + 1, SAMPLES, "out of 40"),
        (Frontier(hidden=0), POOL, QUESTIONS, SAMPLES, "--curriculum.tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(spec, pool_size, questions, samples, cure):
    with pytest.raises(ValueError, match=cure):
        spec.build(pool_size=pool_size, questions=questions, samples=samples)


@pytest.mark.parametrize("name", [name for name, spec in CURRICULA.items() if settings_of(spec)])
def test_every_setting_says_what_it_is(name):
    """A docstring after the field is what --help prints."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(CURRICULA[name])).body)
    explained = {
        field.target.id
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert explained == settings_of(CURRICULA[name])


def test_rules_that_choose_by_what_varies_in_a_group_say_so():
    fitting = {name: spec(**FITS.get(name, {})) for name, spec in CURRICULA.items() if name != "dump"}
    built = {name: spec.build(pool_size=POOL, questions=QUESTIONS, samples=SAMPLES) for name, spec in fitting.items()}
    assert {name for name, rule in built.items() if rule.least_samples == 2} == {
        "lilo", "dapo", "balanced", "greso", "vcrl", "lze", "mapp"
    }  # fmt: skip


def test_settings_at_the_limits_build():
    Lilo(pool_ratio=1).build(pool_size=POOL, questions=POOL, samples=1)
    Lilo().build(pool_size=POOL, questions=POOL // 4, samples=1)
    limits = SflBuffer(candidates=POOL, buffer_size=POOL, refresh_every=1, attempts=1, buffer_fraction=1.0)
    Frontier(pool_ratio=1, hidden=1, window=1, traps=0.0).build(pool_size=POOL, questions=POOL, samples=1)
    built = limits.build(pool_size=POOL, questions=POOL, samples=2)
    assert (built.max_rounds, built.max_samples, built.train_rows) == (2, 2, 2 * POOL)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rates_and_shares_may_be_at_either_end(value):
    for name, setting in [("mopps", "target"), ("bots", "target"), ("pcl", "target"), ("adarft", "rate")]:
        CURRICULA[name](**{setting: value}).build(pool_size=POOL, questions=QUESTIONS, samples=SAMPLES)
    CURRICULA["greso"](easy_target=value, hard_target=value, margin=1.0).build(
        pool_size=POOL, questions=QUESTIONS, samples=SAMPLES
    )
