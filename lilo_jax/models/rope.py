"""Rotary position embeddings and the ways in which published models stretch them to longer texts."""

import dataclasses
import functools
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lilo_jax.bounds import Positive, Whole
from lilo_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Rope:
    """Wavelengths of the rotation, and how they are stretched."""

    theta: Positive = 10_000.0
    """base of the wavelengths"""
    scaling: Literal["default", "linear", "dynamic", "llama3", "yarn"] = "default"
    """default leaves the wavelengths as they are"""
    factor: Positive = 1.0
    """by how much longer texts may be"""
    original_length: Whole = 0
    """tokens that the wavelengths were trained for; read by dynamic, llama3 and yarn"""
    low_freq_factor: Positive = 1.0
    """llama3: wavelengths beyond original_length / this are stretched whole"""
    high_freq_factor: Positive = 4.0
    """llama3: wavelengths below original_length / this are left alone"""
    beta_fast: Positive = 32.0
    """yarn: pairs that turn more often than this over the original length are left alone"""
    beta_slow: Positive = 1.0
    """yarn: pairs that turn less often than this are stretched whole"""
    truncate: bool = True
    """yarn: the bounds of the ramp between them are rounded to whole pairs"""
    attention_factor: Positive = 1.0
    """queries and keys are multiplied by it"""


@functools.cache
def frequencies(rope: Rope, head_dim: int, context_length: int) -> Float[np.ndarray, "pairs"]:
    """The angle per position of each rotated pair: f_i = theta^(-2i/H), stretched.

        linear   f_i / factor
        dynamic  theta grows to theta (factor L / L0 - (factor - 1))^(H / (H - 2)), L = max(context_length, L0)
        llama3   f_i if 2 pi / f_i < L0 / high_freq_factor, f_i / factor if 2 pi / f_i > L0 / low_freq_factor, and
                 between them (1 - s) f_i / factor + s f_i with s linear in f_i
        yarn     the same mixture with s falling linearly in i between the pairs that turn beta_fast and beta_slow times
                 over L0 tokens

    L0 is `original_length`.  "dynamic" is for a fixed longest sequence here, so that a token's key does not depend on
    what comes after it; up to L0 it is the same as "default".

    Sources: Su et al. 2021, eq. 15; Chen et al. 2023, eq. 4 (linear); Peng et al. 2023 (YaRN), eq. 23 and section A.2
    (dynamic); Llama 3.1's released code (llama3); field meanings as in Hugging Face transformers.

    Args:
        rope: wavelengths and stretching.
        head_dim: H, even.
        context_length: longest sequence in tokens; read by "dynamic" only, 0 stands for L0.

    Returns:
        f, in float32.
    """
    exponents = np.arange(0, head_dim, 2) / head_dim
    theta, factor, trained = rope.theta, rope.factor, rope.original_length
    if rope.scaling == "dynamic":
        theta *= (factor * max(context_length / trained, 1) - (factor - 1)) ** (head_dim / (head_dim - 2))
    plain = theta**-exponents
    if rope.scaling == "linear":
        plain = plain / factor
    elif rope.scaling == "llama3":
        low, high = rope.low_freq_factor, rope.high_freq_factor
        kept = np.clip((trained * plain / (2 * math.pi) - low) / (high - low), 0, 1)
        plain = (1 - kept) * plain / factor + kept * plain
    elif rope.scaling == "yarn":
        kept = 1 - _ramp(rope, head_dim)
        plain = (1 - kept) * plain / factor + kept * plain
    return plain.astype(np.float32)


def _ramp(rope: Rope, head_dim: int) -> Float[np.ndarray, "pairs"]:
    """0 for the pairs that turn often, 1 for those that turn seldom, linear between."""

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(rope.original_length / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001
    return np.clip((np.arange(head_dim // 2) - first) / width, 0, 1)


def rotate(
    x: Float[Array, "rows tokens heads head_dim"],
    positions: Int[Array, "#rows tokens"],
    angles_per_position: Float[Array, "pairs"],
    *,
    scale: float = 1.0,
) -> Float[Array, "rows tokens heads head_dim"]:
    """Rotary position embedding: the pair (x_i, x_{i + H/2}) is turned by the angle p f_i, and multiplied by `scale`.

    Args:
        x: queries or keys.
        positions: p, one row if all rows have the same.
        angles_per_position: f, from `frequencies`.
        scale: of the result.
    """
    angles = positions[:, :, None, None] * angles_per_position[None, None, None]
    cos, sin = jnp.cos(angles) * scale, jnp.sin(angles) * scale
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
