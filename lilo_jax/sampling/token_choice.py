"""From logits to the next token: temperature, nucleus truncation, and a draw with a key per row."""

import jax
import jax.numpy as jnp

from lilo_jax.types import Array


def nucleus(logprobs: Array, top_p: float) -> Array:
    """Keeps the smallest set of most likely tokens whose probability reaches `top_p`, renormalised.

    A token is kept iff the tokens strictly more likely than it (earlier in a stable descending sort) hold less than
    `top_p`; the most likely one is always kept.  Source: Holtzman et al. 2020, eq. 2.

    Args:
        logprobs: float32 [R, V], normalised.
        top_p: in (0, 1]; 1 returns `logprobs` unchanged.

    Returns:
        float32 [R, V], log-probabilities with -inf outside the nucleus.
    """
    if top_p >= 1.0:
        return logprobs
    order = jnp.argsort(-logprobs, axis=-1, stable=True)
    sorted_probs = jnp.exp(jnp.take_along_axis(logprobs, order, axis=-1))
    mass_before = jnp.cumsum(sorted_probs, axis=-1) - sorted_probs
    keep = jnp.put_along_axis(jnp.zeros_like(logprobs, bool), order, mass_before < top_p, axis=-1, inplace=False)
    return jax.nn.log_softmax(jnp.where(keep, logprobs, -jnp.inf), axis=-1)


def choose_tokens(logits: Array, keys: Array, *, temperature: float, top_p: float) -> tuple[Array, Array, Array]:
    """Draws one token per row.

    Args:
        logits: float32 [R, V].
        keys: typed keys [R], each consumed; row r's token depends on keys[r] and logits[r] alone.
        temperature: at least 0; 0 is greedy, with log-probs reported at temperature 1.
        top_p: in (0, 1].

    Returns:
        tokens int32 [R]; their log-probs under softmax(logits / temperature), float32 [R]; and under the truncated
        distribution they were drawn from, float32 [R] (0 when greedy).
    """
    logprobs = jax.nn.log_softmax(logits / (temperature or 1.0), axis=-1)
    if temperature == 0:
        tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return tokens, _at(logprobs, tokens), jnp.zeros(tokens.shape, jnp.float32)
    processed = nucleus(logprobs, top_p)
    tokens = jax.vmap(jax.random.categorical)(keys, processed).astype(jnp.int32)
    return tokens, _at(logprobs, tokens), _at(processed, tokens)


def _at(logprobs: Array, tokens: Array) -> Array:
    return jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
