"""Teacher forcing: log-probs, entropies and values of given completions, streamed over the vocabulary.

Only the hidden states of completion positions are projected to the vocabulary, a chunk of tokens at a time, and the
backward pass projects each chunk again: the logits of all positions never exist together.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from lilo_jax.models import Model
from lilo_jax.types import Array, Prompts, PyTree, Sequences, TokenScores, TrainBatch

Logits = Callable[..., Float[Array, "chunk vocabulary"]]
"""(states of a chunk of tokens, *weights) -> logits."""


def completion_mask(sequences: Sequences, completion_width: int) -> Bool[Array, "rows completion"]:
    """Where a completion holds a token, by length (the pad id may equal an end id)."""
    return jnp.arange(completion_width)[None] < sequences.completion_lengths[:, None]


def live_tokens(batch: TrainBatch) -> Bool[Array, "rows completion"]:
    """The completion tokens of the rows that are trained on."""
    return completion_mask(batch.sequences, batch.sampler_logprobs.shape[1]) & batch.row_mask[:, None]


def score(
    model: Model,
    params: PyTree,
    sequences: Sequences,
    *,
    completion_width: int,
    temperature: float,
    chunk: int,
) -> TokenScores:
    """Log-softmax(logits / temperature) of each completion token, and the entropy of that distribution.

    Both are differentiable in `params`.

    Args:
        model: functions of the decoder.
        params: policy weights.
        sequences: B rows of T tokens.
        completion_width: C.
        temperature: greater than 0; the sampler's, so that both speak of the same distribution.
        chunk: most tokens, over all rows, whose logits exist at the same time.

    Returns:
        TokenScores, zero in the padding.
    """
    hidden, tokens, mask = _completion_states(model, params, sequences, completion_width)
    states, targets = _cut(hidden, chunk), _cut(tokens, chunk)
    logits, weights = jax.closure_convert(functools.partial(model.logits, params), states[0])
    columns = streamed(logits, temperature, tuple(weights), states, targets)
    logprobs, entropy = (jnp.where(mask, _join(x, tokens.shape), 0) for x in columns)
    return TokenScores(logprobs=logprobs, entropy=entropy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def streamed(
    logits: Logits,
    temperature: float,
    weights: tuple[Float[Array, "..."], ...],
    states: Float[Array, "chunks chunk embed"],
    targets: Int[Array, "chunks chunk"],
) -> tuple[Float[Array, "chunks chunk"], Float[Array, "chunks chunk"]]:
    """Log-prob of each target and entropy of its distribution, with the logits of one chunk at a time.

    With z = logits(h) / temperature and p = softmax(z):

        l = z_y - logsumexp(z)              dl/dz_j = 1[j = y] - p_j
        H = -sum_j p_j log p_j              dH/dz_j = -p_j (log p_j + H)

    The backward pass projects each chunk once more and keeps of the forward pass only logsumexp(z) and H.

    Args:
        logits: (h of a chunk, *weights) -> logits.
        temperature: greater than 0.
        weights: what `logits` multiplies by.
        states: h, in chunks of tokens.
        targets: y.

    Returns:
        l and H.
    """
    return _streamed_forward(logits, temperature, weights, states, targets)[0]


def _streamed_forward(
    logits: Logits,
    temperature: float,
    weights: tuple[Float[Array, "..."], ...],
    states: Float[Array, "chunks chunk embed"],
    targets: Int[Array, "chunks chunk"],
) -> tuple[tuple[Float[Array, "chunks chunk"], Float[Array, "chunks chunk"]], tuple]:
    def project(
        _: None, inputs: tuple[Float[Array, "chunk embed"], Int[Array, "chunk"]]
    ) -> tuple[None, tuple[Float[Array, "chunk"], Float[Array, "chunk"], Float[Array, "chunk"]]]:
        states, targets = inputs
        z = logits(states, *weights) / temperature
        top = jnp.max(z, axis=-1, keepdims=True)
        powers = jnp.exp(z - top)
        total = jnp.sum(powers, axis=-1)
        log_total = jnp.log(total)
        entropy = log_total - jnp.sum(powers * (z - top), axis=-1) / total
        # A comparison fuses with the reduction; a gather would walk through memory once more.
        chosen = jnp.sum(jnp.where(_one_hot(targets, z), z, 0), axis=-1)
        log_normalizer = top[:, 0] + log_total
        return None, (chosen - log_normalizer, entropy, log_normalizer)

    _, (logprobs, entropy, log_normalizer) = jax.lax.scan(project, None, (states, targets))
    return (logprobs, entropy), (weights, states, targets, entropy, log_normalizer)


def _streamed_backward(
    logits: Logits,
    temperature: float,
    residuals: tuple,
    cotangents: tuple[Float[Array, "chunks chunk"], Float[Array, "chunks chunk"]],
) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, "chunks chunk embed"], None]:
    weights, *per_token = residuals

    def pull_back(
        total: tuple[Float[jax.Array, "..."], ...], inputs: tuple
    ) -> tuple[tuple[Float[jax.Array, "..."], ...], Float[Array, "chunk embed"]]:
        states, targets, *columns = inputs
        entropy, log_normalizer, g_logprob, g_entropy = (x[:, None] for x in columns)
        raw, transpose = jax.vjp(logits, states, *weights)
        log_p = raw / temperature - log_normalizer
        gradient = jnp.where(_one_hot(targets, raw), g_logprob, 0)
        gradient -= jnp.exp(log_p) * (g_logprob + g_entropy * (log_p + entropy))
        g_states, *g_weights = transpose(gradient / temperature)
        return tuple(map(jnp.add, total, g_weights)), g_states

    zeros = tuple(jnp.zeros_like(w) for w in weights)
    g_weights, g_states = jax.lax.scan(pull_back, zeros, (*per_token, *cotangents))
    return g_weights, g_states, None


streamed.defvjp(_streamed_forward, _streamed_backward)


def _one_hot(targets: Int[Array, "chunk"], logits: Float[Array, "chunk vocabulary"]) -> Bool[Array, "chunk vocabulary"]:
    return jnp.arange(logits.shape[-1])[None] == targets[:, None]


def _cut(x: Shaped[Array, "rows completion ..."], chunk: int) -> Shaped[Array, "chunks chunk ..."]:
    """Rows as m chunks of n <= max(chunk, 1) tokens, every row shard having a part in each.

    A chunk takes every m-th position of all rows; where B alone exceeds `chunk`, one position of every (B / n)-th row.
    """
    rows, width = x.shape[:2]
    if rows <= chunk:
        num_chunks = -(-width // (chunk // rows))
        x = jnp.pad(x, [(0, 0), (0, -width % num_chunks)] + [(0, 0)] * (x.ndim - 2))
    else:
        num_chunks = width * next(parts for parts in range(2, rows + 1) if rows % parts == 0 and rows // parts <= chunk)
    return x.reshape(-1, num_chunks, *x.shape[2:]).swapaxes(0, 1)


def _join(x: Shaped[Array, "chunks chunk"], shape: tuple[int, ...]) -> Shaped[Array, "rows completion"]:
    """The inverse of `_cut` for rows of this shape."""
    return x.T.reshape(shape[0], -1)[:, : shape[1]]


def score_values(
    model: Model, params: PyTree, sequences: Sequences, *, completion_width: int
) -> Float[Array, "rows completion"]:
    """The critic's value of the state in which each completion token is chosen, zero in the padding."""
    hidden, _, mask = _completion_states(model, params, sequences, completion_width)
    return jnp.where(mask, model.values(params, hidden), 0)


