"""Attention over whole sequences, packed ones included."""

import jax
import jax.numpy as jnp

from lilo_jax.types import Array


def attend_sequence(query: Array, key: Array, value: Array, segments: Array | None) -> Array:
    """Causal softmax(q k^T / sqrt(H)) v within each segment of a row.

    Args:
        query: [B, T, num_heads, H].
        key, value: [B, T, num_kv_heads, H]; num_kv_heads divides num_heads.
        segments: int32 [B, T], which sequence of a packed row a token belongs to; None: a row is one sequence.

    Returns:
        [B, T, num_heads, H].
    """
    slots = jnp.arange(query.shape[1])
    visible = (slots <= slots[:, None])[None, None]  # [1, 1, T, S]
    if segments is not None:
        visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])
    return jax.nn.dot_product_attention(query, key, value, mask=visible)
