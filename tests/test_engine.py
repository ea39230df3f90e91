"""The slot decoder: tokens do not depend on slots, refills, stages, prefill pieces or shared prefixes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.sampling import TokenRule, prefixes, sample, stages, stop_table
from lilo_jax.sampling.stages import Stage, plan_stages
from lilo_jax.types import Completions, Prompts, Requests

VOCAB, NEW, END = 11, 40, 4
CONFIG = DecoderConfig(
    num_layers=1, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=16, vocab_size=VOCAB
)
MODEL = build_model(CONFIG, unconstrained)
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
LENGTHS = np.array([7, 2, 5, 1, 6, 3, 7, 4], np.int32)
PROMPTS = Prompts(tokens=RNG.integers(VOCAB, size=(8, 7)).astype(np.int32), lengths=LENGTHS)
NUM = 72


@pytest.fixture(scope="module")
def params(random_weights):
    return random_weights(jax.eval_shape(MODEL.init, jax.random.key(0)), seed=3, deviation=0.3)


def requests_of(prompt, *, budget, prefix_length=None, expected_length=0.0, ids=None) -> Requests:
    prompt = np.asarray(prompt, np.int32)
    column = lambda values, dtype=np.int32: np.broadcast_to(values, prompt.shape).astype(dtype)  # noqa: E731
    return Requests(
        prompt=prompt,
        prefix_length=column(LENGTHS[prompt] if prefix_length is None else prefix_length),
        id=column(np.arange(len(prompt)) if ids is None else ids),
        budget=column(budget),
        expected_length=column(expected_length, np.float32),
    )


BUDGETS = np.minimum(np.exp(RNG.normal(2.0, 1.0, NUM)).astype(int) + 1, NEW)
BUDGETS[5] = BUDGETS[40] = 0
REQUESTS = requests_of(np.repeat(np.arange(8), 9), budget=BUDGETS)


def run(params, requests=REQUESTS, prompts=PROMPTS, model=MODEL, table=None, **settings) -> Completions:
    settings = {"max_new_tokens": NEW, "rule": TokenRule(), "end_ids": (END,), **settings}
    program = jax.jit(functools.partial(sample, model, **settings))
    return jax.device_get(program(params, prompts, requests, KEY, table))


@pytest.fixture(scope="module")
def all_at_once(params):
    found = run(params)
    assert found.lengths[[5, 40]].tolist() == [0, 0]
    assert found.ended.sum() > 20
    assert len(set(found.lengths.tolist())) > 10
    return found


def assert_same(found: Completions, expected: Completions) -> None:
    """Tokens equal to the last one, log-probs to rounding."""
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.ended, expected.ended)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    np.testing.assert_allclose(found.processed_logprobs, expected.processed_logprobs, atol=1e-5)


# ------------------------------------------------------------------------------------------------- same tokens, always
@pytest.mark.slow
@pytest.mark.parametrize("slots", [4, 16, 64])
def test_tokens_do_not_depend_on_the_number_of_slots(slots, params, all_at_once):
    assert_same(run(params, slots=slots), all_at_once)


@pytest.mark.slow
def test_tokens_do_not_depend_on_the_order_of_service(params, all_at_once):
    expected = np.random.default_rng(1).permutation(NUM)
    assert_same(run(params, REQUESTS.replace(expected_length=expected.astype(np.float32)), slots=16), all_at_once)


def test_tokens_do_not_depend_on_whether_prompts_are_shared(params, all_at_once):
    """Every request with a prompt row of its own."""
    own = Prompts(tokens=PROMPTS.tokens[REQUESTS.prompt], lengths=LENGTHS[REQUESTS.prompt])
    assert_same(run(params, REQUESTS.replace(prompt=np.arange(NUM, dtype=np.int32)), own, slots=16), all_at_once)


def test_children_of_a_trajectory_are_as_if_each_had_its_own_prefix(params):
    """Prefixes of different lengths of one row against the same prefixes in rows of their own, padded with rubbish."""
    prefix = np.tile(np.arange(1, 8), 8)
    prefix = np.minimum(prefix, np.repeat(LENGTHS, 7))
    inside = requests_of(np.repeat(np.arange(8), 7), budget=12, prefix_length=prefix)
    shared = run(params, inside, slots=16, max_new_tokens=12)
    rows = PROMPTS.tokens[inside.prompt]
    rows = np.where(np.arange(7) < prefix[:, None], rows, 9).astype(np.int32)
    alone = inside.replace(prompt=np.arange(56, dtype=np.int32))
    own = Prompts(tokens=rows, lengths=prefix.astype(np.int32))
    assert_same(shared, run(params, alone, own, slots=16, max_new_tokens=12))
    assert len(np.unique(shared.tokens, axis=0)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("prefill_tokens", [3, 20])
def test_tokens_do_not_depend_on_the_pieces_of_prefill(prefill_tokens, params, all_at_once):
    """Pieces of a row, the last of which overlaps; blocks of two rows."""
    assert_same(run(params, prefill_tokens=prefill_tokens), all_at_once)


@pytest.mark.slow
@pytest.mark.parametrize(("common", "prefill_tokens"), [(0, 8), (3, 8), (5, 2048), (7, 6)])
def test_tokens_do_not_depend_on_what_prompts_begin_with_being_run_once(common, prefill_tokens, params, monkeypatch):
    """Prompts that begin alike, of which one may be no longer than that, and a row of padding that does not."""
    tokens = np.where(np.arange(7) < common, PROMPTS.tokens[:1], PROMPTS.tokens)
    lengths = np.maximum(LENGTHS, common + 1).clip(max=7)
    lengths[3], lengths[7] = max(common, 1), 0
    prompts = Prompts(tokens=np.where(np.arange(8)[:, None] == 7, 1, tokens).astype(np.int32), lengths=lengths)
    chosen = np.repeat(np.arange(7), 5)
    requests = requests_of(chosen, budget=6, prefix_length=lengths[chosen])
    expected = run(params, requests, prompts, max_new_tokens=6)
    monkeypatch.setattr(prefixes, "SHORT", 2)
    shared = int(prefixes._beginning(jax.tree.map(jnp.asarray, prompts)))
    assert shared >= common if common else shared <= 1
    assert_same(run(params, requests, prompts, max_new_tokens=6, prefill_tokens=prefill_tokens), expected)
    assert len(np.unique(expected.tokens, axis=0)) > 20


@pytest.mark.slow
def test_tokens_do_not_depend_on_the_stages(params, all_at_once, monkeypatch):
    """Caches that grow by doubling and slots that shrink by two, down to one, against a single stage."""
    monkeypatch.setattr(stages, "LEAST_TOKENS", 1000)
    assert len(plan_stages(slots=NUM, prefix_slots=7, max_new_tokens=NEW)) == 1
    assert_same(run(params, slots=16), all_at_once)
    monkeypatch.undo()
    for name, value in (("LEAST_GROWTH", 5), ("SHRINK", 2), ("LEAST_SLOTS", 1)):
        monkeypatch.setattr(stages, name, value)
    assert len(plan_stages(slots=16, prefix_slots=7, max_new_tokens=NEW)) >= 8
    assert_same(run(params, slots=16), all_at_once)


def test_scanned_layers_draw_the_same_tokens(params, all_at_once):
    scanned = build_model(
        DecoderConfig(**{**CONFIG.__dict__, "decode_layers": "scanned"}), unconstrained, platform="tpu"
    )
    assert_same(run(params, slots=16, model=scanned), all_at_once)


# -------------------------------------------------------------------------------------------------------- busy slots
def counted_passes(params, monkeypatch, requests: Requests, **settings) -> list[int]:
    """The number of slots in each decoding pass."""
    passes: list[int] = []

    def decode(weights, tokens, positions, cache):
        jax.debug.callback(lambda: passes.append(tokens.shape[0]))
        return MODEL.decode(weights, tokens, positions, cache)

    run(params, requests, model=MODEL._replace(decode=decode), **settings)
    jax.effects_barrier()
    return passes


def test_free_slots_are_given_to_waiting_requests(params, monkeypatch):
    """Useful tokens per slot and pass: far above that of batches that wait for their longest row."""
    requests = REQUESTS.replace(expected_length=BUDGETS.astype(np.float32))
    passes = counted_passes(params, monkeypatch, requests, slots=8, end_ids=())
    useful = BUDGETS.sum()
    batches = BUDGETS[np.argsort(-BUDGETS, kind="stable")].reshape(-1, 8).max(axis=1).sum()
    assert useful / sum(passes) > 0.9
    assert sum(passes) <= batches * 8
    unordered = BUDGETS.reshape(-1, 8).max(axis=1).sum() * 8
    assert sum(counted_passes(params, monkeypatch, REQUESTS, slots=8, end_ids=())) < 0.7 * unordered


def test_rows_that_are_left_move_into_fewer_slots(params, monkeypatch):
    budget = np.where(np.arange(NUM) < 3, NEW, 2)
    requests = requests_of(REQUESTS.prompt, budget=budget)
    passes = counted_passes(params, monkeypatch, requests, end_ids=())
    assert passes[:2] == [NUM, NUM]
    assert passes[2:] == [NUM // stages.SHRINK] * (NEW - 2)


def test_decoding_stops_when_all_have_ended(params, monkeypatch):
    assert counted_passes(params, monkeypatch, requests_of([0, 1, 2], budget=3), end_ids=()) == [3] * 3
    assert counted_passes(params, monkeypatch, requests_of([0, 1, 2], budget=0)) == []


# ------------------------------------------------------------------------------------------------------------- stages
def test_stages_by_hand():
    assert plan_stages(slots=256, prefix_slots=40, max_new_tokens=11) == (Stage(256, 51),)
    assert plan_stages(slots=64, prefix_slots=64, max_new_tokens=256) == (Stage(64, 320), Stage(16, 320))
    assert plan_stages(slots=256, prefix_slots=10, max_new_tokens=1000) == (
        Stage(256, 260), Stage(256, 510), Stage(256, 1010), Stage(64, 1010), Stage(16, 1010),
    )  # fmt: skip
    assert plan_stages(slots=4, prefix_slots=1, max_new_tokens=64) == (Stage(4, 65),)


# ------------------------------------------------------------------------------------------ end tokens, stop strings
def test_no_end_token_before_the_least_length(params, all_at_once):
    """Full log-probs are untouched by the rule; processed ones are those of the allowed tokens."""
    found = run(params, min_new_tokens=6)
    live = np.flatnonzero(BUDGETS)
    assert not np.any(found.tokens[:, :6] == END)
    assert np.all(found.lengths[live] >= np.minimum(BUDGETS[live], 6))
    assert np.all((found.lengths[live] == BUDGETS[live]) | found.ended[live])
    assert found.ended.sum() > 10
    early = np.arange(NEW) < np.minimum(found.lengths, 6)[:, None]
    late = (np.arange(NEW) >= 6) & (np.arange(NEW) < found.lengths[:, None])
    assert np.all(found.processed_logprobs[early] > found.logprobs[early])
    np.testing.assert_allclose(found.processed_logprobs[late], found.logprobs[late], atol=1e-5)


def test_a_forced_length_is_the_budget(params):
    found = run(params, min_new_tokens=NEW)
    assert found.lengths.tolist() == BUDGETS.tolist()
    assert not found.ended.any()
    assert END not in [t for row, n in zip(found.tokens, found.lengths, strict=True) for t in row[:n]]


def test_a_stop_string_ends_a_completion_at_the_token_that_completes_it(params):
    """Letters as tokens, two of which hold two letters; the host cuts the unstopped completions."""
    letters = [b"a", b"b", b"c", b"d", b"", b"ab", b"ca", b"e", b"f", b"g", b"h"]
    stops = ["cab", "gg"]
    free = run(params, min_new_tokens=NEW, slots=16)
    found = run(params, min_new_tokens=NEW, slots=16, table=jnp.asarray(stop_table(letters, stops)))
    stopped = 0
    for row, budget in enumerate(BUDGETS):
        text, expected = b"", budget
        for i, token in enumerate(free.tokens[row, :budget]):
            text += letters[token]
            if any(stop.encode() in text for stop in stops):
                expected = i + 1
                break
        ended = any(stop.encode() in text for stop in stops)
        assert found.lengths[row] == expected
        assert found.ended[row] == ended
        np.testing.assert_array_equal(found.tokens[row, :expected], free.tokens[row, :expected])
        assert not found.tokens[row, expected:].any()
        stopped += ended and expected < budget
    assert stopped >= 5


def test_a_slot_that_is_refilled_forgets_the_stop_string_it_was_in(params):
    """With one slot, a request that ends in the middle of a stop string is followed by one that begins with its end."""
    letters = [bytes([97 + i]) for i in range(VOCAB)]
    requests = requests_of([0, 1], budget=[3, 4])
    free = run(params, requests, min_new_tokens=NEW)
    first, second = free.tokens[0, :3], free.tokens[1, :4]
    across = "".join(chr(97 + t) for t in (first[2], second[0]))
    inside = "".join(chr(97 + t) for t in second[1:3])
    table = jnp.asarray(stop_table(letters, [across, inside]))
    found = run(params, requests, min_new_tokens=NEW, slots=1, table=table)
    text = lambda ids: "".join(chr(97 + t) for t in ids)  # noqa: E731
    assert across not in text(first)
    assert found.lengths[0] == 3
    ends = min(text(second).find(s) + 2 for s in (across, inside) if s in text(second))
    assert found.lengths[1] == ends


# ------------------------------------------------------------------------------------------ completions taken up again
def test_a_completion_taken_up_again_goes_on_as_it_would_have(params):
    """Greedily, cut after each of its tokens: least length and a stop string that is half there count what was kept."""
    settings = {"rule": TokenRule(top_k=1), "max_new_tokens": 12, "min_new_tokens": 6}
    plain = run(params, requests_of(np.arange(8), budget=12), **settings)
    stop = "".join(chr(97 + t) for t in plain.tokens[0, 7:9])
    table = jnp.asarray(stop_table([bytes([97 + i]) for i in range(VOCAB)], [stop]))
    parents = run(params, requests_of(np.arange(8), budget=12), table=table, **settings)
    assert parents.ended[0]
    assert parents.lengths[0] <= 9
    places = [(row, k) for row in range(8) for k in range(1, parents.lengths[row])]
    tokens = np.zeros((8, 7 + 12), np.int32)
    for row in range(8):
        tokens[row, : LENGTHS[row]] = PROMPTS.tokens[row, : LENGTHS[row]]
        tokens[row, LENGTHS[row] : LENGTHS[row] + 12] = parents.tokens[row]
    rows, kept = np.array(places).T
    prompts = Prompts(tokens=tokens, lengths=LENGTHS + parents.lengths)
    requests = requests_of(rows, budget=12 - kept, prefix_length=LENGTHS[rows] + kept)
    requests = requests.replace(kept=kept.astype(np.int32))
    found = run(params, requests, prompts, table=table, slots=16, max_length=19, **settings)
    for i, (row, k) in enumerate(places):
        rest = parents.lengths[row] - k
        assert found.lengths[i] == rest
        np.testing.assert_array_equal(found.tokens[i, :rest], parents.tokens[row, k : parents.lengths[row]])
        assert found.ended[i] == parents.ended[row]
    forgetful = run(params, requests.replace(kept=None), prompts, table=table, slots=16, max_length=19, **settings)
    assert np.any(forgetful.lengths != found.lengths)  # what the kept tokens are for


def test_caches_are_no_longer_than_the_longest_row_needs(params, all_at_once, monkeypatch):
    assert plan_stages(slots=4, prefix_slots=19, max_new_tokens=12, max_length=19) == (Stage(4, 19),)
    assert plan_stages(slots=4, prefix_slots=900, max_new_tokens=1000, max_length=1000) == (Stage(4, 1000),)
    monkeypatch.setattr(stages, "LEAST_GROWTH", 8)
    assert [s.capacity for s in plan_stages(slots=4, prefix_slots=7, max_new_tokens=16, max_length=20)] == [15, 20]
    assert_same(run(params, slots=16, max_length=7 + NEW), all_at_once)
