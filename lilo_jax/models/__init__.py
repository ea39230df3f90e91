"""Models as parameter trees and pure functions: the nnx modules are split once, here.

Everything above this package sees `Model`: a bundle of functions over a nested dictionary of arrays.  Add a family
by giving it such a bundle.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lilo_jax.models.attention import attend_sequence
from lilo_jax.models.cache import LayerCache, attend_cache, copy_rows, empty_cache, take_rows, write
from lilo_jax.models.decoder import (
    DecoderConfig,
    Execution,
    LanguageModel,
    Pass,
    RMSNorm,
    ValueModel,
    bind,
    run_blocks,
)
from lilo_jax.models.projection import project, project_transposed, project_weights_first, transposed
from lilo_jax.types import Array, Constrain, PyTree


class Model(NamedTuple):
    """Pure functions of one decoder shape.  `params` is a nested dictionary of float32 arrays.

    Attributes:
        init: (key) -> policy params.
        init_critic: (key) -> critic params: a trunk of the same shape with a value head.
        axes, critic_axes: logical axis names of every weight, in the tree structure of the params.
        hidden: (params, tokens int32 [B, T], positions=None, segments=None) -> final hidden states [B, T, D].  Works
            for policy and critic.  Packed rows name the position of each token in its sequence, and its sequence.
        logits: (params, hidden [..., D]) -> float32 [..., V].
        values: (critic params, hidden [..., D]) -> float32 [...].
        decoding_weights: (params) -> weights as `extend` and `decode` want them: cast, arranged for products with few
            rows, and taken apart by layer if these run unrolled.  Done once per sampling call, outside of its loops.
        init_cache: (rows, slots) -> empty cache.
        extend: (decoding weights, tokens [B, T], start, cache) -> (hidden [B, T, D], cache): a run of T tokens whose
            first stands at position `start` (int32 scalar) in every row.
        decode: (decoding weights, tokens [B], positions [B], cache) -> (logits float32 [B, V], cache): one token a row.
        take: (cache, rows int32 [R], slots) -> cache of those rows, lengthened to `slots`.
        copy: (cache, rows int32 [F], source, source rows int32 [F]) -> cache with rows of another one written over the
            beginning of its own; rows out of range are dropped.
    """

    init: Callable[[Array], PyTree]
    init_critic: Callable[[Array], PyTree]
    axes: PyTree
    critic_axes: PyTree
    hidden: Callable[..., Array]
    logits: Callable[[PyTree, Array], Array]
    values: Callable[[PyTree, Array], Array]
    decoding_weights: Callable[[PyTree], PyTree]
    init_cache: Callable[[int, int], PyTree]
    extend: Callable[[PyTree, Array, Array, PyTree], tuple[Array, PyTree]]
    decode: Callable[[PyTree, Array, Array, PyTree], tuple[Array, PyTree]]
    take: Callable[[PyTree, Array, int], PyTree]
    copy: Callable[[PyTree, Array, PyTree, Array], PyTree]


def _metadata(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig, name: str) -> PyTree:
    """What every weight of a model says about itself, in the tree structure of the params."""
    state = nnx.state(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))
    tree: dict = {}
    for path, variable in nnx.to_flat_state(state):
        node = functools.reduce(lambda node, name: node.setdefault(name, {}), path[:-1], tree)
        node[path[-1]] = variable.get_metadata().get(name)
    return tree


def _logical_axes(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig) -> PyTree:
    axes = _metadata(module, config, "logical_axes")
    layers = jax.tree.map(lambda names: ("layers", *names), axes["trunk"]["layers"], is_leaf=_is_names)
    return axes | {"trunk": axes["trunk"] | {"layers": layers}}


def _is_names(node: PyTree) -> bool:
    return isinstance(node, tuple)


def _init(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig, key: Array) -> PyTree:
    return nnx.to_pure_dict(nnx.state(module(config, rngs=nnx.Rngs(key))))


def build_model(config: DecoderConfig, constrain: Constrain, *, platform: str = "cpu") -> Model:
    """The functions of a decoder of this shape.

    Args:
        config: with `vocab_size` filled in.
        constrain: (x, *logical axes) -> x with its layout fixed; see `lilo_jax.mesh.constrainer`.
        platform: of the devices it will run on: "cpu", "gpu" or "tpu".
    """
    dtype = jnp.dtype(config.compute_dtype)
    cache_dtype = dtype if config.cache_dtype == "compute" else jnp.dtype(config.cache_dtype)
    usual: Execution = "unrolled" if platform == "cpu" else "scanned"
    train_layers: Execution = usual if config.train_layers == "auto" else config.train_layers
    decode_layers: Execution = usual if config.decode_layers == "auto" else config.decode_layers
    # The order in which a CPU multiplies few rows fastest; elsewhere the compiler has its own.
    short_product, long_product, arrange = (
        (project_weights_first, project_transposed, transposed)
        if platform == "cpu"
        else (project, project, lambda weight, inputs: weight)
    )
    inputs_of = _metadata(LanguageModel, config, "inputs")

    def run(params: PyTree, tokens: Array, cache: PyTree, way: Pass, execution: Execution) -> tuple[Array, PyTree]:
        trunk = params["trunk"]
        # A table sharded on the model width would make the lookup's output awkwardly laid out: gather it first.
        table = constrain(trunk["embedding"], "vocab", None).astype(dtype)
        x = constrain(table[tokens], "rows", None, None)
        x, cache = run_blocks(config, trunk["layers"], x, cache, way, execution=execution)
        norm = bind(lambda: RMSNorm(config), trunk["norm"])
        return constrain(norm(x), "rows", None, None), cache

    def hidden(params: PyTree, tokens: Array, positions: Array | None = None, segments: Array | None = None) -> Array:
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

        def mix(query: Array, key: Array, value: Array, cache: None) -> tuple[Array, None]:
            return attend_sequence(query, key, value, segments), cache

        return run(params, tokens, None, Pass(positions, project, mix), train_layers)[0]

    def logits(params: PyTree, x: Array) -> Array:
        head = params["trunk"]["embedding"].T if config.tie_embeddings else params["head"]
        return (x @ head.astype(x.dtype)).astype(jnp.float32)

    def values(params: PyTree, x: Array) -> Array:
        return x.astype(jnp.float32) @ params["head"] + params["bias"]

    def decoding_weights(params: PyTree) -> PyTree:
        def ready(weight: Array, inputs: int) -> Array:  # [layers, *in, *out]; norms have no inputs and stay float32
            return jax.vmap(lambda w: arrange(w.astype(dtype), inputs))(weight) if inputs else weight

        trunk = params["trunk"]
        layers = jax.tree.map(ready, trunk["layers"], inputs_of["trunk"]["layers"])
        if decode_layers == "unrolled":
            layers = tuple(jax.tree.map(lambda w, i=i: w[i], layers) for i in range(config.num_layers))
        output = trunk["embedding"].T if config.tie_embeddings else params["head"]
        embedding = trunk["embedding"].astype(dtype)
        return {"trunk": trunk | {"embedding": embedding, "layers": layers}, "output": arrange(output.astype(dtype), 1)}

    def init_cache(rows: int, slots: int) -> PyTree:
        def empty(*leading: int) -> LayerCache:
            return empty_cache(
                leading, slots=slots, kv_heads=config.num_kv_heads, head_dim=config.head_dim, dtype=cache_dtype
            )

        if decode_layers == "scanned":
            return empty(config.num_layers, rows)
        return tuple(empty(rows) for _ in range(config.num_layers))

    def extend(weights: PyTree, tokens: Array, start: Array, cache: PyTree) -> tuple[Array, PyTree]:
        positions = start + jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        mix = functools.partial(_write_and_attend, positions=positions, slots=start)
        return run(weights, tokens, cache, Pass(positions, long_product, mix), decode_layers)

    def decode(weights: PyTree, tokens: Array, positions: Array, cache: PyTree) -> tuple[Array, PyTree]:
        mix = functools.partial(_write_and_attend, positions=positions[:, None], slots=positions)
        way = Pass(positions[:, None], short_product, mix)
        x, cache = run(weights, tokens[:, None], cache, way, decode_layers)
        return short_product(x[:, 0], weights["output"], 1).astype(jnp.float32), cache

    def take(cache: PyTree, rows: Array, slots: int) -> PyTree:
        return _each_layer(lambda layer: take_rows(layer, rows, slots, constrain), cache)

    def copy(cache: PyTree, rows: Array, source: PyTree, source_rows: Array) -> PyTree:
        return _each_layer(lambda layer, other: copy_rows(layer, rows, other, source_rows), cache, source)

    return Model(
        init=functools.partial(_init, LanguageModel, config),
        init_critic=functools.partial(_init, ValueModel, config),
        axes=_logical_axes(LanguageModel, config),
        critic_axes=_logical_axes(ValueModel, config),
        hidden=hidden,
        logits=logits,
        values=values,
        decoding_weights=decoding_weights,
        init_cache=init_cache,
        extend=extend,
        decode=decode,
        take=take,
        copy=copy,
    )


def _write_and_attend(
    query: Array, key: Array, value: Array, cache: LayerCache, *, positions: Array, slots: Array
) -> tuple[Array, LayerCache]:
    """The attention of decoding: stores keys and values, then attends to what stands at or before the queries."""
    cache = write(cache, key, value, slots)
    return attend_cache(query, cache, positions), cache


def _each_layer(function: Callable[..., LayerCache], *caches: PyTree) -> PyTree:
    return jax.tree.map(function, *caches, is_leaf=lambda node: isinstance(node, LayerCache))
