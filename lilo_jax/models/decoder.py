"""A Llama-shaped decoder on flax.nnx: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

One `Block` class is written for one layer; its weights are stored stacked on a leading `layers` axis and executed
scanned (one compiled body) or unrolled (faster decoding on CPU).  The same code teacher-forces whole sequences and
decodes with a cache, so sampler and trainer agree by construction.

Sources: Touvron et al. 2023 (LLaMA, section 2.2); Su et al. 2021 (RoPE, eq. 34); Ainslie et al. 2023 (GQA);
Shazeer 2020 (SwiGLU); Zhang and Sennrich 2019 (RMSNorm).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from lilo_jax.models.cache import CacheDtype, LayerCache
from lilo_jax.models.projection import Project
from lilo_jax.types import Array, Constrain, PyTree

M = TypeVar("M", bound=nnx.Module)
Execution = Literal["unrolled", "scanned"]


class Pass(NamedTuple):
    """What differs between running whole sequences and decoding; the layers are the same code.

    Attributes:
        positions: int32 [B, T] of the tokens, or [1, T] where all rows have the same.
        project: product of activations and a weight.
        mix: attention: (query [B, T, N, H], key and value [B, T, K, H], the layer's cache or None) -> ([B, T, N, H],
            the cache with the new tokens, or None).
    """

    positions: Array
    project: Project
    mix: Callable[[Array, Array, Array, Any], tuple[Array, Any]]


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
    cache_dtype: CacheDtype = "compute"
    """of keys and values while sampling: that of the activations, or another; int8 takes half the memory of bfloat16
    and moves log-probs a little"""
    attention: Literal["auto", "xla", "splash", "cudnn", "reference"] = "auto"
    """what computes attention over whole sequences: auto takes splash on TPU and cudnn on GPU where they can run"""
    train_layers: Literal["auto", "unrolled", "scanned"] = "auto"
    """how scoring and the update run the layers: unrolled, or scanned (short compile); auto unrolls on CPU"""
    decode_layers: Literal["auto", "unrolled", "scanned"] = "auto"
    """how sampling runs them; auto unrolls on CPU, where that is about twice as fast"""
    remat: Literal["none", "products", "layers"] = "none"
    """what the backward pass finds stored: everything; the matrix products of each layer, from which it recomputes the
    rest; or each layer's input alone, from which it recomputes all.  On CPU it needs scanned train_layers"""


def rotate(x: Array, positions: Array, theta: float) -> Array:
    """Rotary position embedding: the pair (x_i, x_{i + H/2}) is turned by the angle p / theta^(2i/H).

    Args:
        x: [B, T, heads, H], H even.
        positions: int32 [B, T], or [1, T] if all rows have the same.
        theta: base of the wavelengths.
    """
    half = x.shape[-1] // 2
    angles = positions[:, :, None, None] * theta ** -(jnp.arange(half) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale, computed in float32."""

    def __init__(self, config: DecoderConfig) -> None:
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.embed_dim), logical_axes=("embed",), inputs=0)

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...]).astype(x.dtype)


def _weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int, *, gain: float = 1.0, inputs: int = 1
) -> nnx.Param:
    """A random weight whose first `inputs` axes are summed over."""
    value = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape) * (gain / math.sqrt(fan_in))
    return nnx.Param(value, logical_axes=axes, inputs=inputs)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        d, heads, kv, hd = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.theta = config.rope_theta
        self.query = _weight(rngs, (d, heads, hd), ("embed", "heads", "head_dim"), d)
        self.key = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.value = _weight(rngs, (d, kv, hd), ("embed", "kv_heads", "head_dim"), d)
        self.output = _weight(rngs, (heads, hd, d), ("heads", "head_dim", "embed"), heads * hd, gain=gain, inputs=2)

    def __call__(self, x: Array, cache: LayerCache | None, way: Pass) -> tuple[Array, Any]:
        query, key, value = (way.project(x, w[...], 1) for w in (self.query, self.key, self.value))
        query, key = rotate(query, way.positions, self.theta), rotate(key, way.positions, self.theta)
        mixed, cache = way.mix(query, key, value, cache)
        return way.project(mixed, self.output[...], 2), cache


class SwiGLU(nnx.Module):
    """(silu(x W_gate) * x W_up) W_down."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        d, m = config.embed_dim, config.mlp_dim
        gain = 1 / math.sqrt(2 * config.num_layers)
        self.gate = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.up = _weight(rngs, (d, m), ("embed", "mlp"), d)
        self.down = _weight(rngs, (m, d), ("mlp", "embed"), m, gain=gain)

    def __call__(self, x: Array, way: Pass) -> Array:
        gate, up = way.project(x, self.gate[...], 1), way.project(x, self.up[...], 1)
        return way.project(jax.nn.silu(gate) * up, self.down[...], 1)


class Block(nnx.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = SwiGLU(config, rngs=rngs)

    def __call__(self, x: Array, cache: LayerCache | None, way: Pass) -> tuple[Array, Any]:
        mixed, cache = self.attention(self.attention_norm(x), cache, way)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x), way), cache


