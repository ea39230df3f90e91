"""A Llama-shaped decoder on flax.nnx: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

One `Block` class is written for one layer; its weights are stored stacked on a leading `layers` axis and executed
scanned (one compiled body) or unrolled (faster decoding on CPU).  The same code teacher-forces whole sequences and
decodes with a cache, so sampler and trainer agree by construction.

A row's tokens stand at slots 0, 1, 2, ... without gaps, and a query at position p sees the keys at slots <= p.
Padding to the right is therefore invisible and no mask array is needed.

Sources: Touvron et al. 2023 (LLaMA, section 2.2); Su et al. 2021 (RoPE, eq. 34); Ainslie et al. 2023 (GQA);
Shazeer 2020 (SwiGLU); Zhang and Sennrich 2019 (RMSNorm).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from lilo_jax.types import Array, PyTree

Execution = Literal["unrolled", "scanned"]
Mix = Callable[[Array, Array, Array, Any], tuple[Array, Any]]
"""(query [B, T, N, H], key and value [B, T, K, H], a layer's cache or None) -> ([B, T, N, H], the cache updated)."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder."""

    num_layers: int = 2
    embed_dim: int = 64
    num_heads: int = 4
    num_kv_heads: int = 2
    """key and value heads; divides num_heads"""
    head_dim: int = 16
    """even"""
    mlp_dim: int = 128
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    tie_embeddings: bool = False
    """the output projection is the embedding table"""
    vocab_size: int = 0
    """0: the tokenizer's"""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """of activations; the stored weights are float32"""
    train_layers: Execution = "unrolled"
    """how scoring and the update run the layers: unrolled, or scanned (short compile)"""
    decode_layers: Execution = "unrolled"
    """how sampling runs them; unrolled is about twice as fast on CPU"""
    remat: bool = False
    """recompute each layer in the backward pass instead of storing its activations"""


class LayerCache(flax.struct.PyTreeNode):
    """Keys and values of one layer (or of all, stacked on a leading axis).

    Attributes:
        keys, values: [B, S, num_kv_heads, head_dim]; slot s holds the token at position s.
    """

    keys: Array
    values: Array


def rotate(x: Array, positions: Array, theta: float) -> Array:
    """Rotary position embedding: the pair (x_i, x_{i + H/2}) is turned by the angle p / theta^(2i/H).

    Args:
        x: [B, T, heads, H], H even.
        positions: int32 [B, T].
        theta: base of the wavelengths.
    """
    half = x.shape[-1] // 2
    angles = positions[:, :, None, None] * theta ** -(jnp.arange(half) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


def extend_and_attend(
    query: Array, key: Array, value: Array, cache: LayerCache, *, positions: Array
) -> tuple[Array, LayerCache]:
    """A `Mix` for decoding: writes keys and values at `positions`, then attends to what stands at or before them."""
    rows = jnp.arange(query.shape[0])[:, None]
    cache = LayerCache(keys=cache.keys.at[rows, positions].set(key), values=cache.values.at[rows, positions].set(value))
    return attend(query, cache, positions), cache


def attend(query: Array, cache: LayerCache, positions: Array) -> Array:
    """softmax(q k^T / sqrt(H)) v over the keys at slots <= the query's position.

    Args:
        query: [B, T, num_heads, H].
        cache: keys and values [B, S, num_kv_heads, H].
        positions: int32 [B, T], of the queries.
    """
    visible = jnp.arange(cache.keys.shape[1]) <= positions[:, None, :, None]  # [B, 1, T, S]
    return jax.nn.dot_product_attention(query, cache.keys, cache.values, mask=visible)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale, computed in float32."""

    def __init__(self, config: DecoderConfig) -> None:
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.embed_dim), logical_axes=("embed",))

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...]).astype(x.dtype)


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int, gain: float = 1.0) -> nnx.Param:
    value = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape) * (gain / math.sqrt(fan_in))
    return nnx.Param(value, logical_axes=axes)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        d, heads, kv, hd = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.theta = config.rope_theta
        self.query = _weight(rngs, (d, heads, hd), ("embed", "heads", "head_dim"), d)
        self.key = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.value = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.output = _weight(rngs, (heads, hd, d), ("heads", "head_dim", "embed"), heads * hd, gain)

    def __call__(self, x: Array, positions: Array, cache: LayerCache | None, mix: Mix) -> tuple[Array, Any]:
        query, key, value = (
            jnp.einsum("btd,dnh->btnh", x, w[...].astype(x.dtype)) for w in (self.query, self.key, self.value)
        )
        query, key = rotate(query, positions, self.theta), rotate(key, positions, self.theta)
        mixed, cache = mix(query, key, value, cache)
        return jnp.einsum("btnh,nhd->btd", mixed, self.output[...].astype(x.dtype)), cache


class SwiGLU(nnx.Module):
    """(silu(x W_gate) * x W_up) W_down."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        d, m = config.embed_dim, config.mlp_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.gate = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.up = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.down = _weight(rngs, (m, d), ("mlp", "embed"), m, gain)

    def __call__(self, x: Array) -> Array:
        gate, up = x @ self.gate[...].astype(x.dtype), x @ self.up[...].astype(x.dtype)
        return (jax.nn.silu(gate) * up) @ self.down[...].astype(x.dtype)


class Block(nnx.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = SwiGLU(config, rngs=rngs)

    def __call__(self, x: Array, positions: Array, cache: LayerCache | None, mix: Mix) -> tuple[Array, Any]:
        mixed, cache = self.attention(self.attention_norm(x), positions, cache, mix)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


def stacked_blocks(config: DecoderConfig, *, rngs: nnx.Rngs) -> Block:
    """`num_layers` independent blocks as one whose weights carry a leading layer axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, rngs=nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), config.num_layers)
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(Block(config, rngs=nnx.Rngs(key))))(keys))


def run_blocks(
    blocks: Block, x: Array, positions: Array, cache: PyTree, mix: Mix, *, execution: Execution, remat: bool
) -> tuple[Array, PyTree]:
    """Applies stacked blocks in order.

    Args:
        blocks: as from `stacked_blocks`.
        x: [B, T, D].
        positions: int32 [B, T].
        cache: None, or `LayerCache`s: a tuple of one per layer (unrolled), or one stacked on a leading axis (scanned).
        mix: what attention attends to; see `Mix`.
        execution: "unrolled" or "scanned".
        remat: recompute in the backward pass.

    Returns:
        The last layer's output, and the cache in the form it came in (None if it was None).
    """
    graphdef, weights = nnx.split(blocks)

    def layer(x: Array, weights: PyTree, cache: LayerCache | None) -> tuple[Array, LayerCache | None]:
        return nnx.merge(graphdef, weights)(x, positions, cache, mix)

    if remat:
        layer = jax.checkpoint(layer)
    if execution == "scanned":
        return jax.lax.scan(lambda x, layer_inputs: layer(x, *layer_inputs), x, (weights, cache))
    num_layers = jax.tree.leaves(weights)[0].shape[0]
    caches = []
    for i in range(num_layers):
        x, layer_cache = layer(x, jax.tree.map(lambda w, i=i: w[i], weights), None if cache is None else cache[i])
        caches.append(layer_cache)
    return x, None if cache is None else tuple(caches)


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
