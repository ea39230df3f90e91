"""The sampler: greedy, log-probs, frequencies, truncation, independence of requests, budgets and end tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.scoring import score
from lilo_jax.sampling import TokenRule, sample
from lilo_jax.types import Completions, Prompts, Requests, Sequences

VOCAB, SLOTS = 9, 6
MODEL = build_model(
    DecoderConfig(
        num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16, vocab_size=VOCAB
    ),
    unconstrained,
)  # fmt: skip
KEY = jax.random.key(7)
PROMPTS = Prompts(
    tokens=np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [3, 0, 0, 0, 0], [2, 2, 8, 1, 0]], np.int32),
    lengths=np.array([5, 3, 1, 4], np.int32),
)


@pytest.fixture(scope="module")
def params(random_weights):
    return random_weights(jax.eval_shape(MODEL.init, jax.random.key(0)), seed=3, deviation=0.35)


def requests_of(prompt, ids=None, budget=SLOTS, prefix_length=None, expected_length=0.0) -> Requests:
    prompt = np.asarray(prompt, np.int32)
    ids = np.arange(len(prompt)) if ids is None else np.asarray(ids)
    prefix_length = PROMPTS.lengths[prompt] if prefix_length is None else np.asarray(prefix_length, np.int32)
    return Requests(
        prompt=prompt,
        prefix_length=prefix_length,
        id=ids.astype(np.int32),
        budget=np.broadcast_to(budget, prompt.shape).astype(np.int32),
        expected_length=np.broadcast_to(expected_length, prompt.shape).astype(np.float32),
    )


@functools.cache
def sampler(*, temperature=1.0, top_p=1.0, end_ids=(), max_new_tokens=SLOTS, bonus=(), **settings):
    """The jitted sampler; `bonus` (token, amount) adds to one token's logit."""
    model = MODEL
    if bonus:
        extra = bonus[1] * jax.nn.one_hot(bonus[0], VOCAB)

        def decode(*args):
            logits, cache = MODEL.decode(*args)
            return logits + jnp.broadcast_to(extra, logits.shape), cache

        model = MODEL._replace(decode=decode)
    rule = TokenRule(temperature, top_p)
    settings |= {"max_new_tokens": max_new_tokens, "rule": rule, "end_ids": end_ids}
    run = jax.jit(functools.partial(sample, model, **settings))
    return lambda *args: jax.device_get(run(*args))


@functools.cache
def jitted_hidden():
    return jax.jit(MODEL.hidden)


def full_logits(params, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(MODEL.logits(params, jitted_hidden()(params, tokens)), np.float64)


def sequences_of(prompts: Prompts, requests: Requests, completions: Completions) -> Sequences:
    """Prompt and completion of each request, end to end."""
    lengths = prompts.lengths[requests.prompt]
    tokens = np.zeros((len(lengths), prompts.tokens.shape[1] + completions.tokens.shape[1]), np.int32)
    for row, (prompt, start, length) in enumerate(zip(requests.prompt, lengths, completions.lengths, strict=True)):
        tokens[row, :start] = prompts.tokens[prompt, :start]
        tokens[row, start : start + length] = completions.tokens[row, :length]
    return Sequences(tokens=tokens, prompt_lengths=lengths, completion_lengths=completions.lengths)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - scipy.special.logsumexp(x, axis=-1, keepdims=True)


def nucleus_reference(logprobs: np.ndarray, top_p: float) -> np.ndarray:
    """One row at a time: likely tokens first (ties by id) until their mass reaches top_p, renormalised."""
    out = np.full(logprobs.shape, -np.inf)
    for row, values in enumerate(logprobs):
        kept, mass = [], 0.0
        for token in sorted(range(len(values)), key=lambda t: (-values[t], t)):
            if mass >= top_p:
                break
            kept.append(token)
            mass += np.exp(values[token])
        out[row, kept] = log_softmax(values[kept])
    return out


# ------------------------------------------------------------------------------------------------------- what is drawn
def test_greedy_tokens_are_the_argmax_of_full_forward_passes(params):
    requests = requests_of([0, 1, 2, 3])
    found = sampler(temperature=0.0)(params, PROMPTS, requests, KEY)
    assert found.lengths.tolist() == [SLOTS] * 4
    sequences = sequences_of(PROMPTS, requests, found)
    logits = full_logits(params, sequences.tokens)
    for row, start in enumerate(sequences.prompt_lengths):
        before = logits[row, start - 1 : start - 1 + SLOTS]
        assert found.tokens[row].tolist() == before.argmax(axis=-1).tolist()
        np.testing.assert_allclose(found.logprobs[row], log_softmax(before).max(axis=-1), atol=1e-5)
    assert np.all(found.processed_logprobs == 0)
    assert len(np.unique(found.tokens)) > 2


def test_greedy_ignores_the_key(params):
    first, second = (
        sampler(temperature=0.0)(params, PROMPTS, requests_of([0, 1, 2, 3]), jax.random.key(s)) for s in (1, 2)
    )
    np.testing.assert_array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.3, 0.8)])
