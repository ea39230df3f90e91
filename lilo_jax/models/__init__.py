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
from jaxtyping import Float, Int, Key

from lilo_jax.models.attention import PART, Attend, attend_sequence
from lilo_jax.models.decoder import DecoderConfig, LanguageModel, Pass, ValueModel
from lilo_jax.models.decoding import Decoding
from lilo_jax.models.layers import layer_execution, run_trunk, trunk_states
from lilo_jax.models.projection import project
from lilo_jax.models.row_shards import ALONE, RowShards
from lilo_jax.models.segments import Segments, View, softcapped
from lilo_jax.types import Array, Constrain, PyTree


class Model(NamedTuple):
    """Pure functions of one decoder shape.  `params` is a nested dictionary of float32 arrays.

    Attributes:
        init: (key) -> policy params.
        init_critic: (key) -> critic params: a trunk of the same shape with a value head.
        axes, critic_axes: logical axis names of every weight, in the tree structure of the params.
        inputs: how many axes of each policy weight are summed over, layer axis apart; 0 for norms and biases.
        hidden: (params, tokens, segments=None) -> final hidden states.  Works for policy and critic.  Packed rows come
            with their `Segments`.
        states: (params, tokens, segments=None) -> the states between the layers: the embeddings, the output of each
            layer, the last one being the final hidden states.
        head: (params) -> the output projection as it is stored.
        project: (head in the type of the states, states) -> logits, float32.
        logits: (params, hidden) -> logits, float32.
        values: (critic params, hidden) -> values, float32.
        decoding_weights: (params) -> weights as `extend` and `decode` want them: cast, arranged for products with few
            rows, and taken apart by layer if these run unrolled.  Done once per sampling call, outside of its loops.
        init_cache: (rows, width) -> empty cache with room for `width` tokens a row.
        extend: (decoding weights, tokens, start, cache) -> (hidden, cache): a run of tokens whose first stands at
            position `start` in every row.
        decode: (decoding weights, tokens, positions, cache) -> (logits, cache): one token a row.
        take: (cache, rows, width) -> cache of those rows, lengthened to `width`.
        copy: (cache, rows, source, source rows) -> cache with rows of another one written over the
            beginning of its own; rows out of range are dropped.
        shares_prompts: whether segments may continue others; see `lilo_jax.models.attention`.
        shards: the row shards of the mesh that it runs on.
    """

    init: Callable[[Key[jax.Array, ""]], PyTree]
    init_critic: Callable[[Key[jax.Array, ""]], PyTree]
    axes: PyTree
    critic_axes: PyTree
    inputs: PyTree
    hidden: Callable[..., Float[Array, "rows tokens embed"]]
    states: Callable[..., tuple[Float[Array, "rows tokens embed"], ...]]
    head: Callable[[PyTree], Float[Array, "embed vocabulary"]]
    project: Callable[
        [Float[Array, "embed vocabulary"], Float[Array, "*tokens embed"]], Float[Array, "*tokens vocabulary"]
    ]
    logits: Callable[[PyTree, Float[Array, "*tokens embed"]], Float[Array, "*tokens vocabulary"]]
    values: Callable[[PyTree, Float[Array, "*tokens embed"]], Float[Array, "*tokens"]]
    decoding_weights: Callable[[PyTree], PyTree]
    init_cache: Callable[[int, int], PyTree]
    extend: Callable[
        [PyTree, Int[Array, "rows tokens"], Int[Array, ""], PyTree], tuple[Float[Array, "rows tokens embed"], PyTree]
    ]
    decode: Callable[
        [PyTree, Int[Array, "rows"], Int[Array, "rows"], PyTree], tuple[Float[Array, "rows vocabulary"], PyTree]
    ]
    take: Callable[[PyTree, Int[Array, "taken"], int], PyTree]
    copy: Callable[[PyTree, Int[Array, "copied"], PyTree, Int[Array, "copied"]], PyTree]
    shares_prompts: bool = True
    shards: RowShards = ALONE


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


def _init(module: type[LanguageModel] | type[ValueModel], config: DecoderConfig, key: Key[jax.Array, ""]) -> PyTree:
    return nnx.to_pure_dict(nnx.state(module(config, rngs=nnx.Rngs(key))))


