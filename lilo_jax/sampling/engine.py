"""Requests in, completions out: continuous batching in one device program.

A queue of requests is served by S decoding slots.  All slots take one token at a time in a `lax.while_loop`; when
enough of them are free, the next requests of the queue are put into them by copying their prefix's keys and values,
without leaving the device.  A slot that has no request writes nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key, Num

from lilo_jax.models import Model
from lilo_jax.sampling.prefixes import Most, own, prefill
from lilo_jax.sampling.stages import Stage, plan_stages
from lilo_jax.sampling.stopping import advance
from lilo_jax.sampling.token_choice import TokenRule, choose_tokens
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests

REFILL_SHARE = 8
"""Slots are refilled when a 1 / REFILL_SHARE of them is free: each refill moves that many rows."""


class _Slots(flax.struct.PyTreeNode):
    """What the S slots hold.

    Attributes:
        request: row of the requests; R in a free slot.
        token: the last token, which the next pass runs.
        position: where it stands.
        generated: new tokens so far.
        stopping: state of the automaton of stop strings.
        cache: keys and values before `position`.
    """

    request: Int[Array, "slots"]
    token: Int[Array, "slots"]
    position: Int[Array, "slots"]
    generated: Int[Array, "slots"]
    stopping: Int[Array, "slots"]
    cache: PyTree


class _Progress(flax.struct.PyTreeNode):
    """The loop's state; the first `served` requests of the queue have been given a slot."""

    slots: _Slots
    served: Int[Array, ""]
    completions: Completions


class _Call(NamedTuple):
    """What does not change during a call; `queue` is the order in which requests are served, and `stopping` how
    far each is in a stop string when it starts.
    """

    model: Model
    weights: PyTree
    prompts: Prompts
    requests: Requests
    prefixes: PyTree
    queue: Int[Array, "requests"]
    key: Key[jax.Array, ""]
    stopping: Int[Array, "requests"]
    stop_table: Int[Array, "states vocabulary"] | None
    rule: TokenRule
    end_ids: tuple[int, ...]
    known_ids: int | None
    min_new_tokens: int
    most: Most


def sample(
    model: Model,
    params: PyTree,
    prompts: Prompts,
    requests: Requests,
    key: Key[jax.Array, ""],
    stop_table: Int[Array, "states vocabulary"] | None = None,
    *,
    max_new_tokens: int,
    rule: TokenRule,
    end_ids: tuple[int, ...],
    known_ids: int | None = None,
    min_new_tokens: int = 0,
    slots: int = 0,
    prefill_tokens: int = 2048,
    max_length: int = 0,
    most: Most = own,
) -> Completions:
    """Samples a completion for every request.

    The token at position t of request i is drawn with fold_in(fold_in(key, id_i), t): it does not depend on which
    other requests are in the call, on their order, on the number of slots, or on when the request got its slot.

    Args:
        model: functions of the decoder.
        params: its weights.
        prompts: N prefixes of at most P tokens.
        requests: R requests.
        key: consumed.
        stop_table: automaton of the strings that end a completion, whose last token completes one; None: there is none.
        max_new_tokens: C, upper bound of every budget.
        rule: how a token is drawn.
        end_ids: tokens that end a completion; the end token is part of it.
        known_ids: ids from here on, of which a vocabulary may have more than its tokenizer, are never drawn.
        min_new_tokens: end tokens are not drawn before this many other tokens (a stop string still ends a completion);
            C forces every completion to its budget.
        slots: S, requests decoding at once; 0 takes one slot per request.
        prefill_tokens: prompt tokens run at once.
        max_length: bound on the tokens of any prefix together with its budget, which the caches are made for; 0: P + C.
        most: of a number over the shards that must take the same turns; see `Most`.

    Returns:
        Completions; rows of budget 0 have length 0.
    """
    num_requests, prompt_slots = requests.prompt.shape[0], prompts.tokens.shape[1]
    weights = model.decoding_weights(params)
    prefixes = prefill(model, weights, prompts, prefill_tokens=prefill_tokens, most=most)
    queue = jnp.argsort(jnp.where(requests.budget > 0, -requests.expected_length, jnp.inf)).astype(jnp.int32)
    stopping = _stopping(prompts, requests, stop_table, max_new_tokens)
    call = _Call(
        model, weights, prompts, requests, prefixes, queue, key, stopping, stop_table, rule, end_ids, known_ids,
        min_new_tokens, most,
    )  # fmt: skip
    stages = plan_stages(
        slots=min(slots or num_requests, num_requests),
        prefix_slots=prompt_slots,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
    )
    return _run_stages(call, stages, max_new_tokens)


