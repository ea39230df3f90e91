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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from lilo_jax.models.architecture import Architecture, LayerKind, layer_kinds, query_scale
from lilo_jax.models.attention import View
from lilo_jax.models.cache import CacheDtype, LayerCache
from lilo_jax.models.projection import Project
from lilo_jax.models.rope import frequencies, rotate
from lilo_jax.types import Array, Constrain, PyTree

M = TypeVar("M", bound=nnx.Module)
Execution = Literal["unrolled", "scanned"]
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


def bind(make: Callable[[], M], weights: PyTree) -> M:
    """The module that `make` builds, with these weights (a nested dictionary) in place of its own."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graphdef, state)


def run_blocks(
    config: DecoderConfig,
    layers: PyTree,
    x: Float[Array, "rows tokens embed"],
    cache: PyTree,
    way: Pass,
    *,
    execution: Execution,
) -> tuple[Float[Array, "rows tokens embed"], PyTree]:
    """Applies the layers in order.

    Args:
        config: their shape.
        layers: weights, stacked on a leading axis, or (unrolled only) a tuple of one dictionary per layer.
        x: the first layer's input.
        cache: None, or `LayerCache`s: a tuple of one per layer (unrolled), or one stacked on a leading axis (scanned).
        way: see `Pass`.
        execution: "unrolled" or "scanned".

    Returns:
        The last layer's output, and the cache in the form it came in (None if it was None).
    """
    runs = _layers(config, way)
    if execution == "scanned":
        return _scan(runs, layers, x, cache)
    outputs = list(_unroll(runs, layers, x, cache))
    return outputs[-1][0], None if cache is None else tuple(layer_cache for _, layer_cache in outputs)


def _unroll(
    runs: Sequence[Callable], layers: PyTree, x: Float[Array, "rows tokens embed"], cache: PyTree
) -> Iterator[tuple[Float[Array, "rows tokens embed"], LayerCache | None]]:
    """The output of each layer in turn, and its cache."""
    if not isinstance(layers, tuple):
        layers = tuple(jax.tree.map(lambda w, i=i: w[i], layers) for i in range(len(runs)))
    for run, weights, layer_cache in zip(runs, layers, cache or [None] * len(runs), strict=True):
        x, layer_cache = run(x, weights, layer_cache)
        yield x, layer_cache


def _layers(config: DecoderConfig, way: Pass) -> list[Callable]:
    """`_layer` of each layer; layers of one kind share one."""
    kinds = layer_kinds(config)
    runs = {kind: _layer(config, kind, way) for kind in set(kinds)}
    return [runs[kind] for kind in kinds]


def _layer(config: DecoderConfig, kind: LayerKind, way: Pass) -> Callable:
    """(x, weights, cache) -> (x, cache) of a layer of this kind."""

    def layer(
        x: Float[Array, "rows tokens embed"], weights: PyTree, cache: LayerCache | None
    ) -> tuple[Float[Array, "rows tokens embed"], LayerCache | None]:
        return bind(lambda: Block(config, kind, rngs=nnx.Rngs(0)), weights)(x, cache, way)

    if config.remat == "products":
        return jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    return jax.checkpoint(layer) if config.remat == "layers" else layer


def _scan(
    runs: Sequence[Callable], layers: PyTree, x: Float[Array, "rows tokens embed"], cache: LayerCache | None
) -> tuple[Float[Array, "rows tokens embed"], LayerCache | None]:
    """The layers, compiled once per period of their kinds: one layer where all are alike, two where two alternate.

    The cache is carried whole and each layer writes its own tokens: passed as inputs and outputs of the scan it would
    exist twice.  What does not fill a period at the end is run after it.
    """
    period = next(p for p in range(1, len(runs) + 1) if all(a is b for a, b in zip(runs, runs[p:], strict=False)))
    whole = len(runs) // period * period

    def run_one(
        i: int,
        x: Float[Array, "rows tokens embed"],
        weights: PyTree,
        cache: LayerCache | None,
        index: Int[Array, ""] | int,
    ) -> tuple:
        x, cache = runs[i](x, weights, cache and cache.replace(layer=jnp.asarray(index)))
        return x, cache and cache.replace(layer=None)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        x, cache = carry
        weights, first = inputs
        for i in range(period):
            x, cache = run_one(i, x, jax.tree.map(lambda w, i=i: w[i], weights), cache, first + i)
        return (x, cache), None

    grouped = jax.tree.map(lambda w: w[:whole].reshape(-1, period, *w.shape[1:]), layers)
    x, cache = jax.lax.scan(body, (x, cache), (grouped, jnp.arange(0, whole, period)))[0]
    for i in range(whole, len(runs)):
        x, cache = run_one(i, x, jax.tree.map(lambda w, i=i: w[i], layers), cache, i)
    return x, cache


def layer_execution(
    choice: Literal["auto", "unrolled", "scanned"], platform: str, *, recomputed: bool = False
) -> Execution:
    """How to run the layers: on CPU unrolled is faster, elsewhere scanned compiles in a fraction of the time.

    What is to be recomputed backwards must be scanned on CPU, whose compiler would else find that it has it already.
    """
    if choice != "auto":
        return choice
    return "unrolled" if platform == "cpu" and not recomputed else "scanned"


def run_trunk(
    config: DecoderConfig,
    constrain: Constrain,
    trunk: PyTree,
    tokens: Int[Array, "rows tokens"],
    cache: PyTree,
    way: Pass,
    execution: Execution,
) -> tuple[Float[Array, "rows tokens embed"], PyTree]:
    """Tokens to final hidden states.

    Args:
        config, constrain: see `build_model`.
        trunk: weights; `layers` as `run_blocks` takes them.
        tokens: of rows.
        cache, way, execution: see `run_blocks`.

    Returns:
        States in the compute dtype, and the cache.
    """
    x, cache = run_blocks(
        config, trunk["layers"], _embedded(config, constrain, trunk, tokens), cache, way, execution=execution
    )
    return constrain(bind(lambda: RMSNorm(config), trunk["norm"])(x), "rows", None, None), cache


def trunk_states(
    config: DecoderConfig, constrain: Constrain, trunk: PyTree, tokens: Int[Array, "rows tokens"], way: Pass
) -> tuple[Float[Array, "rows tokens embed"], ...]:
    """Tokens to the states between the layers: the embeddings, and the output of each layer, the last one normed.

    The layers run unrolled; what a program does not read of the states is not kept.
    """
    x = _embedded(config, constrain, trunk, tokens)
    inner = [x, *(output for output, _ in _unroll(_layers(config, way), trunk["layers"], x, None))]
    return (*inner[:-1], constrain(bind(lambda: RMSNorm(config), trunk["norm"])(inner[-1]), "rows", None, None))


def _embedded(
    config: DecoderConfig, constrain: Constrain, trunk: PyTree, tokens: Int[Array, "rows tokens"]
) -> Float[Array, "rows tokens embed"]:
    # A table sharded on the model width would make the lookup's output awkwardly laid out: gather it first.
    table = constrain(trunk["embedding"], "vocab", None).astype(config.compute_dtype)
    # The scale is rounded to the compute dtype, as it was when Gemma was trained.
    return constrain(table[tokens] * jnp.asarray(config.embedding_scale, table.dtype), "rows", None, None)


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
