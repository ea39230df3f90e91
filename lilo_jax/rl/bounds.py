"""What the settings of algorithms may be, by name: one place for all of them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

_Rule = tuple[str, Callable[[float], bool]]

_SHARE: _Rule = ("from 0 to 1", lambda x: 0 <= x <= 1)
_AT_LEAST_0: _Rule = ("at least 0", lambda x: 0 <= x < math.inf)
_ABOVE_0: _Rule = ("above 0", lambda x: x > 0)
_AT_LEAST_1: _Rule = ("at least 1", lambda x: x >= 1)

RULES: dict[str, _Rule] = {
    "discount": _SHARE,
    "gae_lambda": _SHARE,
    "clip_low": _SHARE,
    "clip_high": _AT_LEAST_0,
    "clip_epsilon": _SHARE,
    "value_clip": _ABOVE_0,
    "dual_clip": ("above 1", lambda x: x > 1),
    "kl_coefficient": _AT_LEAST_0,
    "kl_clamp": _ABOVE_0,
    "kl_target": _ABOVE_0,
    "kl_horizon": _AT_LEAST_1,
    "entropy_coefficient": ("a finite number", math.isfinite),
    "whiten_rows": _AT_LEAST_1,
    "std_epsilon": _AT_LEAST_0,
    "importance_cap": _AT_LEAST_0,
    "length": _AT_LEAST_0,
    "rollouts": _AT_LEAST_1,
    "first_rollouts": _AT_LEAST_1,
    "interval_width": ("between 0 and 1", lambda x: 0 < x < 1),
    "max_steps": _AT_LEAST_0,
}
"""Name of a setting to what it must be, in words and as a test."""


def check_bounds(spec: Any) -> None:
    """Raises `ValueError`, in one sentence, at a number that a setting of `spec` cannot be."""
    for field in dataclasses.fields(spec):
        words, holds = RULES.get(field.name, ("", lambda x: True))
        if not holds(value := getattr(spec, field.name)):
            raise ValueError(f"--algorithm.{field.name.replace('_', '-')} must be {words}, got {value}")