def test_sampler_logprobs_equal_teacher_forced_scores(params, temperature, top_p):
    """Both the full distribution, against `score`, and the truncated one, against NumPy."""
    requests = requests_of([0, 1, 2, 3] * 8)
    found = sampler(temperature=temperature, top_p=top_p, end_ids=(4,))(params, PROMPTS, requests, KEY)
    sequences = sequences_of(PROMPTS, requests, found)
    assert len(set(found.lengths.tolist())) > 2
    scores = jax.jit(functools.partial(score, MODEL, completion_width=SLOTS, temperature=temperature, chunk=4))(
        params, sequences
    )
    np.testing.assert_allclose(found.logprobs, scores.logprobs, atol=1e-5)
    assert found.logprobs.min() < -1

    logits = full_logits(params, sequences.tokens) / temperature
    for row, (start, length) in enumerate(zip(sequences.prompt_lengths, found.lengths, strict=True)):
        truncated = nucleus_reference(log_softmax(logits[row, start - 1 : start - 1 + length]), top_p)
        expected = truncated[np.arange(length), found.tokens[row, :length]]
        np.testing.assert_allclose(found.processed_logprobs[row, :length], expected, atol=1e-4)
        assert np.all(found.processed_logprobs[row, length:] == 0)
        assert np.all(found.tokens[row, length:] == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.3, 0.9)])
def test_frequencies_follow_temperature_and_top_p(params, temperature, top_p):
    """Chi-square of the first token, and of the pair of both tokens, over many requests of one prompt."""
    count = 16384
    found = sampler(temperature=temperature, top_p=top_p, max_new_tokens=2)(
        params, PROMPTS, requests_of([3] * count), KEY
    )
    prompt = PROMPTS.tokens[3, : PROMPTS.lengths[3]]

    def truncated(tokens: np.ndarray) -> np.ndarray:
        return np.exp(nucleus_reference(log_softmax(full_logits(params, tokens)[:, -1] / temperature), top_p))

    first = truncated(prompt[None])[0]
    second = truncated(np.stack([np.append(prompt, token) for token in range(VOCAB)]))
    for observed, expected in (
        (np.bincount(found.tokens[:, 0], minlength=VOCAB), first),
        (np.bincount(found.tokens[:, 0] * VOCAB + found.tokens[:, 1], minlength=VOCAB**2), (first[:, None] * second)),
    ):
        expected = count * expected.ravel()
        assert observed[expected == 0].sum() == 0
        common = expected >= 5
        cells = [np.append(x[common], x[~common].sum()) for x in (observed, expected)]
        kept = cells[1] > 0
        assert kept.sum() >= 3
        assert scipy.stats.chisquare(cells[0][kept], cells[1][kept]).pvalue > 0.001
        # the test has the power to tell this distribution from a slightly flatter one
        flatter = expected**0.8 * (expected > 0)
        flatter = np.append(flatter[common], flatter[~common].sum())[kept]
        assert scipy.stats.chisquare(cells[0][kept], flatter * count / flatter.sum()).pvalue < 1e-6
    assert bool((first == 0).any()) == (top_p < 1)


