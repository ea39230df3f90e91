"""Arithmetic and memory traffic that the work needs, counted from the shapes.

A multiply-add is two operations.  Counted are the matrix products of the layers and of the tied head, and attention
over the keys that a token may see.  Not counted is what an implementation adds: masked keys, padding, recomputation,
prefixes computed twice.  Norms, activation functions and the embedding lookup are below a percent.
"""

import numpy as np

from benchmarks.workload import Shape


def layer_weights(shape: Shape) -> int:
    """Weights of all layers that take part in a matrix product with every token."""
    projections = shape.embed_dim * shape.head_dim * (2 * shape.num_heads + 2 * shape.num_kv_heads)
    return shape.num_layers * (projections + 3 * shape.embed_dim * shape.mlp_dim)


def head_weights(shape: Shape) -> int:
    """Weights of the projection to the vocabulary."""
    return shape.embed_dim * shape.vocab_size


def forward(shape: Shape, *, tokens: int, projected: int, keys: int) -> int:
    """FLOPs of a forward pass.

    Args:
        shape: of the model.
        tokens: that go through the layers.
        projected: tokens whose hidden state is projected to the vocabulary.
        keys: keys seen, summed over the tokens: q k^T and the weighted sum of values are 2 x 2 operations each.
    """
    attention = 4 * shape.num_layers * shape.num_heads * shape.head_dim * keys
    return 2 * layer_weights(shape) * tokens + 2 * head_weights(shape) * projected + attention


def keys_seen(start: np.ndarray | int, stop: np.ndarray | int) -> int:
    """Sum of p + 1 over the positions p in [start, stop), added up over rows."""
    start, stop = np.asarray(start, np.int64), np.asarray(stop, np.int64)
    return int(np.sum(stop * (stop + 1) // 2 - start * (start + 1) // 2))


def rollout(shape: Shape, *, prefixes: np.ndarray, starts: np.ndarray, new: np.ndarray) -> int:
    """FLOPs of sampling: each distinct prefix once, then one token at a time.

    Args:
        shape: of the model.
        prefixes: [N], lengths of the distinct prefixes that are computed.
        starts: [R], where each request starts.
        new: [R], tokens it generates; its last one does not go through the layers.
    """
    prefill = forward(shape, tokens=int(np.sum(prefixes)), projected=0, keys=keys_seen(0, prefixes))
    decoded, projected = int(np.sum(new - 1)), int(np.sum(new))
    return prefill + forward(shape, tokens=decoded, projected=projected, keys=keys_seen(starts, starts + new - 1))


def scoring(shape: Shape, *, rows: int, prompt_tokens: int, new_tokens: int) -> int:
    """FLOPs of the log-probs of completion tokens, teacher-forced."""
    length = prompt_tokens + new_tokens
    return rows * forward(shape, tokens=length, projected=new_tokens, keys=keys_seen(0, length))


def update(shape: Shape, *, rows: int, prompt_tokens: int, new_tokens: int) -> int:
    """FLOPs of forward and backward: gradients by input and by weight cost a forward each.  Optimiser left out."""
    return 3 * scoring(shape, rows=rows, prompt_tokens=prompt_tokens, new_tokens=new_tokens)


def decode_bytes(shape: Shape, *, starts: np.ndarray, new: np.ndarray, slots: int, itemsize: int) -> int:
    """Bytes that decoding must read: all weights once a step, and each row's visible keys and values.

    Args:
        shape: of the model.
        starts, new: as in `rollout`.
        slots: rows that decode together; there are at least sum(new) / slots steps.
        itemsize: bytes of a number.
    """
    steps = max(int(np.max(new)), -(-int(np.sum(new)) // slots))
    weights = steps * (layer_weights(shape) + head_weights(shape))
    per_key = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    return itemsize * (weights + per_key * keys_seen(starts, starts + new - 1))
