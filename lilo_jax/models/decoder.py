"""A decoder on flax.nnx: RMSNorm, rotary positions, grouped-query attention, gated MLP, and the families' variations.

One `Block` class is written for one layer; its weights are stored stacked on a leading `layers` axis and executed
scanned (one compiled body) or unrolled (faster decoding on CPU).  The same code teacher-forces whole sequences and
decodes with a cache, so sampler and trainer agree by construction.

Sources: Touvron et al. 2023 (LLaMA, section 2.2); Su et al. 2021 (RoPE, eq. 34); Ainslie et al. 2023 (GQA);
Shazeer 2020 (SwiGLU); Zhang and Sennrich 2019 (RMSNorm); Gemma Team 2024 (Gemma 2, section 2: windows, soft-caps, norms
on both sides); OLMo Team 2024 (OLMo 2, section 3: norms on outputs, normalised queries and keys).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from lilo_jax.models.architecture import Architecture, LayerKind, layer_kinds, query_scale
from lilo_jax.models.cache import CacheDtype, LayerCache
from lilo_jax.models.projection import Project
from lilo_jax.models.rope import frequencies, rotate
from lilo_jax.models.segments import View
from lilo_jax.types import Array

ACTIVATIONS: dict[str, Callable[[Float[Array, "..."]], Float[Array, "..."]]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class Pass(NamedTuple):
    """What differs between running whole sequences and decoding; the layers are the same code.

    Attributes:
        positions: of the tokens; one row where all rows have the same.
        project: product of activations and a weight.
        mix: attention: (query, key, value, the layer's cache or None, the layer's view) -> (what is seen,
            the cache with the new tokens, or None).
    """

    positions: Int[Array, "#rows tokens"]
    project: Project
    mix: Callable[
        [
            Float[Array, "rows tokens heads head_dim"],
            Float[Array, "rows tokens kv_heads head_dim"],
            Float[Array, "rows tokens kv_heads head_dim"],
            Any,
            View,
        ],
        tuple[Float[Array, "rows tokens heads head_dim"], Any],
    ]


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Architecture):
    """What a decoder computes, and how."""

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """of activations; the stored weights are float32"""
    cache_dtype: CacheDtype = "compute"
    """of keys and values while sampling: that of the activations, or another; int8 takes half the memory of bfloat16
    and moves log-probs a little"""
    attention: Literal["auto", "xla", "splash", "cudnn", "reference"] = "auto"
    """what computes attention over whole sequences: auto takes splash on TPU and cudnn on GPU where they can run"""
    train_layers: Literal["auto", "unrolled", "scanned"] = "auto"
    """how scoring and the update run the layers: unrolled, or scanned (short compile); auto unrolls on CPU without
    remat"""
    decode_layers: Literal["auto", "unrolled", "scanned"] = "auto"
    """how sampling runs them; auto unrolls on CPU, where that is about twice as fast"""
    remat: Literal["none", "products", "layers"] = "none"
    """what the backward pass finds stored: everything; the matrix products of each layer, from which it recomputes the
    rest; or each layer's input alone, from which it recomputes all.  On CPU unrolled train_layers store everything"""


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * (offset + scale) over the axes of `scale`, computed in float32."""

    def __init__(self, config: Architecture, shape: tuple[int, ...] = (), axes: tuple[str, ...] = ("embed",)) -> None:
        """Scales whose sum with the offset is 1.

        Args:
            config: epsilon and offset.
            shape: of `scale`; () stands for the model width.
            axes: their logical names.
        """
        self.epsilon, self.offset = config.norm_epsilon, config.norm_offset
        scale = jnp.full(shape or (config.embed_dim,), 1 - config.norm_offset)
        self.scale = nnx.Param(scale, logical_axes=axes, inputs=0)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        y, scale = x.astype(jnp.float32), self.scale[...]
        over = tuple(range(-scale.ndim, 0))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=over, keepdims=True) + self.epsilon)
        return (y * _beside(self.offset + scale, y)).astype(x.dtype)


def _beside(weight: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The weight with as many axes as `x`: it is the same for all positions."""
    return jnp.expand_dims(weight, tuple(range(x.ndim - weight.ndim)))


def _weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int, *, gain: float = 1.0, inputs: int = 1
) -> nnx.Param:
    """A random weight whose first `inputs` axes are summed over."""
    value = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape) * (gain / math.sqrt(fan_in))
    return nnx.Param(value, logical_axes=axes, inputs=inputs)