def build_model(
    config: DecoderConfig,
    constrain: Constrain,
    *,
    platform: str = "cpu",
    attend: Attend = attend_sequence,
    shards: RowShards = ALONE,
) -> Model:
    """The functions of a decoder of this shape.

    Args:
        config: with `vocab_size` filled in.
        constrain: (x, *logical axes) -> x with its layout fixed; see `lilo_jax.device.mesh.constrainer`.
        platform: of the devices it will run on: "cpu", "gpu" or "tpu".
        attend: attention over whole sequences; see `lilo_jax.models.attention`.
        shards: of the mesh.
    """
    forward, whole = functools.partial(run_trunk, config, constrain), functools.partial(_whole, attend, shards.parts)
    train_layers = layer_execution(config.train_layers, platform, recomputed=config.remat != "none")

    def hidden(
        params: PyTree, tokens: Int[Array, "rows tokens"], segments: Segments | None = None
    ) -> Float[Array, "rows tokens embed"]:
        longer, way = whole(tokens, segments)
        return forward(params["trunk"], longer, None, way, train_layers)[0][:, : tokens.shape[1]]

    def states(
        params: PyTree, tokens: Int[Array, "rows tokens"], segments: Segments | None = None
    ) -> tuple[Float[Array, "rows tokens embed"], ...]:
        longer, way = whole(tokens, segments)
        found = trunk_states(config, constrain, params["trunk"], longer, way)
        return tuple(x[:, : tokens.shape[1]] for x in found)

    head, out = functools.partial(_head, config), functools.partial(_logits_of, config)

    def logits(params: PyTree, x: Float[Array, "*tokens embed"]) -> Float[Array, "*tokens vocabulary"]:
        return out(head(params).astype(x.dtype), x)

    inputs = _metadata(LanguageModel, config, "inputs")
    decoding = Decoding(config, constrain, platform, forward, inputs)
    return Model(
        init=functools.partial(_init, LanguageModel, config),
        init_critic=functools.partial(_init, ValueModel, config),
        axes=_logical_axes(LanguageModel, config),
        critic_axes=_logical_axes(ValueModel, config),
        inputs=inputs,
        hidden=hidden,
        states=states,
        head=head,
        project=out,
        logits=logits,
        values=_values_of,
        decoding_weights=decoding.weights,
        init_cache=decoding.init_cache,
        extend=decoding.extend,
        decode=decoding.decode,
        take=decoding.take,
        copy=decoding.copy,
        shards=shards,
    )


def _head(config: DecoderConfig, params: PyTree) -> Float[Array, "embed vocabulary"]:
    return params["trunk"]["embedding"].T if config.tie_embeddings else params["head"]


def _logits_of(
    config: DecoderConfig, head: Float[Array, "embed vocabulary"], x: Float[Array, "*tokens embed"]
) -> Float[Array, "*tokens vocabulary"]:
    return softcapped(jnp.matmul(x, head, preferred_element_type=jnp.float32), config.logit_softcap)


def _values_of(params: PyTree, x: Float[Array, "*tokens embed"]) -> Float[Array, "*tokens"]:
    return x.astype(jnp.float32) @ params["head"] + params["bias"]


def _divisible(
    tokens: Int[Array, "rows tokens"], segments: Segments | None, parts: int
) -> tuple[Int[Array, "rows longer"], Segments | None]:
    """Rows lengthened to whole parts of `PART` tokens, where they are split into parts; no token sees what is added."""
    more = -tokens.shape[1] % (parts * PART) if parts > 1 else 0

    def pad(x: Int[Array, "rows tokens"], fill: int = 0) -> Int[Array, "rows longer"]:
        return jnp.pad(x, ((0, 0), (0, more)), constant_values=fill)

    if segments is None:
        return pad(tokens), None
    last = None if segments.last is None else pad(segments.last, -1)
    return pad(tokens), Segments(pad(segments.own, -1), pad(segments.positions), last)


def _whole(
    attend: Attend, parts: int, tokens: Int[Array, "rows tokens"], segments: Segments | None
) -> tuple[Int[Array, "rows longer"], Pass]:
    """The tokens of whole sequences, lengthened where they are split, and how they are run: nothing is cached."""
    tokens, segments = _divisible(tokens, segments, parts)
    positions = jnp.arange(tokens.shape[1])[None] if segments is None else segments.positions

    def mix(
        query: Float[Array, "rows tokens heads head_dim"],
        key: Float[Array, "rows tokens kv_heads head_dim"],
        value: Float[Array, "rows tokens kv_heads head_dim"],
        cache: None,
        view: View,
    ) -> tuple[Float[Array, "rows tokens heads head_dim"], None]:
        return attend(query, key, value, segments, view), cache

    return tokens, Pass(positions, project, mix)
