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
from lilo_jax.models.decoder import (
    DecoderConfig,
    Execution,
    LanguageModel,
    LayerCache,
    Mix,
    Trunk,
    ValueModel,
    extend_and_attend,
    run_blocks,
)
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
        init_cache: (rows, slots) -> empty cache.
        extend: (params, tokens [B, T], positions [B, T], cache) -> (hidden [B, T, D], cache): hidden states of new
            tokens, whose keys and values are written to the cache.
        take: (cache, rows int32 [R], slots) -> cache of those rows, lengthened to `slots`.
    """

    init: Callable[[Array], PyTree]
    init_critic: Callable[[Array], PyTree]
    axes: PyTree
    critic_axes: PyTree
    hidden: Callable[..., Array]
    logits: Callable[[PyTree, Array], Array]
    values: Callable[[PyTree, Array], Array]
    init_cache: Callable[[int, int], PyTree]
    extend: Callable[[PyTree, Array, Array, PyTree], tuple[Array, PyTree]]
    take: Callable[[PyTree, Array, int], PyTree]


def _logical_axes(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig) -> PyTree:
    state = nnx.state(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))

    def axes(path: tuple, variable: nnx.Variable) -> tuple[str, ...]:
        names = variable.get_metadata()["logical_axes"]
        return ("layers", *names) if "layers" in path else names

    tree: dict = {}
    for path, variable in nnx.to_flat_state(state):
        node = functools.reduce(lambda node, name: node.setdefault(name, {}), path[:-1], tree)
        node[path[-1]] = axes(path, variable)
    return tree


def _init(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig, key: Array) -> PyTree:
    return nnx.to_pure_dict(nnx.state(module(config, rngs=nnx.Rngs(key))))


def _trunk(config: DecoderConfig, params: PyTree) -> Trunk:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Trunk(config, rngs=nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, params["trunk"])
    return nnx.merge(graphdef, state)


def build_model(config: DecoderConfig, constrain: Constrain) -> Model:
    """The functions of a decoder of this shape.

    Args:
        config: with `vocab_size` filled in.
        constrain: (x, *logical axes) -> x with its layout fixed; see `lilo_jax.mesh.constrainer`.
    """
    dtype = jnp.dtype(config.compute_dtype)

    def run(
        params: PyTree, tokens: Array, positions: Array, cache: PyTree, mix: Mix, execution: Execution
    ) -> tuple[Array, PyTree]:
        trunk = _trunk(config, params)
        # A table sharded on the model width would make the lookup's output awkwardly laid out: gather it first.
        table = constrain(trunk.embedding[...], "vocab", None).astype(dtype)
        x = constrain(table[tokens], "rows", None, None)
        x, cache = run_blocks(trunk.layers, x, positions, cache, mix, execution=execution, remat=config.remat)
        return constrain(trunk.norm(x), "rows", None, None), cache

    def hidden(params: PyTree, tokens: Array, positions: Array | None = None, segments: Array | None = None) -> Array:
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

        def mix(query: Array, key: Array, value: Array, cache: None) -> tuple[Array, None]:
            return attend_sequence(query, key, value, segments), cache

        return run(params, tokens, positions, None, mix, config.train_layers)[0]

    def logits(params: PyTree, x: Array) -> Array:
        head = params["trunk"]["embedding"].T if config.tie_embeddings else params["head"]
        return (x @ head.astype(x.dtype)).astype(jnp.float32)

    def values(params: PyTree, x: Array) -> Array:
        return x.astype(jnp.float32) @ params["head"] + params["bias"]

    def init_cache(rows: int, slots: int) -> PyTree:
        def empty(*leading: int) -> LayerCache:
            zeros = jnp.zeros((*leading, rows, slots, config.num_kv_heads, config.head_dim), dtype)
            return LayerCache(keys=zeros, values=zeros)

        if config.decode_layers == "scanned":
            return empty(config.num_layers)
        return tuple(empty() for _ in range(config.num_layers))

    def extend(params: PyTree, tokens: Array, positions: Array, cache: PyTree) -> tuple[Array, PyTree]:
        mix = functools.partial(extend_and_attend, positions=positions)
        return run(params, tokens, positions, cache, mix, config.decode_layers)

    def take(cache: PyTree, rows: Array, slots: int) -> PyTree:
        def take_leaf(leaf: Array) -> Array:  # [..., rows, slots, heads, head_dim]
            leaf = jnp.take(leaf, rows, axis=-4)
            padding = [(0, 0)] * leaf.ndim
            padding[-3] = (0, slots - leaf.shape[-3])
            axes = (None,) * (leaf.ndim - 4) + ("rows", None, "kv_heads", None)
            return constrain(jnp.pad(leaf, padding), *axes)

        return jax.tree.map(take_leaf, cache)

    return Model(
        init=functools.partial(_init, LanguageModel, config),
        init_critic=functools.partial(_init, ValueModel, config),
        axes=_logical_axes(LanguageModel, config),
        critic_axes=_logical_axes(ValueModel, config),
        hidden=hidden,
        logits=logits,
        values=values,
        init_cache=init_cache,
        extend=extend,
        take=take,
    )