def _run_stages(call: _Call, stages: Sequence[Stage], max_new_tokens: int) -> Completions:
    """Decodes, stage after stage, with slots and caches of their sizes."""
    progress = _start(call, stages[0], max_new_tokens)
    for i, stage in enumerate(stages):
        fewer = max((s.slots for s in stages[i + 1 :] if s.slots < stage.slots), default=0)
        grows = any(s.capacity > stage.capacity for s in stages[i + 1 :])
        if i:
            progress = _resize(call, progress, stage)
        progress = _run(call, progress, stage, fewer=fewer, grows=grows)
    return progress.completions


def _stopping(
    prompts: Prompts, requests: Requests, stop_table: Int[Array, "states vocabulary"] | None, most: int
) -> Int[Array, "requests"]:
    """The automaton's state after the tokens that each request keeps of an earlier completion."""
    start, kept = jnp.zeros_like(requests.prefix_length), requests.kept
    if stop_table is None or kept is None:
        return start

    def read(i: Int[Array, ""], state: Int[Array, "requests"]) -> Int[Array, "requests"]:
        place = jnp.maximum(requests.prefix_length - kept + i, 0)
        tokens = _read(prompts.tokens, (requests.prompt, place))
        return jnp.where(i < kept, advance(stop_table, state, tokens), state)

    return jax.lax.fori_loop(0, most, read, start)


def _start(call: _Call, stage: Stage, max_new_tokens: int) -> _Progress:
    """The first requests of the queue in the slots, nothing generated."""
    num_requests = call.queue.shape[0]
    request = jnp.where(call.requests.budget[call.queue] > 0, call.queue, num_requests)[: stage.slots]
    cache = call.model.take(call.prefixes, _prefix_row(call, request), stage.capacity)
    zeros = jnp.zeros((num_requests, max_new_tokens), jnp.float32)
    return _Progress(
        slots=_opened(call, request, cache),
        served=jnp.int32(stage.slots),
        completions=Completions(
            tokens=zeros.astype(jnp.int32),
            lengths=jnp.zeros(num_requests, jnp.int32),
            logprobs=zeros,
            processed_logprobs=zeros,
            ended=jnp.zeros(num_requests, bool),
        ),
    )


def _read(values: Int[Array, "..."], index: Any) -> Int[Array, "..."]:
    """The entries at an index; beyond the end the last one, which then counts for nothing."""
    return jnp.asarray(values).at[index].get(mode="clip")


def _prefix_row(call: _Call, request: Int[Array, "slots"]) -> Int[Array, "slots"]:
    return _read(call.requests.prompt, request)


def _opened(call: _Call, request: Int[Array, "slots"], cache: PyTree) -> _Slots:
    """Slots that start on these requests; the last token of the prefix is run again by the first pass."""
    last = jnp.maximum(_read(call.requests.prefix_length, request) - 1, 0)
    token = call.prompts.tokens[_prefix_row(call, request), last]
    stopping = _read(call.stopping, request)
    generated = jnp.zeros_like(request)
    return _Slots(request=request, token=token, position=last, generated=generated, stopping=stopping, cache=cache)


def _resize(call: _Call, progress: _Progress, stage: Stage) -> _Progress:
    """The busy slots first, as many of them as the stage has, in a cache of its length."""
    slots = progress.slots
    if slots.request.shape[0] == stage.slots:
        rows = jnp.arange(stage.slots)
    else:
        rows = jnp.argsort(slots.request == call.queue.shape[0], stable=True)[: stage.slots]
    cache = call.model.take(slots.cache, rows, stage.capacity)
    kept = jax.tree.map(lambda x: x[rows], slots.replace(cache=()))
    return progress.replace(slots=kept.replace(cache=cache))