def stacked_blocks(config: DecoderConfig, *, rngs: nnx.Rngs) -> Block:
    """`num_layers` independent blocks as one whose weights carry a leading layer axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, rngs=nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), config.num_layers)
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(Block(config, rngs=nnx.Rngs(key))))(keys))


def bind(make: Callable[[], M], weights: PyTree) -> M:
    """The module that `make` builds, with these weights (a nested dictionary) in place of its own."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graphdef, state)


def run_blocks(
    config: DecoderConfig, layers: PyTree, x: Array, cache: PyTree, way: Pass, *, execution: Execution
) -> tuple[Array, PyTree]:
    """Applies the layers in order.

    Args:
        config: their shape.
        layers: weights, stacked on a leading axis, or (unrolled only) a tuple of one dictionary per layer.
        x: [B, T, D].
        cache: None, or `LayerCache`s: a tuple of one per layer (unrolled), or one stacked on a leading axis (scanned).
        way: see `Pass`.
        execution: "unrolled" or "scanned".

    Returns:
        The last layer's output, and the cache in the form it came in (None if it was None).
    """

    def layer(x: Array, weights: PyTree, cache: LayerCache | None) -> tuple[Array, LayerCache | None]:
        return bind(lambda: Block(config, rngs=nnx.Rngs(0)), weights)(x, cache, way)

    if config.remat == "products":
        layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    elif config.remat == "layers":
        layer = jax.checkpoint(layer)
    if execution == "scanned":
        return _scan(layer, layers, x, cache, config.num_layers)
    if not isinstance(layers, tuple):
        layers = tuple(jax.tree.map(lambda w, i=i: w[i], layers) for i in range(config.num_layers))
    caches = []
    for weights, layer_cache in zip(layers, cache or [None] * config.num_layers, strict=True):
        x, layer_cache = layer(x, weights, layer_cache)
        caches.append(layer_cache)
    return x, None if cache is None else tuple(caches)


def _scan(
    layer: Callable, layers: PyTree, x: Array, cache: LayerCache | None, num_layers: int
) -> tuple[Array, LayerCache | None]:
    """One compiled layer, run `num_layers` times.

    The cache is carried whole and each layer writes its own tokens: passed as inputs and outputs of the scan it would
    exist twice.
    """

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        x, cache = carry
        weights, index = inputs
        x, cache = layer(x, weights, cache and cache.replace(layer=index))
        return (x, cache and cache.replace(layer=None)), None

    return jax.lax.scan(body, (x, cache), (layers, jnp.arange(num_layers)))[0]


def layer_execution(choice: Literal["auto", "unrolled", "scanned"], platform: str) -> Execution:
    """How to run the layers: on CPU unrolled is faster, elsewhere scanned compiles in a fraction of the time."""
    if choice != "auto":
        return choice
    return "unrolled" if platform == "cpu" else "scanned"


def run_trunk(
    config: DecoderConfig,
    constrain: Constrain,
    trunk: PyTree,
    tokens: Array,
    cache: PyTree,
    way: Pass,
    execution: Execution,
) -> tuple[Array, PyTree]:
    """Tokens to final hidden states.

    Args:
        config, constrain: see `build_model`.
        trunk: weights; `layers` as `run_blocks` takes them.
        tokens: int32 [B, T].
        cache, way, execution: see `run_blocks`.

    Returns:
        [B, T, D] in the compute dtype, and the cache.
    """
    # A table sharded on the model width would make the lookup's output awkwardly laid out: gather it first.
    table = constrain(trunk["embedding"], "vocab", None).astype(config.compute_dtype)
    x = constrain(table[tokens], "rows", None, None)
    x, cache = run_blocks(config, trunk["layers"], x, cache, way, execution=execution)
    norm = bind(lambda: RMSNorm(config), trunk["norm"])
    return constrain(norm(x), "rows", None, None), cache


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
