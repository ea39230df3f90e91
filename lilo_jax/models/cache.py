"""Keys and values of the tokens seen so far, and attention to them.

A row's tokens stand at positions 0, 1, 2, ... without gaps, and a query at position p sees those <= p.  What a row
holds beyond its own position is therefore invisible and need not be cleared when the row is given to another sequence.

Keys lie as [rows, heads, head_dim, positions], values as [rows, heads, positions, head_dim]: both products of a
decoding step then read memory in order, with each key head read once for all the query heads that share it.  On CPU
that step is 1.26 times as fast as with [rows, positions, heads, head_dim]; on an accelerator the compiler chooses the
physical layout.
"""

from collections.abc import Callable
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from lilo_jax.models.segments import PLAIN, View
from lilo_jax.types import Array, Constrain

CacheDtype = Literal["compute", "float32", "bfloat16", "int8"]


class LayerCache(flax.struct.PyTreeNode):
    """Keys and values of one layer, or of all layers stacked on a leading axis.

    Attributes:
        keys: of the token at each position.
        values: likewise.
        key_scales, value_scales: what int8 entries are multiplied by; None for floats.
        layer: which layer of a stacked cache is meant; None if it holds one.
    """

    keys: Float[Array, "*layers rows kv_heads head_dim positions"]
    values: Float[Array, "*layers rows kv_heads positions head_dim"]
    key_scales: Float[Array, "*layers rows kv_heads positions"] | None = None
    value_scales: Float[Array, "*layers rows kv_heads positions"] | None = None
    layer: Int[Array, ""] | None = None


def empty_cache(leading: tuple[int, ...], *, width: int, kv_heads: int, head_dim: int, dtype: jnp.dtype) -> LayerCache:
    """A cache of `leading` = ([layers,] rows) with room for `width` tokens a row."""
    scales = None
    if dtype == jnp.int8:
        scales = jnp.zeros((*leading, kv_heads, width), jnp.float32)
    return LayerCache(
        keys=jnp.zeros((*leading, kv_heads, head_dim, width), dtype),
        values=jnp.zeros((*leading, kv_heads, width, head_dim), dtype),
        key_scales=scales,
        value_scales=scales,
    )


def quantize(x: Float[Array, "*rows head_dim"]) -> tuple[Int[Array, "*rows head_dim"], Float[Array, "*rows"]]:
    """Eight-bit integers and their scales along the last axis: x ~ q * scale, scale = max |x| / 127.

    Args:
        x: rows.

    Returns:
        The integers, int8, and the scales; a row of zeros has scale 0.  The error of an entry is at most scale / 2.
    """
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / 127
    return jnp.round(x / jnp.maximum(scale, 1e-30)[..., None]).astype(jnp.int8), scale


def write(
    cache: LayerCache,
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    positions: Int[Array, ""] | Int[Array, "rows"],
) -> LayerCache:
    """Stores one token per row, or a run of tokens that starts at the same position in every row.

    Args:
        cache: to be written; beyond its width nothing is stored.
        key, value: of the tokens.
        positions: with one token a row, each row's own; or one number, the first of a run.
    """
    key_scales = value_scales = None
    if cache.keys.dtype == jnp.int8:
        (key, key_scales), (value, value_scales) = quantize(key), quantize(value)
    new = LayerCache(
        keys=jnp.einsum("btkh->bkht", key),
        values=jnp.einsum("btkh->bkth", value),
        key_scales=key_scales if key_scales is None else jnp.einsum("btk->bkt", key_scales),
        value_scales=value_scales if value_scales is None else jnp.einsum("btk->bkt", value_scales),
    )
    store = _store_run if jnp.ndim(positions) == 0 else _store_token
    layer = () if cache.layer is None else (cache.layer,)

    def put(name: str, axis: int) -> Num[Array, "..."] | None:
        leaf = getattr(cache, name)
        return None if leaf is None else store(leaf, getattr(new, name).astype(leaf.dtype), axis, positions, layer)

    return cache.replace(
        keys=put("keys", 3),
        values=put("values", 2),
        key_scales=put("key_scales", 2),
        value_scales=put("value_scales", 2),
    )


def _store_run(
    leaf: Num[Array, "..."], new: Num[Array, "..."], axis: int, start: Int[Array, ""], layer: tuple[Int[Array, ""], ...]
) -> Num[Array, "..."]:
    where = [*layer, *[0] * new.ndim]
    where[len(layer) + axis] = start
    return jax.lax.dynamic_update_slice(leaf, new.reshape((1,) * len(layer) + new.shape), where)


def _store_token(
    leaf: Num[Array, "..."],
    new: Num[Array, "..."],
    axis: int,
    positions: Int[Array, "rows"],
    layer: tuple[Int[Array, ""], ...],
) -> Num[Array, "..."]:
    where: list = [*layer, jnp.arange(new.shape[0]), *[slice(None)] * (new.ndim - 1)]
    where[len(layer) + axis] = positions
    return jnp.asarray(leaf).at[tuple(where)].set(jnp.squeeze(new, axis), mode="drop")


