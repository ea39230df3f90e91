"""Requests in, completions out: one device loop from prompts to sampled tokens.

Each distinct prompt is prefilled once; its cache is copied to the requests that continue it, and all requests decode
together in a `lax.while_loop` until each has ended or spent its budget.
"""

import flax.struct
import jax
import jax.numpy as jnp

from lilo_jax.models import Model
from lilo_jax.sampling.token_choice import choose_tokens
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests


class _Decoding(flax.struct.PyTreeNode):
    """The loop's state; `hidden` [R, D] is what the next token is chosen from."""

    slot: Array
    hidden: Array
    cache: PyTree
    active: Array
    completions: Completions


def sample(
    model: Model,
    params: PyTree,
    prompts: Prompts,
    requests: Requests,
    key: Array,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    end_ids: tuple[int, ...],
) -> Completions:
    """Samples a completion for every request.

    The token at position t of request i is drawn with fold_in(fold_in(key, id_i), t): it does not depend on which
    other requests are in the call, nor on their order.

    Args:
        model: functions of the decoder.
        params: its weights.
        prompts: N prefixes of at most P tokens.
        requests: R requests.
        key: consumed.
        max_new_tokens: C, upper bound of every budget.
        temperature: at least 0; 0 is greedy.
        top_p: in (0, 1].
        end_ids: tokens that end a completion; the end token is part of it.

    Returns:
        Completions [R, C]; rows of budget 0 have length 0.
    """
    num_requests, prompt_slots = requests.prompt.shape[0], prompts.tokens.shape[1]
    last_hidden, cache = _prefill(model, params, prompts)
    row_keys = jax.vmap(lambda request_id: jax.random.fold_in(key, request_id))(requests.id)
    start = prompts.lengths[requests.prompt]

    def decode_one(state: _Decoding) -> _Decoding:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, state.slot)
        tokens, logprobs, processed = choose_tokens(
            model.logits(params, state.hidden), keys, temperature=temperature, top_p=top_p
        )
        ended = state.active & jnp.isin(tokens, jnp.asarray(end_ids))
        completions = _record(state.completions, state.slot, state.active, ended, tokens, logprobs, processed)
        active = state.active & ~ended & (state.slot + 1 < requests.budget)
        hidden, cache = model.extend(params, tokens[:, None], (start + state.slot)[:, None], state.cache)
        return _Decoding(state.slot + 1, hidden[:, 0], cache, active, completions)

    zeros = jnp.zeros((num_requests, max_new_tokens), jnp.float32)
    empty = Completions(
        tokens=zeros.astype(jnp.int32),
        lengths=jnp.zeros(num_requests, jnp.int32),
        logprobs=zeros,
        processed_logprobs=zeros,
        ended=jnp.zeros(num_requests, bool),
    )
    state = _Decoding(
        slot=jnp.int32(0),
        hidden=last_hidden[requests.prompt],
        cache=model.take(cache, requests.prompt, prompt_slots + max_new_tokens),
        active=requests.budget > 0,
        completions=empty,
    )
    state = jax.lax.while_loop(lambda s: jnp.any(s.active) & (s.slot < max_new_tokens), decode_one, state)
    return state.completions


def _prefill(model: Model, params: PyTree, prompts: Prompts) -> tuple[Array, PyTree]:
    """Hidden state of each prompt's last token [N, D], and the filled cache."""
    num_prompts, slots = prompts.tokens.shape
    positions = jnp.broadcast_to(jnp.arange(slots), (num_prompts, slots))
    hidden, cache = model.extend(params, prompts.tokens, positions, model.init_cache(num_prompts, slots))
    last = jnp.maximum(prompts.lengths - 1, 0)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0], cache


def _record(
    completions: Completions,
    slot: Array,
    active: Array,
    ended: Array,
    tokens: Array,
    logprobs: Array,
    processed: Array,
) -> Completions:
    def write(column: Array, values: Array) -> Array:
        return column.at[:, slot].set(jnp.where(active, values, 0))

    return Completions(
        tokens=write(completions.tokens, tokens),
        lengths=completions.lengths + active,
        logprobs=write(completions.logprobs, logprobs),
        processed_logprobs=write(completions.processed_logprobs, processed),
        ended=completions.ended | ended,
    )