def _zeros(shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape), logical_axes=axes, inputs=0)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: Architecture, kind: LayerKind, *, rngs: nnx.Rngs) -> None:
        d, heads, kv, hd = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.config, self.rope = config, kind.rope
        self.view = View(kind.window, config.attention_softcap)
        self.query = _weight(rngs, (d, heads, hd), ("embed", "heads", "head_dim"), d)
        self.key = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.value = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.output = _weight(rngs, (heads, hd, d), ("heads", "head_dim", "embed"), heads * hd, gain=gain, inputs=2)
        if config.attention_bias != "none":
            self.query_bias = _zeros((heads, hd), ("heads", "head_dim"))
            self.key_bias = _zeros((kv, hd), ("kv_heads", "head_dim"))
            self.value_bias = _zeros((kv, hd), ("kv_heads", "head_dim"))
        if config.attention_bias == "all":
            self.output_bias = _zeros((d,), ("embed",))
        if config.query_key_norm == "head":
            self.query_norm = RMSNorm(config, (hd,), ("head_dim",))
            self.key_norm = RMSNorm(config, (hd,), ("head_dim",))
        elif config.query_key_norm == "projection":
            self.query_norm = RMSNorm(config, (heads, hd), ("heads", "head_dim"))
            self.key_norm = RMSNorm(config, (kv, hd), ("kv_heads", "head_dim"))

    def __call__(
        self, x: Float[Array, "rows tokens embed"], cache: LayerCache | None, way: Pass
    ) -> tuple[Float[Array, "rows tokens embed"], Any]:
        query, key, value = (self._projected(x, name, 1, way) for name in ("query", "key", "value"))
        if self.config.query_key_norm != "none":
            query, key = self.query_norm(query), self.key_norm(key)
        angles = frequencies(self.rope, self.config.head_dim, self.config.context_length)
        scale = self.rope.attention_factor
        query = rotate(query, way.positions, angles, scale=scale * query_scale(self.config))
        key = rotate(key, way.positions, angles, scale=scale)
        mixed, cache = way.mix(query, key, value, cache, self.view)
        return self._projected(mixed, "output", 2, way), cache

    def _projected(
        self, x: Float[Array, "rows tokens ..."], name: str, inputs: int, way: Pass
    ) -> Float[Array, "rows tokens ..."]:
        y = way.project(x, getattr(self, name)[...], inputs)
        bias = getattr(self, f"{name}_bias", None)
        return y if bias is None else y + _beside(bias[...].astype(y.dtype), y)


class GatedMLP(nnx.Module):
    """(activation(x W_gate) * x W_up) W_down."""

    def __init__(self, config: Architecture, *, rngs: nnx.Rngs) -> None:
        d, m = config.embed_dim, config.mlp_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.activation = config.activation
        self.gate = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.up = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.down = _weight(rngs, (m, d), ("mlp", "embed"), m, gain=gain)

    def __call__(self, x: Float[Array, "rows tokens embed"], way: Pass) -> Float[Array, "rows tokens embed"]:
        gate, up = way.project(x, self.gate[...], 1), way.project(x, self.up[...], 1)
        return way.project(ACTIVATIONS[self.activation](gate) * up, self.down[...], 1)


class Block(nnx.Module):
    """One layer: x + f(x) for attention and then for the MLP, with norms before f, on its output, or both."""

    def __init__(self, config: Architecture, kind: LayerKind, *, rngs: nnx.Rngs) -> None:
        before, after = config.norm_placement != "after", config.norm_placement != "before"
        self.attention_norm = RMSNorm(config) if before else None
        self.attention = Attention(config, kind, rngs=rngs)
        self.attention_post_norm = RMSNorm(config) if after else None
        self.mlp_norm = RMSNorm(config) if before else None
        self.mlp = GatedMLP(config, rngs=rngs)
        self.mlp_post_norm = RMSNorm(config) if after else None

    def __call__(
        self, x: Float[Array, "rows tokens embed"], cache: LayerCache | None, way: Pass
    ) -> tuple[Float[Array, "rows tokens embed"], Any]:
        mixed, cache = self.attention(_normed(self.attention_norm, x), cache, way)
        x = x + _normed(self.attention_post_norm, mixed)
        gated = self.mlp(_normed(self.mlp_norm, x), way)
        return x + _normed(self.mlp_post_norm, gated), cache


def _normed(norm: RMSNorm | None, x: Float[Array, "rows tokens embed"]) -> Float[Array, "rows tokens embed"]:
    return x if norm is None else norm(x)


def stacked_blocks(config: Architecture, *, rngs: nnx.Rngs) -> Block:
    """`num_layers` independent blocks as one whose weights carry a leading layer axis."""
    kind = layer_kinds(config)[0]  # kinds differ in no weight
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, kind, rngs=nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), config.num_layers)
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(Block(config, kind, rngs=nnx.Rngs(key))))(keys))


class Trunk(nnx.Module):
    """Tokens to final hidden states."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        shape = (config.vocab_size, config.embed_dim)
        self.embedding = _weight(rngs, shape, ("vocab", "embed"), 1 if not config.tie_embeddings else config.embed_dim)
        self.layers = stacked_blocks(config, rngs=rngs)
        self.norm = RMSNorm(config)


class LanguageModel(nnx.Module):
    """A trunk with an output projection to the vocabulary (absent if tied to the embedding)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.trunk = Trunk(config, rngs=rngs)
        if not config.tie_embeddings:
            self.head = _weight(rngs, (config.embed_dim, config.vocab_size), ("embed", "vocab"), config.embed_dim)


class ValueModel(nnx.Module):
    """A trunk with a scalar head: weights of std 1 / sqrt(D + 1), bias 0 (Kazemnejad et al. 2024, VinePPO)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.trunk = Trunk(config, rngs=rngs)
        scale = 1 / math.sqrt(config.embed_dim + 1)
        self.head = nnx.Param(scale * jax.random.normal(rngs.params(), (config.embed_dim,)), logical_axes=("embed",))
        self.bias = nnx.Param(jnp.zeros(()), logical_axes=())