def _run(call: _Call, progress: _Progress, stage: Stage, *, fewer: int, grows: bool) -> _Progress:
    """Decodes, and refills, until all is done or a later stage takes over.

    Args:
        call: constants.
        progress: with the stage's slots and caches.
        stage: sizes.
        fewer: slots of a later stage, which takes over once the queue is empty and the busy ones fit; 0 if none.
        grows: whether a later stage has longer caches, and takes over once a row needs them.
    """
    num_requests = call.queue.shape[0]
    refill_rows = max(stage.slots // REFILL_SHARE, 1)
    num_live = jnp.sum(call.requests.budget > 0)

    def busy(p: _Progress) -> Int[Array, ""]:
        return jnp.sum(p.slots.request < num_requests)

    def goes_on(p: _Progress) -> Bool[Array, ""]:
        on = call.most((p.served < num_live) | (busy(p) > fewer))
        if grows:
            on &= ~call.most(jnp.any((p.slots.request < num_requests) & (p.slots.position >= stage.capacity)))
        return on

    def refill_due(p: _Progress) -> Bool[Array, ""]:
        return call.most((p.served < num_live) & (stage.slots - busy(p) >= refill_rows))

    def decode_on(p: _Progress) -> _Progress:
        return jax.lax.while_loop(lambda p: goes_on(p) & ~refill_due(p), lambda p: _decode(call, p), p)

    if stage.slots >= num_requests:  # nothing ever waits
        return decode_on(progress)
    return jax.lax.while_loop(goes_on, lambda p: decode_on(_refill(call, p, num_live, refill_rows)), progress)


def _refill(call: _Call, progress: _Progress, num_live: Int[Array, ""], rows: int) -> _Progress:
    """Puts the next requests of the queue into at most `rows` free slots."""
    slots, num_requests = progress.slots, call.queue.shape[0]
    num_slots = slots.request.shape[0]
    free = jnp.nonzero(slots.request == num_requests, size=rows, fill_value=num_slots)[0]
    turn = progress.served + jnp.arange(rows)
    opens = (free < num_slots) & (turn < num_live)
    request = _read(call.queue, turn)
    slot = jnp.where(opens, free, num_slots)  # out of range: dropped
    cache = call.model.copy(slots.cache, slot, call.prefixes, _prefix_row(call, request))
    fresh = _opened(call, request, ())
    kept = jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), slots.replace(cache=()), fresh)
    return progress.replace(slots=kept.replace(cache=cache), served=progress.served + jnp.sum(opens))


def _decode(call: _Call, progress: _Progress) -> _Progress:
    """One token for every busy slot."""
    slots, requests = progress.slots, call.requests
    num_requests = call.queue.shape[0]
    logits, cache = call.model.decode(call.weights, slots.token, slots.position, slots.cache)
    request_id = _read(requests.id, slots.request)
    keys = jax.vmap(lambda i, t: jax.random.fold_in(jax.random.fold_in(call.key, i), t))(request_id, slots.generated)
    is_end = jnp.isin(jnp.arange(logits.shape[-1]), jnp.asarray(call.end_ids))
    length = slots.generated
    if requests.kept is not None:
        length += _read(requests.kept, slots.request)
    tokens, logprobs, processed = choose_tokens(logits, keys, call.rule, _allowed(call, is_end, length))

    ended, stopping = is_end[tokens], slots.stopping
    if call.stop_table is not None:
        stopping = advance(call.stop_table, stopping, tokens)
        ended |= stopping == call.stop_table.shape[0] - 1
    generated = slots.generated + 1
    finished = ended | (generated >= _read(requests.budget, slots.request))
    completions = _record(progress.completions, slots.request, slots.generated, tokens, logprobs, processed, ended)
    slots = _Slots(
        request=jnp.where(finished, num_requests, slots.request),
        token=tokens,
        position=slots.position + 1,
        generated=generated,
        stopping=stopping,
        cache=cache,
    )
    return progress.replace(slots=slots, completions=completions)


def _allowed(
    call: _Call, is_end: Bool[Array, "vocabulary"], length: Int[Array, "slots"]
) -> Bool[Array, "#slots vocabulary"] | None:
    """Which tokens may be drawn by completions of this length; None: all."""
    allowed: Array | None = None
    if call.known_ids is not None and call.known_ids < is_end.shape[0]:
        allowed = (jnp.arange(is_end.shape[0]) < call.known_ids)[None]
    if call.min_new_tokens:
        late_enough = ~(is_end[None] & (length < call.min_new_tokens)[:, None])
        allowed = late_enough if allowed is None else allowed & late_enough
    return allowed


def _record(
    completions: Completions,
    request: Int[Array, "slots"],
    index: Int[Array, "slots"],
    tokens: Int[Array, "slots"],
    logprobs: Float[Array, "slots"],
    processed: Float[Array, "slots"],
    ended: Bool[Array, "slots"],
) -> Completions:
    """Writes the token at `index` of each slot's completion; a free slot's request is out of range and dropped."""

    def write(
        table: Num[Array, "requests completion"], values: Num[Array, "slots"]
    ) -> Num[Array, "requests completion"]:
        return jnp.asarray(table).at[request, index].set(values, mode="drop")

    return Completions(
        tokens=write(completions.tokens, tokens),
        lengths=jnp.asarray(completions.lengths).at[request].set(index + 1, mode="drop"),
        logprobs=write(completions.logprobs, logprobs),
        processed_logprobs=write(completions.processed_logprobs, processed),
        ended=jnp.asarray(completions.ended).at[request].set(ended, mode="drop"),
    )
