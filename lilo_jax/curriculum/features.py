"""Features of questions without labels: what the text, and the policy's own states, say before any rollout.

They let a rule share what it has seen of one question with others that are like it.  Nothing that a generator knows of
a question's difficulty enters.  Every column is standardised over the pool and the whole is scaled so that the mean
square of a row's columns is 1, so that a prior on coefficients means the same whatever the width.
"""

import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lilo_jax.types import NOTHING, Array, Facts, Wants

COUNTS = 6
"""Columns that are not hashed: see `text_counts`."""
_PROJECTION_SEED = 0x66656174
_OPERATORS = re.compile(r"[-+*/^=<>%]|\\(?:frac|cdot|times|sqrt|sum|int|prod|le|ge)\b")
_NUMBER = re.compile(r"\d+")


def text_counts(text: str) -> list[float]:
    """Logarithms of one plus: characters, words, digits, operators, numbers, and digits of the longest number."""
    numbers = _NUMBER.findall(text)
    counts = (
        len(text),
        len(text.split()),
        sum(map(len, numbers)),
        len(_OPERATORS.findall(text)),
        len(numbers),
        max(map(len, numbers), default=0),
    )
    return np.log1p(counts).tolist()


def hashed_ngrams(tokens: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Signed counts of the unigrams and adjacent bigrams of each row, hashed to `width` buckets; float32 [M, width].

    Args:
        tokens: int32 [M, P].
        lengths: int32 [M]; what stands beyond is not read.
        width: at least 1.

    Source: Weinberger et al. 2009 (feature hashing).
    """
    first = tokens.astype(np.uint64) + 1
    second = np.pad(first[:, 1:], ((0, 0), (0, 1)))
    there = np.arange(tokens.shape[1]) < lengths[:, None]
    pairs = np.arange(tokens.shape[1]) < lengths[:, None] - 1
    counts = np.zeros((len(tokens), width), np.float32)
    for grams, mask in ((first, there), (first * np.uint64(1 << 20) + second, pairs)):
        mixed = _mix(grams)
        bucket, sign = (mixed >> np.uint64(1)) % np.uint64(width), 1 - 2 * (mixed & np.uint64(1)).astype(np.float32)
        rows = np.broadcast_to(np.arange(len(tokens))[:, None], tokens.shape)
        np.add.at(counts, (rows[mask], bucket[mask].astype(int)), sign[mask])
    return counts


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of x."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def text_features(texts: Sequence[str], tokens: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """`COUNTS` counts of the text, then hashed n-grams of its tokens: raw, float32 [M, width]."""
    counts = np.array([text_counts(text) for text in texts], np.float32).reshape(len(texts), COUNTS)
    return np.concatenate([counts[:, :width], hashed_ngrams(tokens, lengths, max(width - COUNTS, 1))], axis=1)[
        :, :width
    ]


def projected(states: np.ndarray, width: int) -> np.ndarray:
    """Hidden states [M, D] through a fixed random matrix to [M, width]; as they are if D is `width`."""
    if states.shape[1] == width:
        return states
    matrix = np.random.default_rng(_PROJECTION_SEED).standard_normal((states.shape[1], width))
    return (states @ matrix / np.sqrt(width)).astype(np.float32)


def standardized(raw: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and, but for constant ones, variance 1 / d, and a column of ones: float32 [M, d + 1]."""
    spread = raw.std(axis=0)
    scaled = (raw - raw.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf) / np.sqrt(raw.shape[1])
    return np.concatenate([scaled, np.ones((len(raw), 1))], axis=1).astype(np.float32)


def no_facts(pool_size: int, wants: Wants = NOTHING) -> Facts:
    """Facts of which nothing is known yet, of the shapes that are wanted."""
    none: Array = jnp.zeros(pool_size, jnp.int32)
    return Facts(
        features=jnp.zeros((pool_size, wants.features), jnp.float32) if wants.features else None,
        grade=jnp.full(pool_size, jnp.nan, jnp.float32),
        category=none,
        level=none,
    )
