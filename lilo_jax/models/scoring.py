"""Teacher forcing: log-probs, entropies and values of given completions, streamed over the vocabulary.

Only the hidden states of completion tokens are projected to the vocabulary, a chunk of tokens at a time and no padding,
and the backward pass projects each chunk again: the logits of all tokens never exist together.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from lilo_jax.models import Model
from lilo_jax.models.row_shards import ALONE, RowShards
from lilo_jax.types import Array, Prompts, PyTree, Sequences, TokenScores, TrainBatch


def completion_mask(sequences: Sequences, completion_width: int) -> Bool[Array, "rows completion"]:
    """Where a completion holds a token, by length (the pad id may equal an end id)."""
    return jnp.arange(completion_width)[None] < sequences.completion_lengths[:, None]


def live_tokens(batch: TrainBatch) -> Bool[Array, "rows completion"]:
    """The completion tokens of the rows that are trained on."""
    return completion_mask(batch.sequences, batch.sampler_logprobs.shape[1]) & batch.row_mask[:, None]


def informative_sequences(batch: TrainBatch) -> Sequences:
    """The sequences of a batch, without a token in the rows that are not computed."""
    sequences, computed = batch.sequences, batch.informative
    return sequences.replace(
        prompt_lengths=sequences.prompt_lengths * computed, completion_lengths=sequences.completion_lengths * computed
    )


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
        chunk: most tokens of a row shard whose logits exist at the same time.

    Returns:
        TokenScores, zero in the padding.
    """
    parts = model.shards.parts
    width = -(-completion_width // parts) * parts
    hidden, tokens, mask = _completion_states(model, params, sequences, width)
    shards = model.shards if hidden.shape[0] % model.shards.number == 0 else ALONE
    how = _Streaming(model.project, shards, temperature, chunk)
    logprobs, entropy = (x[:, :completion_width] for x in streamed(how, model.head(params), hidden, tokens, mask))
    return TokenScores(logprobs=logprobs, entropy=entropy)


class _Streaming(NamedTuple):
    """How states are projected: `project` and `shards` of a `Model`, temperature, most tokens at a time on a shard."""

    project: Callable[..., Float[Array, "*tokens vocabulary"]]
    shards: RowShards
    temperature: float
    chunk: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def streamed(
    how: _Streaming,
    head: Float[Array, "embed vocabulary"],
    states: Float[Array, "rows completion embed"],
    targets: Int[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
) -> tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]:
    """Log-prob of each target and entropy of its distribution, with the logits of one chunk at a time.

    With z = project(W, h) / temperature and p = softmax(z):

        l = z_y - logsumexp(z)              dl/dz_j = 1[j = y] - p_j
        H = -sum_j p_j log p_j              dH/dz_j = -p_j (log p_j + H)

    Tokens outside of the mask are not projected.  The backward pass projects each chunk once more and keeps of the
    forward pass only logsumexp(z) and H.  On a mesh W is gathered once a pass, in the type of h, and its gradient,
    added up in float32 on each row shard, is summed over the shards once.

    Args:
        how: see `_Streaming`.
        head: W.
        states: h.
        targets: y.
        mask: which are meant.

    Returns:
        l and H; 0 outside of the mask.
    """
    return _streamed_forward(how, head, states, targets, mask)[0]


def _streamed_forward(
    how: _Streaming,
    head: Float[Array, "embed vocabulary"],
    states: Float[Array, "rows completion embed"],
    targets: Int[Array, "rows completion"],
    mask: Bool[Array, "rows completion"],
) -> tuple[tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]], tuple]:
    def on_shard(head: Array, states: Array, targets: Array, mask: Array) -> tuple[Array, Array, Array]:
        cut, per_token = _Chunks.of(mask, how.chunk), (states, targets)

        def project(i: Array, columns: tuple[Array, ...]) -> tuple[Array, ...]:
            states, targets = (cut.take(x, i) for x in per_token)
            z = how.project(head, states) / how.temperature
            top = jnp.max(z, axis=-1, keepdims=True)
            powers = jnp.exp(z - top)
            total = jnp.sum(powers, axis=-1)
            log_total = jnp.log(total)
            entropy = log_total - jnp.sum(powers * (z - top), axis=-1) / total
            # A comparison fuses with the reduction; a gather would walk through memory once more.
            chosen = jnp.sum(jnp.where(_one_hot(targets, z), z, 0), axis=-1)
            log_normalizer = top[:, 0] + log_total
            found = (chosen - log_normalizer, entropy, log_normalizer)
            return tuple(cut.put(column, i, x) for column, x in zip(columns, found, strict=True))

        dtype = jnp.promote_types(states.dtype, jnp.float32)
        return jax.lax.fori_loop(0, cut.number, project, (jnp.zeros(mask.shape, dtype),) * 3)

    run = how.shards.run(on_shard, (None, *["tokens"] * 3), ("tokens",) * 3)
    logprobs, entropy, log_normalizer = run(_whole(how, head, states), states, targets, mask)
    return (logprobs, entropy), (head, states, targets, mask, entropy, log_normalizer)


