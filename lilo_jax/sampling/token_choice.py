"""From logits to the next token: which tokens may be drawn, and a draw with a key per row.

Every rule of truncation is a threshold: a token is kept iff it is at least as likely as some value.  A tie at the
threshold is therefore kept whole, and what is kept depends on the probabilities alone, not on the ids.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.types import Array

_BLOCK = 128
"""Tokens per block of the draw: a block is chosen first, then a token in it."""


@dataclasses.dataclass(frozen=True)
class TokenRule:
    """How a token is drawn.  What truncates is applied in this order: top_k, top_p, min_p."""

    temperature: float = 1.0
    """logits are divided by it; 0 is greedy"""
    top_p: float = 1.0
    """keep the most likely tokens that together reach this probability, in (0, 1]; 1 keeps all"""
    top_k: int = 0
    """keep the k most likely tokens; 0 keeps all"""
    min_p: float = 0.0
    """keep the tokens at least this share as likely as the most likely one, in [0, 1]; 0 keeps all"""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0 and 0 <= self.min_p <= 1):
            raise ValueError(
                f"temperature must be at least 0, top_p in (0, 1], top_k at least 0 and min_p in [0, 1], got {self}"
            )


def choose_tokens(
    logits: Float[Array, "rows vocabulary"],
    keys: Key[jax.Array, "rows"],
    rule: TokenRule,
    allowed: Bool[Array, "#rows vocabulary"] | None = None,
) -> tuple[Int[Array, "rows"], Float[Array, "rows"], Float[Array, "rows"]]:
    """Draws one token per row.

    The full distribution is softmax(logits / temperature).  The processed one, which the token is drawn from, is the
    full one restricted to `allowed`, truncated by `rule` and renormalised.

    Args:
        logits: of each row.
        keys: each consumed; row r's token depends on keys[r], logits[r] and allowed[r] alone.
        rule: temperature and truncation; at temperature 0 the most likely allowed token is taken (the first of equals).
        allowed: tokens that may be drawn, a row for each or one for all; None: all.

    Returns:
        Tokens; their log-probs under the full distribution, at temperature 1 if greedy; and under the processed one (0
        if greedy).  A row whose logits hold a NaN or +inf has some token and
        a NaN full log-prob; a row in which nothing allowed has a finite logit has some token and a NaN processed one.
    """
    temperature = rule.temperature or 1.0
    options = jnp.asarray(logits) if allowed is None else jnp.where(allowed, logits, -jnp.inf)
    weights = _weights(logits, temperature)
    if rule.temperature == 0:
        likeliest = jnp.argmax(options, axis=-1).astype(jnp.int32)
        certain = jnp.where(jnp.isfinite(_at(options, likeliest)), 0.0, jnp.nan)
        return likeliest, _logprobs(logits, likeliest, weights, temperature), certain
    kept = truncate(_weights(options, temperature), rule)
    tokens = draw(kept, jax.vmap(_uniforms)(keys))
    return (
        tokens,
        _logprobs(logits, tokens, weights, temperature),
        _logprobs(options, tokens, kept, temperature),
    )


def truncate(weights: Float[Array, "rows vocabulary"], rule: TokenRule) -> Float[Array, "rows vocabulary"]:
    """Sets the weights of the tokens that `rule` does not keep to 0.

    With w the weights and |.| the sum of those kept by the rule before:

        top_k   keeps w >= t, t the k-th largest weight;
        top_p   keeps w >= t, t the largest value for which the tokens with w >= t hold at least top_p |w|;
        min_p   keeps w >= min_p max(w).

    Nothing is sorted: t of top_p is found by bisection over the bits of a float32, among the top_k if that is on.

    Sources: Holtzman et al. 2020, eq. 2 (top_p); Nguyen et al. 2024, eq. 1-2 (min_p); the order of the three is that
    of Hugging Face's `generate`.

    Args:
        weights: proportional to probabilities, the largest of a row being 1.
        rule: see `TokenRule`; the temperature is not read.
    """
    candidates, kept = weights, weights
    if 0 < rule.top_k < weights.shape[-1]:
        candidates = jax.lax.top_k(weights, rule.top_k)[0]
        # The minimum, not the last one: XLA on CPU would replace top_k, if sliced, by a sort.
        kept = _at_least(weights, jnp.min(candidates, axis=-1))
    if rule.top_p < 1:
        kept = _at_least(kept, _nucleus_threshold(candidates, rule.top_p * jnp.sum(kept, axis=-1)))
    return _at_least(kept, jnp.full(weights.shape[0], rule.min_p, weights.dtype)) if rule.min_p else kept


def _at_least(
    weights: Float[Array, "rows vocabulary"], threshold: Float[Array, "rows"]
) -> Float[Array, "rows vocabulary"]:
    return jnp.where(weights >= threshold[:, None], weights, 0.0)


def _nucleus_threshold(weights: Float[Array, "rows vocabulary"], mass: Float[Array, "rows"]) -> Float[Array, "rows"]:
    """The largest float32 t in [0, 1] for which the weights >= t hold at least `mass`; 0 if there is none.

    Non-negative floats are ordered as their bits are, so 30 halvings between 0 and the bits of 1 find it exactly.
    """

    def halve(
        _: Int[Array, ""], bounds: tuple[Int[Array, "rows"], Int[Array, "rows"]]
    ) -> tuple[Int[Array, "rows"], Int[Array, "rows"]]:
        enough, too_high = bounds
        middle = (enough + too_high) // 2
        threshold = jax.lax.bitcast_convert_type(middle, jnp.float32)
        reached = jnp.sum(_at_least(weights, threshold), axis=-1) >= mass
        return jnp.where(reached, middle, enough), jnp.where(reached, too_high, middle)

    above_one = jax.lax.bitcast_convert_type(jnp.ones_like(mass), jnp.int32) + 1
    enough, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(above_one), above_one))
    return jax.lax.bitcast_convert_type(enough, jnp.float32)


def draw(weights: Float[Array, "rows vocabulary"], uniforms: Float[Array, "rows 2"]) -> Int[Array, "rows"]:
    """Inverts the cumulative distribution: P(token = i) = weights_i / sum(weights).

    A block of 128 tokens is drawn by the first uniform number and a token in it by the second, so that neither a
    cumulative sum over the vocabulary nor noise for each token is needed, and rare tokens are drawn at the rate they
    should be although a float32 uniform number has only 2^23 values.

    Args:
        weights: non-negative, at least one of a row positive (else its token is 0).
        uniforms: in (0, 1).

    Returns:
        Tokens, never one of weight 0.
    """
    blocks = jnp.pad(weights, ((0, 0), (0, -weights.shape[-1] % _BLOCK))).reshape(weights.shape[0], -1, _BLOCK)
    block = _first_above(jnp.sum(blocks, axis=-1), uniforms[:, 0])
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * _BLOCK + _first_above(inside, uniforms[:, 1])


def _first_above(weights: Float[Array, "rows entries"], uniforms: Float[Array, "rows"]) -> Int[Array, "rows"]:
    """First index whose cumulative weight exceeds uniform x total.

    Sums rounded in parallel need not grow monotonically: entries of weight 0 are left out, and the total is the
    largest sum, so that some entry of positive weight always lies above.
    """
    sums = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    return jnp.argmax(sums > uniforms[:, None] * jnp.max(sums, axis=-1, keepdims=True), axis=-1).astype(jnp.int32)


def _uniforms(key: Key[jax.Array, ""]) -> Float[Array, "2"]:
    """Two numbers in (0, 1), the centres of 2^23 cells: at exactly 0, which has probability 2^-23, the first token of
    positive weight would be drawn, however small that weight is.
    """
    return jax.random.uniform(key, (2,)) + 2.0**-24


def _weights(logits: Float[Array, "rows vocabulary"], temperature: float) -> Float[Array, "rows vocabulary"]:
    """exp((logits - max) / temperature): exactly 1 for the most likely token, however the rest is rounded."""
    return jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)


def _logprobs(
    logits: Float[Array, "rows vocabulary"],
    tokens: Int[Array, "rows"],
    weights: Float[Array, "rows vocabulary"],
    temperature: float,
) -> Float[Array, "rows"]:
    """log(w_token / sum(w)), w being the `_weights` of these logits, some of them possibly set to 0."""
    return (_at(logits, tokens) - jnp.max(logits, axis=-1)) / temperature - jnp.log(jnp.sum(weights, axis=-1))


def _at(logits: Float[Array, "rows vocabulary"], tokens: Int[Array, "rows"]) -> Float[Array, "rows"]:
    return jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
