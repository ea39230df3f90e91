"""Features of questions without labels: what the text, and the policy's own states, say before any rollout.

They let a rule share what it has seen of one question with others that are like it.  Nothing that a generator knows of
a question's difficulty enters.  Columns come in blocks of one kind each (`Wants.blocks`): counts of the text, the
commonest tokens, the commonest pairs of neighbours, the policy's states after each of some layers, its entropy over the
prompt, a constant.  Columns are standardised over the pool, and the mean square of a block's columns sums to 1, so that
a kind has as much to say beforehand whatever its width.
"""

import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from lilo_jax.curriculum.contract import COUNTS, NOTHING, Wants
from lilo_jax.types import Array, Facts

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


def commonest(
    grams: Int[np.ndarray, "pool grams"], mask: Bool[np.ndarray, "pool grams"], width: int
) -> Float[np.ndarray, "pool width"]:
    """Counts, in every row, of the `width` grams that tell rows apart best.

    Those are the ones of highest f (1 - f), f the share of rows that hold them: neither everywhere nor hardly
    anywhere; of equals the lower id.  With fewer different grams the last columns are 0.

    Args:
        grams: of each text.
        mask: which are meant.
        width: columns.
    """
    different, which = np.unique(grams[mask], return_inverse=True)
    rows = np.nonzero(mask)[0]
    present = np.unique(np.stack([rows, which]), axis=1)
    holding = np.bincount(present[1], minlength=len(different))  # whole numbers, so that equals are equal
    chosen = np.argsort(-holding * (len(grams) - holding), kind="stable")[:width]
    column = np.full(len(different), width)
    column[chosen] = np.arange(len(chosen))
    counts = np.zeros((len(grams), width + 1), np.float32)
    np.add.at(counts, (rows, column[which]), 1)
    return counts[:, :width]


def text_features(
    texts: Sequence[str], tokens: Int[np.ndarray, "pool prompt"], lengths: Int[np.ndarray, "pool"], wants: Wants
) -> list[Float[np.ndarray, "pool _"]]:
    """Raw blocks of the text: counts, tokens, pairs of neighbours.

    Args:
        texts: of the questions.
        tokens: of their prompts.
        lengths: of these; what stands beyond is not read.
        wants: their widths.
    """
    counts = np.array([text_counts(text) for text in texts], np.float32).reshape(len(texts), COUNTS)
    first = tokens.astype(np.int64)
    pairs = first[:, :-1] * (1 << 31) + first[:, 1:]
    there = np.arange(tokens.shape[1]) < lengths[:, None]
    return [counts, commonest(first, there, wants.tokens), commonest(pairs, there[:, 1:], wants.pairs)]


def projected(states: Float[Array, "*rows embed"], width: int) -> Float[Array, "*rows width"]:
    """Hidden states through a fixed random matrix; as they are if they have `width` columns."""
    if states.shape[-1] == width:
        return states
    matrix = np.random.default_rng(_PROJECTION_SEED).standard_normal((states.shape[-1], width)) / np.sqrt(width)
    return jnp.matmul(states, matrix.astype(np.float32), precision="highest")


def standardized(blocks: Sequence[Float[np.ndarray, "pool _"]]) -> Float[np.ndarray, "pool features"]:
    """Blocks side by side, each with columns of mean 0 and equal variance that sums to 1, then a column of ones.

    Constant columns become 0.
    """
    scaled = []
    for raw in blocks:
        raw = raw.astype(np.float64)  # a column's sum over a large pool does not fit float32
        spread = raw.std(axis=0)
        varies = spread > 1e-6
        unit = (raw - raw.mean(axis=0)) / np.where(varies, spread, np.inf)
        scaled.append(unit / np.sqrt(max(varies.sum(), 1)))
    return np.concatenate([*scaled, np.ones((len(blocks[0]), 1))], axis=1).astype(np.float32)


def no_facts(pool_size: int, wants: Wants = NOTHING) -> Facts:
    """Facts of which nothing is known yet, of the shapes that are wanted."""
    none = jnp.zeros(pool_size, jnp.int32)
    return Facts(
        features=jnp.zeros((pool_size, wants.features), jnp.float32) if wants.features else None,
        grade=jnp.full(pool_size, jnp.nan, jnp.float32),
        category=none,
        level=none,
    )
