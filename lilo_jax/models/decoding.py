"""The functions with which a model decodes: its weights made ready, its cache, a run of tokens, one token."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from lilo_jax.models.cache import LayerCache, attend_cache, copy_rows, empty_cache, placed, take_rows, write
from lilo_jax.models.decoder import DecoderConfig, Pass
from lilo_jax.models.layers import by_layer, layer_execution
from lilo_jax.models.projection import LowRank, project, project_transposed, project_weights_first, transposed
from lilo_jax.models.segments import View, softcapped
from lilo_jax.types import Array, Constrain, PyTree


class Decoding:
    """See `Model`, whose functions these are."""

    def __init__(
        self, config: DecoderConfig, constrain: Constrain, platform: str, forward: Callable, inputs: PyTree
    ) -> None:
        """Chooses what runs fastest on the platform.

        Args:
            config: shape of the decoder.
            constrain: see `build_model`.
            platform: see `build_model`.
            forward: (trunk, tokens, cache, pass, execution) -> (hidden, cache); see `run_trunk`.
            inputs: how many axes of each weight are summed over, in the structure of the params.
        """
        self.config, self.constrain, self.forward, self.inputs = config, constrain, forward, inputs
        self.execution = layer_execution(config.decode_layers, platform)
        self.dtype = jnp.dtype(config.compute_dtype)
        self.cache_dtype = self.dtype if config.cache_dtype == "compute" else jnp.dtype(config.cache_dtype)
        # The order in which a CPU multiplies few rows fastest; elsewhere the compiler has its own.
        on_cpu = platform == "cpu"
        self.short_product = project_weights_first if on_cpu else project
        self.long_product = project_transposed if on_cpu else project
        self.arrange = transposed if on_cpu else _as_it_is

    def weights(self, params: PyTree) -> PyTree:
        """Cast, arranged, and taken apart by layer if layers run unrolled."""

        def ready(weight: Float[Array, "layers ..."] | LowRank, inputs: int) -> Float[Array, "layers ..."] | LowRank:
            """Of all layers; norms and biases have no inputs and stay float32."""
            if isinstance(weight, LowRank):
                base, a, b = ready_array(weight.base, inputs), ready_array(weight.a, inputs), ready_array(weight.b, 1)
                return LowRank(base, a, b, scale=weight.scale)
            return ready_array(weight, inputs)

        def ready_array(weight: Float[Array, "layers ..."], inputs: int) -> Float[Array, "layers ..."]:
            return jax.vmap(lambda w: self.arrange(w.astype(self.dtype), inputs))(weight) if inputs else weight

        trunk, inputs = params["trunk"], self.inputs["trunk"]["layers"]
        layers = jax.tree.map(ready, trunk["layers"], inputs, is_leaf=lambda node: isinstance(node, LowRank))
        if self.execution == "unrolled":
            layers = by_layer(layers, self.config.num_layers)
        output = trunk["embedding"].T if self.config.tie_embeddings else params["head"]
        trunk = trunk | {"embedding": trunk["embedding"].astype(self.dtype), "layers": layers}
        return {"trunk": trunk, "output": self.arrange(output.astype(self.dtype), 1)}

    def init_cache(self, rows: int, width: int) -> PyTree:
        """A cache of zeros."""

        def empty(*leading: int) -> LayerCache:
            cache = empty_cache(
                leading,
                width=width,
                kv_heads=self.config.num_kv_heads,
                head_dim=self.config.head_dim,
                dtype=self.cache_dtype,
            )
            return placed(cache, self.constrain)

        if self.execution == "scanned":
            return empty(self.config.num_layers, rows)
        return tuple(empty(rows) for _ in range(self.config.num_layers))

    def extend(
        self, weights: PyTree, tokens: Int[Array, "rows tokens"], start: Int[Array, ""], cache: PyTree
    ) -> tuple[Float[Array, "rows tokens embed"], PyTree]:
        """A run of tokens."""
        positions = start + jnp.arange(tokens.shape[1])[None]
        way = Pass(positions, self.long_product, functools.partial(_write_and_attend, positions, start))
        return self.forward(weights["trunk"], tokens, cache, way, self.execution)

    def decode(
        self, weights: PyTree, tokens: Int[Array, "rows"], positions: Int[Array, "rows"], cache: PyTree
    ) -> tuple[Float[Array, "rows vocabulary"], PyTree]:
        """One token per row."""
        columns = positions[:, None]
        way = Pass(columns, self.short_product, functools.partial(_write_and_attend, columns, positions))
        x, cache = self.forward(weights["trunk"], tokens[:, None], cache, way, self.execution)
        logits = self.short_product(x[:, 0], weights["output"], 1).astype(jnp.float32)
        return softcapped(logits, self.config.logit_softcap), cache

    def take(self, cache: PyTree, rows: Int[Array, "taken"], width: int) -> PyTree:
        """Rows of a cache, lengthened."""
        return _each_layer(lambda layer: take_rows(layer, rows, width, self.constrain), cache)

    def copy(
        self, cache: PyTree, rows: Int[Array, "copied"], source: PyTree, source_rows: Int[Array, "copied"]
    ) -> PyTree:
        """Rows of one cache written into another."""
        return _each_layer(lambda layer, other: copy_rows(layer, rows, other, source_rows), cache, source)


def _write_and_attend(
    positions: Int[Array, "#rows tokens"],
    at: Int[Array, ""] | Int[Array, "rows"],
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    cache: LayerCache,
    view: View,
) -> tuple[Float[Array, "rows tokens heads head_dim"], LayerCache]:
    """Stores keys and values at positions `at`, then attends to what the queries, at `positions`, see."""
    cache = write(cache, key, value, at)
    return attend_cache(query, cache, positions, view), cache


def _each_layer(function: Callable[..., LayerCache], *caches: PyTree) -> PyTree:
    return jax.tree.map(function, *caches, is_leaf=lambda node: isinstance(node, LayerCache))


def _as_it_is(weight: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    del inputs
    return weight
