"""Attention a block of queries and a block of keys at a time: memory grows with the length, not with its square.

Sources: Milakov and Gimelshein 2018 (online softmax, section 3); Dao et al. 2022 (FlashAttention, algorithms 1 and 4:
the forward pass keeps the logarithm of each softmax's sum, from which the backward pass makes its weights again).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lilo_jax.models.segments import PLAIN, Segments, View
from lilo_jax.types import Array

BLOCK = 512
"""Queries, and keys, whose scores exist at the same time."""
NOWHERE = -2
"""The segment of what pads keys: no token belongs to it."""
LOWEST = -1e30
"""A score that is less than any other, and of which a difference can be taken."""


def blockwise(
    query: Float[Array, "rows queries heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
    first: Int[Array, ""] | int = 0,
    *,
    block: int = BLOCK,
) -> Float[Array, "rows queries heads head_dim"]:
    """Attention like `lilo_jax.models.attention.reference`, of some queries of a row, one after another, to its keys.

    Blocks of keys that no query of a block can see are left out: what comes later, and what is before all windows.

    Args:
        query: of the tokens at places `first`, `first` + 1, ...
        key, value: of all T tokens of the rows.
        segments: of all T tokens.
        view: see `View`.
        first: where the first query stands.
        block: most queries, and keys, at a time.
    """
    rows, queries, heads, dim = query.shape
    tokens, kv_heads = key.shape[1:3]
    if segments is None:
        segments = Segments(jnp.zeros((1, tokens), jnp.int32), jnp.arange(tokens)[None])
    how = _How(view, min(block, queries), bool(view.window and segments.last is None))
    # Queries that share a key head are stacked beside it: [rows, kv_heads, group, tokens, head_dim].
    stacked = _lengthen(query, how.block).reshape(rows, -1, kv_heads, heads // kv_heads, dim).transpose(0, 2, 3, 1, 4)
    key, value = (jnp.swapaxes(_lengthen(x, how.block), 1, 2) for x in (key, value))
    marks = jax.tree.map(lambda x: _lengthen(x, how.block, more=1, fill=NOWHERE), segments)
    mixed = _attend(how, stacked, key, value, marks, jnp.asarray(first, jnp.int32))
    return mixed.transpose(0, 3, 1, 2, 4).reshape(rows, -1, heads, dim)[:, :queries]


def _lengthen(x: Array, block: int, *, more: int = 0, fill: int = 0) -> Array:
    """Padded to whole blocks of tokens, and `more` besides."""
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, -x.shape[1] % block + more * block)
    return jnp.pad(x, padding, constant_values=fill)


class _How(NamedTuple):
    """View, block size, and whether what is far from a query in its row is outside of its window."""

    view: View
    block: int
    near: bool

    def keys(
        self, place: Int[Array, ""], key: Float[Array, "rows kv_heads tokens head_dim"]
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """The blocks of keys, from the first to before the last, that the queries from `place` on can see."""
        last = jnp.minimum((place + self.block - 1) // self.block + 1, key.shape[2] // self.block)
        begin = jnp.maximum(place - self.view.window + 1, 0) // self.block if self.near else jnp.zeros_like(last)
        return begin, last

    def at(self, x: Array, place: Int[Array, ""], axis: int) -> Array:
        """The block that begins at `place`."""
        return jax.lax.dynamic_slice_in_dim(x, place, self.block, axis)

    def seen(
        self, marks: Segments, place: Int[Array, ""], other: Int[Array, ""]
    ) -> Bool[Array, "#rows 1 1 queries keys"]:
        """Whether the queries from `place` on see the keys from `other` on."""
        mine, others = (jax.tree.map(lambda x, at=at: self.at(x, at, 1), marks) for at in (place, other))
        return mine.see(self.view, others)[:, None, None]

    def scores(
        self,
        query: Float[Array, "rows kv_heads group queries head_dim"],
        key: Float[Array, "rows kv_heads keys head_dim"],
    ) -> Float[Array, "rows kv_heads group queries keys"]:
        """Capped, in float32."""
        raw = jnp.einsum("bkgth,bksh->bkgts", query, key, preferred_element_type=jnp.float32)
        return self.view.bound(raw / math.sqrt(query.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    how: _How,
    query: Float[Array, "rows kv_heads group queries head_dim"],
    key: Float[Array, "rows kv_heads tokens head_dim"],
    value: Float[Array, "rows kv_heads tokens head_dim"],
    marks: Segments,
    first: Int[Array, ""],
) -> Float[Array, "rows kv_heads group queries head_dim"]:
    return _attend_forward(how, query, key, value, marks, first)[0]


def _attend_forward(
    how: _How,
    query: Float[Array, "rows kv_heads group queries head_dim"],
    key: Float[Array, "rows kv_heads tokens head_dim"],
    value: Float[Array, "rows kv_heads tokens head_dim"],
    marks: Segments,
    first: Int[Array, ""],
) -> tuple[Float[Array, "rows kv_heads group queries head_dim"], tuple]:
    def of_block(begin: Int[Array, ""]) -> tuple[Array, Array]:
        mine, place = how.at(query, begin, 3), first + begin

        def meet(j: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, mixed = carry
            other = j * how.block
            seen = how.seen(marks, place, other)
            scores = jnp.where(seen, how.scores(mine, how.at(key, other, 2)), LOWEST)
            higher = jnp.maximum(top, jnp.max(scores, axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - higher[..., None]), 0)
            shrunk = jnp.exp(top - higher)
            held = how.at(value, other, 2)
            new = jnp.einsum("bkgts,bksh->bkgth", weights.astype(held.dtype), held, preferred_element_type=jnp.float32)
            return higher, total * shrunk + jnp.sum(weights, axis=-1), mixed * shrunk[..., None] + new

        nothing = jnp.zeros(mine.shape, jnp.float32)
        start = (jnp.full(mine.shape[:-1], LOWEST, jnp.float32), nothing[..., 0], nothing)
        top, total, mixed = jax.lax.fori_loop(*how.keys(place, key), meet, start)
        total = jnp.where(total > 0, total, 1)  # of padding, which sees nothing
        return (mixed / total[..., None]).astype(query.dtype), top + jnp.log(total)

    blocks = jax.lax.map(of_block, jnp.arange(0, query.shape[3], how.block))
    mixed, log_total = (_joined(x, 3) for x in blocks)
    return mixed, (query, key, value, marks, first, mixed, log_total)


def _attend_backward(
    how: _How, residuals: tuple, gradient: Float[Array, "rows kv_heads group queries head_dim"]
) -> tuple[Array, Array, Array, None, None]:
    query, key, value, marks, first, mixed, log_total = residuals
    drawn = jnp.sum(gradient.astype(jnp.float32) * mixed, axis=-1)

    def of_block(carry: tuple, begin: Int[Array, ""]) -> tuple[tuple, Array]:
        mine, g, total, mean = (how.at(x, begin, 3) for x in (query, gradient, log_total, drawn))
        place = first + begin

        def meet(j: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            g_mine, g_key, g_value = carry
            other = j * how.block
            held = how.at(value, other, 2)
            scores, pull_back = jax.vjp(how.scores, mine, how.at(key, other, 2))
            weights = jnp.where(how.seen(marks, place, other), jnp.exp(scores - total[..., None]), 0)
            g_weights = jnp.einsum("bkgth,bksh->bkgts", g, held, preferred_element_type=jnp.float32)
            more, of_keys = pull_back(weights * (g_weights - mean[..., None]))
            of_values = jnp.einsum("bkgts,bkgth->bksh", weights.astype(g.dtype), g, preferred_element_type=jnp.float32)
            g_key, g_value = (
                jax.lax.dynamic_update_slice_in_dim(x, how.at(x, other, 2) + new, other, 2)
                for x, new in ((g_key, of_keys), (g_value, of_values))
            )
            return g_mine + more, g_key, g_value

        start = (jnp.zeros(mine.shape, jnp.float32), *carry)
        g_mine, *carry_on = jax.lax.fori_loop(*how.keys(place, key), meet, start)
        return tuple(carry_on), g_mine.astype(query.dtype)

    zeros = jnp.zeros(key.shape, jnp.float32)
    (g_key, g_value), blocks = jax.lax.scan(of_block, (zeros, zeros), jnp.arange(0, query.shape[3], how.block))
    return _joined(blocks, 3), g_key.astype(key.dtype), g_value.astype(value.dtype), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _joined(blocks: Array, axis: int) -> Array:
    """Blocks, stacked on a leading axis, side by side on another."""
    moved = jnp.moveaxis(blocks, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