def attend_cache(
    query: Float[Array, "rows tokens heads head_dim"],
    cache: LayerCache,
    positions: Int[Array, "#rows tokens"],
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """softmax(cap(q k^T / sqrt(H))) v over what the query's position sees, in float32.

    Args:
        query: its heads are a multiple of the cache's.
        cache: keys and values of B rows.
        positions: of the queries.
        view: see `View`.

    Returns:
        What is seen, in the query's dtype.
    """
    if cache.layer is not None:
        cache = jax.tree.map(lambda leaf: leaf[cache.layer], cache.replace(layer=None))
    rows, length, heads, head_dim = query.shape
    kv_heads, width = cache.keys.shape[1], cache.keys.shape[3]
    shared = heads // kv_heads
    # The queries that share a key head are the rows of one matrix: heads are never repeated.
    grouped = query.reshape(rows, length, kv_heads, shared, head_dim).transpose(0, 2, 3, 1, 4)
    grouped = grouped.reshape(rows, kv_heads, shared * length, head_dim) * head_dim**-0.5
    scores = jnp.einsum("bkqh,bkhs->bkqs", grouped, cache.keys.astype(query.dtype), preferred_element_type=jnp.float32)
    if cache.key_scales is not None:
        scores = scores * cache.key_scales[:, :, None]
    queries = jnp.tile(positions, shared)[:, None, :, None]
    visible = view.sees(queries, jnp.arange(width)[None, None, None])  # [B, 1, shared * T, S]
    scores = jnp.where(visible, view.bound(scores), -jnp.inf)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if cache.value_scales is not None:
        weights = weights * cache.value_scales[:, :, None]
    mixed = jnp.einsum(
        "bkqs,bksh->bkqh",
        weights.astype(query.dtype),
        cache.values.astype(query.dtype),
        preferred_element_type=jnp.float32,
    )
    mixed = (mixed / total).reshape(rows, kv_heads, shared, length, head_dim)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)


def placed(cache: LayerCache, constrain: Constrain) -> LayerCache:
    """The cache, its layout on the mesh fixed."""

    def place(leaf: Num[Array, "..."], position_axis: int, axes: tuple[str | None, ...]) -> Num[Array, "..."]:
        del position_axis
        return constrain(leaf, *[None] * (leaf.ndim - len(axes)), *axes)

    return _map_leaves(place, cache)


def take_rows(cache: LayerCache, rows: Int[Array, "taken"], width: int, constrain: Constrain) -> LayerCache:
    """A cache of the given rows, lengthened to `width`."""

    def take(leaf: Num[Array, "..."], position_axis: int, axes: tuple[str | None, ...]) -> Num[Array, "..."]:
        leading = leaf.ndim - len(axes)
        leaf = jnp.take(leaf, rows, axis=leading)
        padding = [(0, 0)] * leaf.ndim
        padding[leading + position_axis] = (0, width - leaf.shape[leading + position_axis])
        return constrain(jnp.pad(leaf, padding), *[None] * leading, *axes)

    return _map_leaves(take, cache)


def copy_rows(
    cache: LayerCache, rows: Int[Array, "copied"], source: LayerCache, source_rows: Int[Array, "copied"]
) -> LayerCache:
    """Writes rows of `source`, which is no wider, over the first positions of rows of `cache`.

    Args:
        cache: S rows.
        rows: rows to be overwritten; one that is out of range is dropped.
        source: N rows.
        source_rows: rows to be read.
    """

    def copy(
        leaf: Num[Array, "..."], position_axis: int, axes: tuple[str | None, ...], other: Num[Array, "..."]
    ) -> Num[Array, "..."]:
        leading = leaf.ndim - len(axes)
        where: list = [slice(None)] * leaf.ndim
        where[leading] = rows
        where[leading + position_axis] = slice(other.shape[leading + position_axis])
        return jnp.asarray(leaf).at[tuple(where)].set(jnp.take(other, source_rows, axis=leading), mode="drop")

    return _map_leaves(copy, cache, source)


_AXES = {
    "keys": (3, ("rows", "kv_heads", None, None)),
    "values": (2, ("rows", "kv_heads", None, None)),
    "key_scales": (2, ("rows", "kv_heads", None)),
    "value_scales": (2, ("rows", "kv_heads", None)),
}
"""Of each array: which axis the positions are, counted from the rows, and the logical axes."""


def _map_leaves(function: Callable[..., Num[Array, "..."]], cache: LayerCache, *others: LayerCache) -> LayerCache:
    changed = {}
    for name, (position_axis, axes) in _AXES.items():
        if getattr(cache, name) is not None:
            leaves = [getattr(other, name) for other in others]
            changed[name] = function(getattr(cache, name), position_axis, axes, *leaves)
    return cache.replace(**changed)