# ------------------------------------------------------------------------------------------------------- independence
def by_id(requests: Requests, completions: Completions) -> dict[int, list[int]]:
    rows = np.flatnonzero(requests.budget)
    return {int(requests.id[r]): completions.tokens[r, : completions.lengths[r]].tolist() for r in rows}


@pytest.fixture(scope="module")
def base(params):
    requests = requests_of(np.repeat([0, 1, 2, 3], 4), ids=100 + np.arange(16))
    return requests, sampler(end_ids=(4,))(params, PROMPTS, requests, KEY)


def test_tokens_of_a_request_do_not_depend_on_the_other_requests_or_their_order(params, base):
    requests, found = base
    order = np.random.default_rng(0).permutation(16)
    shuffled = jax.tree.map(lambda x: x[order], requests)
    assert by_id(shuffled, sampler(end_ids=(4,))(params, PROMPTS, shuffled, KEY)) == by_id(requests, found)

    others = requests.replace(
        prompt=np.where(np.arange(16) < 8, requests.prompt, 3),
        id=np.where(np.arange(16) < 8, requests.id, requests.id * 7),
    )
    mixed = by_id(others, sampler(end_ids=(4,))(params, PROMPTS, others, KEY))
    expected = by_id(requests, found)
    assert {i: mixed[i] for i in range(100, 108)} == {i: expected[i] for i in range(100, 108)}


def test_tokens_of_a_request_do_not_depend_on_padding_or_on_the_number_of_rows(params, base):
    requests, found = base
    expected = by_id(requests, found)
    few = jax.tree.map(lambda x: x[5:8], requests)
    assert by_id(few, sampler(end_ids=(4,))(params, PROMPTS, few, KEY)) == {i: expected[i] for i in (105, 106, 107)}

    padded_prompts = Prompts(
        tokens=np.where(
            np.arange(8) < np.append(PROMPTS.lengths, [0, 0])[:, None], np.pad(PROMPTS.tokens, ((0, 2), (0, 3))), 8
        ),
        lengths=np.append(PROMPTS.lengths, [0, 0]).astype(np.int32),
    )
    padded = jax.tree.map(lambda x: np.concatenate([x, 0 * x[:4]]), requests)
    again = sampler(end_ids=(4,))(params, padded_prompts, padded, KEY)
    assert by_id(padded, again) == expected
    np.testing.assert_allclose(again.logprobs[:16], found.logprobs, atol=1e-5)
    assert again.lengths[16:].tolist() == [0] * 4


def test_a_moved_prompt_row_and_a_repeated_prompt_change_nothing(params, base):
    requests, found = base
    order = np.array([2, 0, 3, 1])
    moved = jax.tree.map(lambda x: x[order], PROMPTS)
    again = requests.replace(prompt=np.argsort(order)[requests.prompt].astype(np.int32))
    assert by_id(again, sampler(end_ids=(4,))(params, moved, again, KEY)) == by_id(requests, found)


def test_different_ids_and_different_keys_draw_different_tokens(params):
    same_prompt = requests_of([0] * 16, ids=np.arange(16))
    first = sampler(end_ids=(4,))(params, PROMPTS, same_prompt, KEY)
    assert len(set(map(tuple, by_id(same_prompt, first).values()))) >= 8
    repeated = requests_of([0] * 16, ids=[5] * 16)
    assert len(np.unique(sampler(end_ids=(4,))(params, PROMPTS, repeated, KEY).tokens, axis=0)) == 1
    other_key = sampler(end_ids=(4,))(params, PROMPTS, same_prompt, jax.random.key(8))
    assert np.mean(np.any(other_key.tokens != first.tokens, axis=1)) > 0.5


