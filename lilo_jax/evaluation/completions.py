"""Many prompts through a sampler, in device calls of a size that recurs."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.types import Completions, Prompts, Requests


def completions_of(
    draw: Callable[[Prompts, Requests, Protocol], Completions],
    prompts: Sequence[Sequence[int]],
    protocol: Protocol,
    *,
    rows: int,
    first: int = 0,
) -> Iterator[Completions]:
    """Completions of each prompt from place `first` on, in device calls of about `rows` completions, in their order."""
    samples = protocol.samples
    per_call = max(rows // samples, 1)
    width = bucket(max(map(len, prompts), default=1))
    for start in range(first, len(prompts), per_call):
        part = prompts[start : start + per_call]
        count = per_call if len(prompts) > per_call else min(bucket(len(part)), per_call)
        tokens, lengths = padded(part, count, width)
        prompt = np.repeat(np.arange(count), samples).astype(np.int32)
        requests = Requests(
            prompt=prompt,
            prefix_length=np.maximum(lengths[prompt], 1),
            id=(start * samples + np.arange(count * samples)).astype(np.int32),
            budget=np.where(prompt < len(part), protocol.max_new_tokens, 0).astype(np.int32),
            expected_length=np.zeros(count * samples, np.float32),
        )
        completions = draw(Prompts(tokens=tokens, lengths=lengths), requests, protocol)
        for i in range(len(part)):
            yield jax.tree.map(lambda x, i=i: x[i * samples : (i + 1) * samples], completions)


def padded(rows: Sequence[Sequence[int]], count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int32 [count, width] with their lengths; those beyond the given ones are empty."""
    tokens, lengths = np.zeros((count, width), np.int32), np.zeros(count, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], lengths[i] = row, len(row)
    return tokens, lengths


def bucket(size: int) -> int:
    """The next multiple of 8: few sizes mean few compilations."""
    return -(-size // 8) * 8
