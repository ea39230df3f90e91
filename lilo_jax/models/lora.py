"""Low-rank adapters: a frozen base, and small trained matrices beside some of its weights.

W becomes W + (alpha / rank) A B, for W [*in, *out], A [*in, rank] and B [rank, *out].  The two are kept apart, in
training and in sampling, so that both compute the same; they are merged for export.  Everything else sees parameters
whose adapted weights are `LowRank` nodes.

Source: Hu et al. 2022 (LoRA), section 4.1: A random, B zero, so that training starts from the base.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from lilo_jax.bounds import Positive, Whole
from lilo_jax.models import Model
from lilo_jax.models.projection import LowRank
from lilo_jax.types import Array, PyTree

TARGETS = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "output": "attention",
    "gate": "mlp",
    "up": "mlp",
    "down": "mlp",
}
"""Weights that may be adapted, and the part of a layer that each belongs to."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in reinforcement learning; fine-tuning before it trains all weights."""

    rank: Whole = 0
    """of the adapters; 0 trains all weights"""
    alpha: Positive = 16.0
    """the product A B is multiplied by alpha / rank"""
    targets: tuple[str, ...] = tuple(TARGETS)
    """adapted weights of each layer, among query, key, value, output, gate, up, down"""

    @property
    def scale(self) -> float:
        """What the product A B is multiplied by."""
        return self.alpha / self.rank if self.rank else 0.0


def init_adapters(model: Model, lora: LoraConfig, key: Key[jax.Array, ""]) -> PyTree:
    """New adapters for a decoder's layers: A normal with deviation 1 / sqrt(fan-in), B zero.

    Args:
        model: whose weights are adapted.
        lora: rank and targets.
        key: consumed.

    Returns:
        {"trunk": {"layers": {part: {name: {"a": float32 [L, *in, rank], "b": float32 [L, rank, *out]}}}}}.
    """
    layers = jax.eval_shape(model.init, key)["trunk"]["layers"]
    tree: dict = {}
    for name, name_key in zip(lora.targets, jax.random.split(key, len(lora.targets)), strict=True):
        part = TARGETS[name]
        shape, inputs = layers[part][name].shape, model.inputs["trunk"]["layers"][part][name]
        first, last = shape[: inputs + 1], shape[inputs + 1 :]
        a = jax.random.normal(name_key, (*first, lora.rank)) / math.sqrt(math.prod(first[1:]))
        tree.setdefault(part, {})[name] = {"a": a, "b": jnp.zeros((first[0], lora.rank, *last))}
    return {"trunk": {"layers": tree}}


def adapter_axes(model: Model, lora: LoraConfig) -> PyTree:
    """Logical axis names of the adapters: A lies as the inputs of its weight, B as the outputs."""
    tree: dict = {}
    for name in lora.targets:
        part = TARGETS[name]
        axes = model.axes["trunk"]["layers"][part][name]
        inputs = model.inputs["trunk"]["layers"][part][name]
        tree.setdefault(part, {})[name] = pair_axes(axes, inputs)
    return {"trunk": {"layers": tree}}


def pair_axes(axes: tuple[str | None, ...], inputs: int) -> dict[str, tuple[str | None, ...]]:
    """Logical axis names of A and B of a stacked weight with these names, of which `inputs` after the first sum."""
    return {"a": (*axes[: inputs + 1], None), "b": (axes[0], None, *axes[inputs + 1 :])}


def combine(base: PyTree, trained: PyTree, scale: float) -> PyTree:
    """The base with `LowRank` nodes where `trained` has adapters, and with its own arrays where it has arrays.

    Computes nothing.

    Args:
        base: parameters.
        trained: adapters, as from `init_adapters`, and, for a critic, its head.
        scale: alpha / rank.
    """
    if not isinstance(trained, dict):
        return trained
    if not isinstance(base, dict):
        return LowRank(base=base, a=trained["a"], b=trained["b"], scale=scale)
    own = {name: node if name not in trained else combine(node, trained[name], scale) for name, node in base.items()}
    return own | {name: node for name, node in trained.items() if name not in base}


def merge(params: PyTree) -> PyTree:
    """Plain float32 weights: W + scale A B for every `LowRank` node; the others as they are."""

    def merged(node: Float[Array, "..."] | LowRank) -> Float[Array, "..."]:
        if not isinstance(node, LowRank):
            return node
        product = jax.vmap(functools.partial(jnp.tensordot, axes=1))(node.a, node.b)  # over the layer axis
        return node.base + node.scale * product

    return jax.tree.map(merged, params, is_leaf=lambda node: isinstance(node, LowRank))


def adapted(model: Model, base: PyTree, scale: float) -> Model:
    """The model as a function of its adapters alone: parameters are adapters (and a critic's head) above `base`."""

    def on_base(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda trained, *args, **kwargs: function(combine(base, trained, scale), *args, **kwargs)

    return model._replace(
        hidden=on_base(model.hidden),
        head=on_base(model.head),
        logits=on_base(model.logits),
        values=on_base(model.values),
        decoding_weights=on_base(model.decoding_weights),
    )