# --------------------------------------------------------------------------------------------- budgets and end tokens
def test_every_request_has_its_own_budget(params):
    budgets = np.array([0, 1, 2, 3, SLOTS, 0, 4, 5])
    requests = requests_of([0, 1, 2, 3, 0, 1, 2, 3], budget=budgets)
    found = sampler()(params, PROMPTS, requests, KEY)
    assert found.lengths.tolist() == budgets.tolist()
    assert not found.ended.any()
    beyond = np.arange(SLOTS) >= budgets[:, None]
    for values in (found.tokens, found.logprobs, found.processed_logprobs):
        assert np.all(values[beyond] == 0)
    assert np.all(found.logprobs[~beyond] < 0)
    longer = sampler()(params, PROMPTS, requests_of([0, 1, 2, 3, 0, 1, 2, 3]), KEY)
    np.testing.assert_array_equal(found.tokens[~beyond], longer.tokens[~beyond])


def test_nothing_is_decoded_if_every_budget_is_zero(params):
    found = sampler()(params, PROMPTS, requests_of([0] * 8, budget=0), KEY)
    assert found.lengths.tolist() == [0] * 8
    assert not found.ended.any()
    assert not found.tokens.any()


def test_completions_have_length_one_if_every_token_ends_them(params):
    found = sampler(end_ids=tuple(range(VOCAB)))(params, PROMPTS, requests_of([0, 1, 2, 3]), KEY)
    assert found.lengths.tolist() == [1] * 4
    assert found.ended.all()
    assert np.all(found.logprobs[:, 0] < 0)
    assert not found.logprobs[:, 1:].any()


def test_an_end_token_equal_to_the_padding_counts_by_length(params):
    """Token 0 fills the padding; as the end token it is counted and has its log-prob."""
    found = sampler(bonus=(0, 1e4), end_ids=(0,))(params, PROMPTS, requests_of([0, 1, 2, 3]), KEY)
    assert found.lengths.tolist() == [1] * 4
    assert found.ended.all()
    np.testing.assert_allclose(found.logprobs[:, 0], 0, atol=1e-6)

    never = sampler(bonus=(0, 1e4), end_ids=(4,))(params, PROMPTS, requests_of([0, 1, 2, 3], budget=[6, 5, 4, 1]), KEY)
    assert never.lengths.tolist() == [6, 5, 4, 1]
    assert not never.ended.any()
    assert not never.tokens.any()


def test_a_model_that_never_ends_is_truncated_by_its_budget(params):
    found = sampler(bonus=(4, -1e4), end_ids=(4,))(params, PROMPTS, requests_of([0, 1, 2, 3], budget=[6, 3, 6, 2]), KEY)
    assert found.lengths.tolist() == [6, 3, 6, 2]
    assert not found.ended.any()
    assert 4 not in found.tokens


def test_an_end_token_at_the_very_last_slot_has_ended(params):
    requests = requests_of([0, 1, 2, 3] * 16)
    found = sampler(end_ids=(4, 6))(params, PROMPTS, requests, KEY)
    last = found.tokens[np.arange(64), found.lengths - 1]
    np.testing.assert_array_equal(found.ended, np.isin(last, [4, 6]))
    assert np.any(found.ended & (found.lengths == SLOTS))
    assert np.any(~found.ended)
    assert np.all(found.lengths[~found.ended] == SLOTS)
    for row in range(64):
        assert not set(found.tokens[row, : found.lengths[row] - 1].tolist()) & {4, 6}


def test_a_prompt_is_continued_at_its_own_length(params):
    """A prompt of one token with padding gives the same as the same prompt alone in a narrower array."""
    narrow = Prompts(tokens=PROMPTS.tokens[2:3, :1], lengths=PROMPTS.lengths[2:3])
    alone = sampler(temperature=0.0)(params, narrow, requests_of([0]), KEY)
    together = sampler(temperature=0.0)(params, PROMPTS, requests_of([0, 1, 2, 3]), KEY)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[2])
    assert jnp.isfinite(alone.logprobs).all()
