"""Prefill: the keys and values of every prefix, computed once for all the requests that continue it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Int

from lilo_jax.models import Model
from lilo_jax.types import Array, Prompts, PyTree

Most = Callable[[Array], Array]
"""The greatest of a number, or of a truth, over shards that must take the same turns: where the products of a turn are
summed over devices, shards that stopped at different times would wait for each other for ever."""
SHORT = 64
"""Tokens up to which prompts are run at once, and what they begin with is not looked for; and the least of a piece."""


def own(number: Array) -> Array:
    """The `Most` of a shard that need not wait for another."""
    return number


def prefill(model: Model, weights: PyTree, prompts: Prompts, *, prefill_tokens: int, most: Most = own) -> PyTree:
    """The cache of every prompt row.

    What all prompts begin with, such as worked examples, is run once.  The rest is run in blocks of rows, and long rows
    a piece at a time, so that no more than about `prefill_tokens` tokens have activations at once; pieces that are
    padding in all rows of a block are skipped.

    Args:
        model: functions of the decoder.
        weights: its decoding weights.
        prompts: N rows of P tokens.
        prefill_tokens: bound on the tokens of one piece.
        most: see `lilo_jax.sampling.sample`.

    Returns:
        A cache of N rows with room for P tokens.
    """
    num_rows, width = prompts.tokens.shape
    piece = min(width, prefill_tokens, max(SHORT, min(width // 4, prefill_tokens // num_rows)))
    block = max(min(num_rows, prefill_tokens // piece), 1)
    common, first = jnp.int32(0), None
    if width > SHORT and num_rows > 1:
        common = _beginning(prompts)
        alone = jax.tree.map(lambda x: x[:1], prompts)
        alone = alone.replace(lengths=common[None])
        first = _extended(model, weights, alone, model.init_cache(1, width), 0, piece, most)

    def run(rows: Prompts) -> PyTree:
        size = rows.tokens.shape[0]
        begun = model.take(first, jnp.zeros(size, jnp.int32), width) if first else model.init_cache(size, width)
        return _extended(model, weights, rows, begun, common, piece, most)

    if block == num_rows:
        return run(prompts)

    def one_block(i: Int[Array, ""], cache: PyTree) -> PyTree:
        rows = jnp.minimum(i * block, num_rows - block) + jnp.arange(block)  # the last may overlap the one before it
        found = run(jax.tree.map(lambda x: x[rows], prompts))
        return model.copy(cache, rows, found, jnp.arange(block))

    return jax.lax.fori_loop(0, -(-num_rows // block), one_block, model.init_cache(num_rows, width))


def _extended(
    model: Model, weights: PyTree, prompts: Prompts, cache: PyTree, begun: Int[Array, ""] | int, piece: int, most: Most
) -> PyTree:
    """The cache with the tokens of the prompts from `begun` on."""
    width = prompts.tokens.shape[1]

    def one_piece(i: Int[Array, ""], cache: PyTree) -> PyTree:
        # The last piece may overlap the one before it: running a token again changes nothing.
        start = jnp.minimum(begun + i * piece, width - piece)
        part = jax.lax.dynamic_slice_in_dim(prompts.tokens, start, piece, axis=1)
        return model.extend(weights, part, start, cache)[1]

    if piece == width:
        return one_piece(jnp.int32(0), cache)
    left = most(jnp.max(prompts.lengths) - begun)
    return jax.lax.fori_loop(0, -(-left // piece), one_piece, cache)


def _beginning(prompts: Prompts) -> Int[Array, ""]:
    """How many tokens all prompts have in common from the first on; padding rows do not count."""
    present = prompts.lengths > 0
    one = prompts.tokens[jnp.argmax(present)][None]
    alike = jnp.all((prompts.tokens == one) | ~present[:, None], axis=0)
    shortest = jnp.min(jnp.where(present, prompts.lengths, alike.shape[0]))
    return jnp.minimum(jnp.sum(jnp.cumprod(alike.astype(jnp.int32))), shortest).astype(jnp.int32)
