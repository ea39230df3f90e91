"""Running the layers of a decoder: one after another, or scanned as one compiled body; with a cache or without."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from lilo_jax.models.architecture import LayerKind, layer_kinds
from lilo_jax.models.cache import LayerCache
from lilo_jax.models.decoder import Block, DecoderConfig, Pass, RMSNorm
from lilo_jax.types import Array, Constrain, PyTree

M = TypeVar("M", bound=nnx.Module)
Execution = Literal["unrolled", "scanned"]


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
        layers = by_layer(layers, len(runs))
    for run, weights, layer_cache in zip(runs, layers, cache or [None] * len(runs), strict=True):
        x, layer_cache = run(x, weights, layer_cache)
        yield x, layer_cache


def by_layer(layers: PyTree, count: int) -> tuple[PyTree, ...]:
    """Weights stacked on a leading axis, taken apart: one tree per layer.

    They are split, not indexed: backwards a split is one concatenation, and `count` indices a sum of as many padded
    arrays, of which XLA computes every element from all `count`.
    """
    leaves, structure = jax.tree.flatten(layers)
    parts = [jax.lax.split(leaf, (1,) * count) for leaf in leaves]
    return tuple(
        jax.tree.unflatten(structure, [jax.lax.squeeze(part[i], (0,)) for part in parts]) for i in range(count)
    )


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
    return constrain(bind(lambda: RMSNorm(config), trunk["norm"])(x), "rows", "tokens", None), cache


def trunk_states(
    config: DecoderConfig, constrain: Constrain, trunk: PyTree, tokens: Int[Array, "rows tokens"], way: Pass
) -> tuple[Float[Array, "rows tokens embed"], ...]:
    """Tokens to the states between the layers: the embeddings, and the output of each layer, the last one normed.

    The layers run unrolled; what a program does not read of the states is not kept.
    """
    x = _embedded(config, constrain, trunk, tokens)
    inner = [x, *(output for output, _ in _unroll(_layers(config, way), trunk["layers"], x, None))]
    return (*inner[:-1], constrain(bind(lambda: RMSNorm(config), trunk["norm"])(inner[-1]), "rows", "tokens", None))


def _embedded(
    config: DecoderConfig, constrain: Constrain, trunk: PyTree, tokens: Int[Array, "rows tokens"]
) -> Float[Array, "rows tokens embed"]:
    # Each device looks up its part of the model width for all tokens of its copy, and the parts are exchanged: of the
    # table nothing is sent, neither rows nor their gradients, which are added up in the type of the weights.
    table = jnp.asarray(trunk["embedding"])  # weights may be NumPy's, which a traced index cannot enter
    parts = constrain(table[constrain(tokens, "copies", None)].astype(config.compute_dtype), "copies", None, "embed")
    # One axis of the mesh after the other: a compiler that is to exchange over both at once replicates instead.
    whole = constrain(constrain(parts, "copies", "tokens", "width"), "rows", "tokens", None)
    # The scale is rounded to the compute dtype, as it was when Gemma was trained.
    return whole * jnp.asarray(config.embedding_scale, config.compute_dtype)
