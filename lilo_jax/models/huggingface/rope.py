"""Rotary positions in a `config.json`: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5."""

import math
from typing import Any, get_args, get_type_hints

from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.rope import Rope

SCALINGS = get_args(get_type_hints(Rope)["scaling"])


def read_rope(fields: Fields, context_length: int, *, theta: float = 10_000.0) -> Rope:
    """The rotation of a model whose layers all have the same.

    Args:
        fields: of the config.
        context_length: its `max_position_embeddings`.
        theta: the family's default.
    """
    theta = fields.positive("rope_theta", theta)
    old, new = fields.take("rope_scaling", dict, {}), fields.take("rope_parameters", dict, {})
    fields.only("partial_rotary_factor", [1, 1.0])
    name = "rope_scaling" if old else "rope_parameters"
    return parse_rope(Fields(old or new, f"{fields.where}, {name}"), context_length, theta=theta)


def parse_rope(given: Fields, context_length: int, *, theta: float) -> Rope:
    """The rotation that one object of parameters describes; `theta` is the default."""
    old_name = given.take("type", str, "default")
    scaling = given.take("rope_type", str, old_name)
    theta = given.positive("rope_theta", theta)
    given.only("partial_rotary_factor", [1, 1.0])
    if scaling not in SCALINGS:
        raise given.unsupported("rope_type", scaling, f"known are {', '.join(SCALINGS)}")
    trained = given.size("original_max_position_embeddings", context_length)
    if scaling == "default":
        given.only("factor", [1, 1.0])
        rope = Rope(theta=theta)
    elif scaling == "linear":
        rope = Rope(theta=theta, scaling="linear", factor=given.positive("factor"))
    elif scaling == "dynamic":
        rope = Rope(theta=theta, scaling="dynamic", factor=given.positive("factor"), original_length=context_length)
    elif scaling == "llama3":
        rope = _read_llama3(given, trained, theta)
    else:
        rope = _read_yarn(given, context_length, trained, theta)
    given.finish(f"rope_type {scaling}")
    return rope


def _read_llama3(given: Fields, trained: int, theta: float) -> Rope:
    low, high = given.positive("low_freq_factor"), given.positive("high_freq_factor")
    if high <= low:
        raise given.unsupported("high_freq_factor", high, f"it must be above low_freq_factor, {low}")
    return Rope(
        theta=theta,
        scaling="llama3",
        factor=given.positive("factor"),
        original_length=trained,
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _read_yarn(given: Fields, context_length: int, trained: int, theta: float) -> Rope:
    factor = given.positive("factor", context_length / trained)
    numerator, denominator = given.number("mscale", 0), given.number("mscale_all_dim", 0)
    if numerator and denominator:
        default = _magnitude(factor, numerator) / _magnitude(factor, denominator)
    else:
        default = _magnitude(factor, 1.0)
    return Rope(
        theta=theta,
        scaling="yarn",
        factor=factor,
        original_length=trained,
        beta_fast=given.positive("beta_fast", 32),
        beta_slow=given.positive("beta_slow", 1),
        truncate=given.take("truncate", bool, True),
        attention_factor=given.positive("attention_factor", default),
    )


def _magnitude(factor: float, weight: float) -> float:
    """By how much queries and keys grow when texts grow by `factor`: 0.1 weight ln(factor) + 1 (YaRN, eq. 22)."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def rope_parameters(rope: Rope) -> dict[str, Any]:
    """The object of transformers 5 that `parse_rope` reads."""
    found: dict[str, Any] = {"rope_type": rope.scaling, "rope_theta": rope.theta}
    if rope.scaling != "default":
        found["factor"] = rope.factor
    if rope.scaling in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = rope.original_length
    if rope.scaling == "llama3":
        found |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.scaling == "yarn":
        found |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "truncate": rope.truncate}
        found["attention_factor"] = rope.attention_factor
    return found


def write_rope(rope: Rope) -> dict[str, Any]:
    """Both forms, so that transformers 4 and 5 read the same."""
    parameters = rope_parameters(rope)
    old = None if rope.scaling == "default" else {k: v for k, v in parameters.items() if k != "rope_theta"}
    return {"rope_parameters": parameters, "rope_theta": rope.theta, "rope_scaling": old}
