"""Prefill: the keys and values of every prefix, computed once for all the requests that continue it."""

import jax
import jax.numpy as jnp
from jaxtyping import Int

from lilo_jax.models import Model
from lilo_jax.types import Array, Prompts, PyTree


def prefill(model: Model, weights: PyTree, prompts: Prompts, *, prefill_tokens: int) -> PyTree:
    """The cache of every prompt row.

    Rows are run in blocks, and long rows a piece at a time, so that no more than about `prefill_tokens` tokens have
    activations at once; pieces that are padding in all rows of a block are skipped.

    Args:
        model: functions of the decoder.
        weights: its decoding weights.
        prompts: N rows of P tokens.
        prefill_tokens: bound on the tokens of one piece.

    Returns:
        A cache of N rows with room for P tokens.
    """
    num_rows, width = prompts.tokens.shape
    piece = min(width, prefill_tokens)
    block = max(min(num_rows, prefill_tokens // piece), 1)

    def run(tokens: Int[Array, "rows prompt"], lengths: Int[Array, "rows"]) -> PyTree:
        def one_piece(i: Int[Array, ""], cache: PyTree) -> PyTree:
            # The last piece may overlap the one before it: running a token again changes nothing.
            start = jnp.minimum(i * piece, width - piece)
            part = jax.lax.dynamic_slice_in_dim(tokens, start, piece, axis=1)
            return model.extend(weights, part, start, cache)[1]

        cache = model.init_cache(tokens.shape[0], width)
        if piece == width:
            return one_piece(jnp.int32(0), cache)
        return jax.lax.fori_loop(0, -(-jnp.max(lengths) // piece), one_piece, cache)

    if block == num_rows:
        return run(prompts.tokens, prompts.lengths)

    def one_block(i: Int[Array, ""], cache: PyTree) -> PyTree:
        rows = jnp.minimum(i * block, num_rows - block) + jnp.arange(block)  # overlapping in the same way
        return model.copy(cache, rows, run(prompts.tokens[rows], prompts.lengths[rows]), jnp.arange(block))

    return jax.lax.fori_loop(0, -(-num_rows // block), one_block, model.init_cache(num_rows, width))