def mean_states(
    model: Model, params: PyTree, prompts: Prompts, *, layers: tuple[int, ...]
) -> Float[Array, "layers prompts embed"]:
    """The policy's states after some of its layers, averaged over the tokens of each prompt; 0 for padding rows.

    Args:
        model: functions of the decoder.
        params: policy weights.
        prompts: padded on the right.
        layers: which of `model.states`; 0 is the embeddings.
    """
    ends = prompts.lengths[:, None]
    return span_means(model, params, prompts.tokens, jnp.zeros_like(ends), ends, layers=layers)[:, :, 0]


def span_means(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "rows tokens"],
    begin: Int[Array, "rows spans"],
    end: Int[Array, "rows spans"],
    *,
    layers: tuple[int, ...],
) -> Float[Array, "layers rows spans embed"]:
    """The policy's states between its layers, averaged over spans of the tokens of each row.

    Args:
        model: functions of the decoder.
        params: policy weights.
        tokens: of rows.
        begin, end: a span is the tokens from `begin` to before `end`; the mean of none is 0.
        layers: which of `model.states`.
    """
    states = model.states(params, tokens)
    over_spans = jax.vmap(_span_mean, in_axes=(None, 1, 1), out_axes=1)
    return jnp.stack([over_spans(states[layer], begin, end) for layer in layers])


def _span_mean(
    states: Float[Array, "rows tokens embed"], begin: Int[Array, "rows"], end: Int[Array, "rows"]
) -> Float[Array, "rows embed"]:
    position = jnp.arange(states.shape[1])[None]
    there = (position >= begin[:, None]) & (position < end[:, None])
    total = jnp.sum(jnp.where(there[:, :, None], states.astype(jnp.float32), 0), axis=1)
    return total / jnp.maximum(end - begin, 1)[:, None]


def _completion_states(
    model: Model, params: PyTree, sequences: Sequences, completion_width: int
) -> tuple[Float[Array, "rows completion embed"], Int[Array, "rows completion"], Bool[Array, "rows completion"]]:
    """Hidden states that predict each completion token, the tokens, and the mask."""
    hidden = model.hidden(params, sequences.tokens)
    last = sequences.tokens.shape[1] - 1
    positions = jnp.minimum(sequences.prompt_lengths[:, None] + jnp.arange(completion_width)[None], last)
    tokens = jnp.take_along_axis(sequences.tokens, positions, axis=1)
    states = jnp.take_along_axis(hidden, jnp.maximum(positions - 1, 0)[:, :, None], axis=1)
    return states, tokens, completion_mask(sequences, completion_width)
