"""Teacher forcing: log-probs, entropies and values of given completions, streamed over positions.

Only the hidden states of completion positions are projected to the vocabulary, a chunk of positions at a time, and
each chunk is recomputed in the backward pass: the logits of all positions never exist together.
"""

import jax
import jax.numpy as jnp

from lilo_jax.models import Model
from lilo_jax.types import Array, PyTree, Sequences, TokenScores


def completion_mask(sequences: Sequences, completion_slots: int) -> Array:
    """Bool [B, C]: which completion slots hold a token, by length (the pad id may equal an end id)."""
    return jnp.arange(completion_slots) < sequences.completion_lengths[:, None]


def score(
    model: Model,
    params: PyTree,
    sequences: Sequences,
    *,
    completion_slots: int,
    temperature: float,
    chunk: int,
) -> TokenScores:
    """Log-softmax(logits / temperature) of each completion token, and the entropy of that distribution.

    Args:
        model: functions of the decoder.
        params: policy weights.
        sequences: B rows of T tokens.
        completion_slots: C.
        temperature: greater than 0; the sampler's, so that both speak of the same distribution.
        chunk: positions projected to the vocabulary at a time.

    Returns:
        TokenScores [B, C], zero in the padding.
    """
    hidden, tokens, mask = _completion_states(model, params, sequences, completion_slots)

    @jax.checkpoint
    def project(_: None, inputs: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        states, targets = inputs  # [chunk, B, D], [chunk, B]
        logprobs = jax.nn.log_softmax(model.logits(params, states) / temperature, axis=-1)
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
        return None, (jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0], entropy)

    num_chunks = -(-completion_slots // chunk)

    def chunked(x: Array) -> Array:
        x = jnp.moveaxis(x, 1, 0)
        x = jnp.pad(x, [(0, num_chunks * chunk - completion_slots)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(num_chunks, chunk, *x.shape[1:])

    _, columns = jax.lax.scan(project, None, (chunked(hidden), chunked(tokens)))
    logprobs, entropy = (jnp.where(mask, x.reshape(-1, x.shape[-1])[:completion_slots].T, 0) for x in columns)
    return TokenScores(logprobs=logprobs, entropy=entropy)


def score_values(model: Model, params: PyTree, sequences: Sequences, *, completion_slots: int) -> Array:
    """The critic's value of the state in which each completion token is chosen, float32 [B, C], zero in the padding."""
    hidden, _, mask = _completion_states(model, params, sequences, completion_slots)
    return jnp.where(mask, model.values(params, hidden), 0)


def _completion_states(
    model: Model, params: PyTree, sequences: Sequences, completion_slots: int
) -> tuple[Array, Array, Array]:
    """Hidden states that predict each completion token [B, C, D], the tokens [B, C], and the mask [B, C]."""
    hidden = model.hidden(params, sequences.tokens)
    last_slot = sequences.tokens.shape[1] - 1
    token_slots = jnp.minimum(sequences.prompt_lengths[:, None] + jnp.arange(completion_slots), last_slot)
    tokens = jnp.take_along_axis(sequences.tokens, token_slots, axis=1)
    states = jnp.take_along_axis(hidden, jnp.maximum(token_slots - 1, 0)[:, :, None], axis=1)
    return states, tokens, completion_mask(sequences, completion_slots)