def _streamed_backward(
    how: _Streaming,
    residuals: tuple,
    cotangents: tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]],
) -> tuple[Float[Array, "embed vocabulary"], Float[Array, "rows completion embed"], None, None]:
    head, states, targets, mask, *columns = residuals

    def on_shard(head: Array, mask: Array, *per_token: Array) -> tuple[Array, Array]:
        cut = _Chunks.of(mask, how.chunk)

        def pull_back(i: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
            states, targets, *columns = (cut.take(x, i) for x in per_token)
            entropy, log_normalizer, g_logprob, g_entropy = (x[:, None] for x in columns)
            raw, transpose = jax.vjp(how.project, head, states)
            log_p = raw / how.temperature - log_normalizer
            gradient = jnp.where(_one_hot(targets, raw), g_logprob, 0)
            gradient -= jnp.exp(log_p) * (g_logprob + g_entropy * (log_p + entropy))
            g_head, g_states = transpose(gradient / how.temperature)
            return gradients[0] + g_head, cut.put(gradients[1], i, g_states)

        zeros = jnp.zeros(head.shape, jnp.promote_types(head.dtype, jnp.float32)), jnp.zeros_like(per_token[0])
        g_head, g_states = jax.lax.fori_loop(0, cut.number, pull_back, zeros)
        return how.shards.total(g_head), g_states

    run = how.shards.run(on_shard, (None, *["tokens"] * 7), (how.shards.embed(head.shape[0]), "tokens"))
    g_head, g_states = run(_whole(how, head, states), mask, states, targets, *columns, *cotangents)
    return g_head.astype(head.dtype), g_states, None, None


streamed.defvjp(_streamed_forward, _streamed_backward)


def _whole(
    how: _Streaming, head: Float[Array, "embed vocabulary"], states: Float[Array, "..."]
) -> Float[Array, "embed vocabulary"]:
    return how.shards.whole(head, states.dtype, "embed", "vocab")


def _one_hot(targets: Int[Array, "chunk"], logits: Float[Array, "chunk vocabulary"]) -> Bool[Array, "chunk vocabulary"]:
    return jnp.arange(logits.shape[-1])[None] == targets[:, None]


class _Chunks(NamedTuple):
    """The tokens under a mask as chunks of n <= max(chunk, 1), an eighth of all tokens at most.

    Attributes:
        places: those of the tokens among all of them, rows end to end; then a place beyond the last.
        size: n.
        number: of the chunks that hold a token.
    """

    places: Int[Array, "places"]
    size: int
    number: Int[Array, ""]

    @classmethod
    def of(cls, mask: Bool[Array, "rows completion"], chunk: int) -> "_Chunks":
        """Those of at most `chunk` tokens."""
        size = min(chunk, -(-mask.size // 8))
        places = jnp.flatnonzero(mask, size=-(-mask.size // size) * size, fill_value=mask.size)
        return cls(places, size, -(-jnp.sum(mask) // size))

    def take(self, x: Shaped[Array, "rows completion ..."], i: Int[Array, ""]) -> Shaped[Array, "chunk ..."]:
        """What stands at the tokens of chunk i; 0 where it holds none."""
        return self._all(x).at[self._chunk(i)].get(mode="fill", fill_value=0)

    def put(
        self, x: Shaped[Array, "rows completion ..."], i: Int[Array, ""], values: Shaped[Array, "chunk ..."]
    ) -> Shaped[Array, "rows completion ..."]:
        """`x` with these values at the tokens of chunk i."""
        return self._all(x).at[self._chunk(i)].set(values.astype(x.dtype), mode="drop").reshape(x.shape)

    def _chunk(self, i: Int[Array, ""]) -> Int[Array, "chunk"]:
        return jax.lax.dynamic_slice_in_dim(self.places, i * self.size, self.size)

    def _all(self, x: Shaped[Array, "rows completion ..."]) -> Shaped[jax.Array, "tokens ..."]:
        return jnp.reshape(x, (-1, *x.shape[2:]))


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
