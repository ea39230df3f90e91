"""Packing: plans worked by hand and checked for every invariant; scores, values and gradients as without it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from virtual_devices import printed_by

from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.packing import (
    Pieces,
    beginning,
    bucket_width,
    first_fit_decreasing,
    length_blocks,
    pack,
    pack_blocks,
    packed,
    pieces,
    prompt_blocks,
)
from lilo_jax.models.scoring import mean_states, score, score_values
from lilo_jax.models.segments import PLAIN
from lilo_jax.types import Prompts, Sequences

SLOTS, T = 6, 12
CONFIG = DecoderConfig(num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16, vocab_size=13)


def alone(lengths):
    """Sequences that share nothing."""
    lengths = np.asarray(lengths)
    return Pieces(0, np.arange(len(lengths)), np.zeros_like(lengths), lengths)


def in_groups(rng, groups, completions, width, vocabulary=13, examples=0):
    """Sequences whose prompts are those of their groups, in the order given; no two groups have the same prompt.

    Args:
        groups: (tokens of the prompt) of each group.
        completions: (group, tokens of the completion) of each sequence.
        examples: tokens that all begin with, before those.
    """
    first = np.full(examples, vocabulary - 1)
    prompts = [np.concatenate([first, [i], rng.integers(vocabulary, size=n - 1)]) for i, n in enumerate(groups)]
    rows = [np.concatenate([prompts[g], rng.integers(vocabulary, size=n)]) for g, n in completions]
    tokens = np.stack([np.pad(row, (0, width - len(row))) for row in rows]).astype(np.int32)
    lengths = (
        np.array(x, np.int32) for x in ([examples + groups[g] for g, _ in completions], [n for _, n in completions])
    )
    return Sequences(tokens, *lengths)


GROUPS = (6, 1, 3, 4)
COMPLETIONS = ((2, 5), (0, 6), (0, 1), (1, 3), (0, 0), (2, 0), (3, 2), (0, 4), (2, 6), (0, 2))
"""Groups of five, one, three and one, out of order; two completions are empty."""


# ------------------------------------------------------------------------------------------------------------- plans
def test_longest_first_into_the_first_row_with_room():
    assert first_fit_decreasing(alone([4, 8, 1, 4, 2, 1]), 10, 2) == [[1, 4], [0, 3, 2, 5]]
    assert first_fit_decreasing(alone([5, 5, 5]), 10, 3) == [[0, 1], [2], []]
    assert first_fit_decreasing(alone([5, 5, 5]), 10, 1) is None
    assert first_fit_decreasing(alone(np.zeros(0, int)), 10, 1) == [[]]


def test_a_prompt_stands_once_in_each_row_that_continues_it():
    owner = np.array([0, 0, 2, 0, 2])
    shared = Pieces(common=0, owner=owner, shared=np.array([4, 4, 2, 4, 2]), own=np.array([1, 3, 3, 2, 1]))
    assert first_fit_decreasing(shared, 16, 1) == [[1, 3, 0, 2, 4]]  # 4 + 6 and 2 + 4
    assert first_fit_decreasing(shared, 10, 2) == [[1, 3, 0], [2, 4]]
    assert first_fit_decreasing(shared, 9, 3) == [[1, 3], [0], [2, 4]]
    assert first_fit_decreasing(shared, 8, 3) == [[1, 0], [3], [2, 4]]  # the second row has room for 4 + 2 only
    assert first_fit_decreasing(shared, 8, 2) is None
    assert first_fit_decreasing(shared, 6, 9) is None  # 4 + 3 fit nowhere
    examples = shared._replace(common=5)  # each row has five tokens less room
    assert first_fit_decreasing(examples, 13, 3) == [[1, 0], [3], [2, 4]]
    assert first_fit_decreasing(examples, 13, 2) is None


def test_a_plan_worked_by_hand():
    plan = pack(alone([1, 3, 2]), 3, 4, 3)
    assert plan.sequence.tolist() == [[1, 1, 1, 0], [2, 2, -1, -1], [-1] * 4]
    assert plan.segments.own.tolist() == [[0, 0, 0, 1], [0, 0, -1, -1], [-1] * 4] == plan.segments.last.tolist()
    assert plan.segments.positions.tolist() == [[0, 1, 2, 0], [0, 1, 0, 0], [0] * 4]
    assert plan.place.tolist() == [[3, 0, 0], [0, 1, 2], [4, 5, 0]]


def test_a_plan_with_a_shared_prompt_worked_by_hand():
    """Sequences 0, 1 and 3 have a prompt of three tokens; that of 2 begins like theirs and is another."""
    tokens = np.array([[5, 6, 7, 1, 0, 0], [5, 6, 7, 2, 2, 0], [5, 6, 7, 0, 0, 0], [5, 6, 7, 3, 3, 3]], np.int32)
    sequences = Sequences(tokens, np.array([3, 3, 2, 3], np.int32), np.array([1, 2, 1, 3], np.int32))
    cut = pieces(sequences)
    assert cut.common == 2
    assert [x.tolist() for x in cut[1:]] == [[0, 0, 2, 0], [1, 1, 0, 1], [1, 2, 1, 3]]
    plan = pack(cut, 6, 9, 2)
    assert plan.sequence.tolist() == [[3, 3, 3, 3, 3, 3, 1, 1, 0], [2, 2, 2, -1, -1, -1, -1, -1, -1]]
    assert plan.segments.own.tolist() == [[0, 0, 1, 2, 2, 2, 3, 3, 4], [0, 0, 1, -1, -1, -1, -1, -1, -1]]
    assert plan.segments.last.tolist() == [[4, 4, 4, 2, 2, 2, 3, 3, 4], [1, 1, 1, -1, -1, -1, -1, -1, -1]]
    assert plan.segments.positions.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4, 3], [0, 1, 2, 0, 0, 0, 0, 0, 0]]
    assert plan.place[:, :3].tolist() == [[0, 1, 2], [0, 1, 2], [9, 10, 11], [0, 1, 2]]
    assert plan.place[:, 3:].tolist() == [[8, 0, 0], [6, 7, 0], [0, 0, 0], [3, 4, 5]]
    assert [x.tolist() for x in pieces(sequences, share=False)[1:]] == [[0, 1, 2, 3], [0] * 4, [4, 5, 3, 6]]


def test_what_sequences_begin_with():
    tokens, lengths = np.array([[5, 6, 7, 1], [5, 6, 8, 1], [5, 6, 7, 1]]), np.array([4, 4, 3])
    assert beginning(tokens, lengths) == 2
    assert beginning(tokens[::2], lengths[::2]) == 3  # all of the shorter
    assert beginning(tokens[:1], lengths[:1]) == 4
    assert beginning(tokens + np.arange(3)[:, None], lengths) == 0


def seen(plan):
    """For every place the places that it sees."""
    width = plan.sequence.shape[1]
    sees = np.asarray(plan.segments.see(PLAIN, plan.segments))
    return [set((row * width + np.flatnonzero(sees[row, at])).tolist()) for row, at in np.ndindex(*sees.shape[:2])]


@pytest.mark.parametrize("seed", range(8))
def test_every_token_sees_those_before_it_in_its_sequence_and_no_other(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(1, 12, rng.integers(1, 9))
    completions = [(g, rng.integers(0, 10)) for g in range(len(groups)) for _ in range(rng.integers(1, 7))]
    rng.shuffle(completions)
    examples = int(rng.integers(0, 8))
    sequences = in_groups(rng, groups, completions, 32, examples=examples)
    cut, width = pieces(sequences), 40
    assert cut.common == examples or len({g for g, _ in completions}) == 1
    plan = next(plan for rows in range(1, 99) if (plan := pack(cut, 32, width, rows)) is not None)
    sees, tokens = seen(plan), sequences.tokens[plan.sequence, plan.segments.positions].ravel()
    for i, length in enumerate(sequences.prompt_lengths + sequences.completion_lengths):
        places = plan.place[i, :length]
        np.testing.assert_array_equal(tokens[places], sequences.tokens[i, :length])
        np.testing.assert_array_equal(plan.segments.positions.ravel()[places], np.arange(length))
        assert len(np.unique(places // width)) == 1
        assert [sees[place] for place in places] == [set(places[: n + 1].tolist()) for n in range(length)]
    prompts = len({(row, owner) for row, owner in zip(plan.place[:, 0] // width, cut.owner, strict=True)})
    rows = np.any(plan.sequence >= 0, axis=1).sum()
    most = sequences.completion_lengths.sum() + prompts * max(groups) + rows * examples
    assert np.sum(plan.sequence >= 0) <= most


@pytest.mark.parametrize("seed", range(8))
def test_without_shared_prompts_every_token_stands_once_and_rows_are_few(seed):
    rng = np.random.default_rng(seed)
    lengths, slots = rng.integers(1, 33, rng.integers(1, 60)), 32
    fewest = -(-lengths.sum() // slots)
    plan = pack(alone(lengths), 32, slots, len(lengths))
    used = np.any(plan.sequence >= 0, axis=1).sum()
    assert fewest <= used <= len(lengths)
    assert np.sum(plan.sequence >= 0) == lengths.sum()
    assert pack(alone(lengths), 32, slots, int(used)) is not None
    assert pack(alone(lengths), 32, slots, int(used) - 1) is None


def test_rows_are_cut_to_the_smallest_bucket_that_holds_the_longest():
    assert [bucket_width(np.array([1, n]), 26) for n in (1, 7, 8, 13, 14, 20, 21, 26)] == [7, 7, 13, 13, 20, 20, 26, 26]
    assert bucket_width(np.zeros(0, int), 4) == 1


@pytest.mark.parametrize("multiple", [1, 4])
def test_rows_of_like_length_are_computed_together(multiple, monkeypatch):
    monkeypatch.setattr("lilo_jax.models.packing.CALL", 100)
    lengths = np.array([3, 20, 8, 40, 1, 12, 10, 33, 25, 9, 9, 9, 9, 9])
    blocks = list(length_blocks(lengths, 40, multiple=multiple))
    assert sorted(set(np.concatenate([rows for rows, _ in blocks]).tolist())) == list(range(14))
    for rows, width in blocks:
        assert width - 10 < lengths[rows].max() <= width
        assert np.all(lengths[rows] > width - 10)
        assert len(rows) % multiple == 0
        assert len(rows) * width < 100 + multiple * width
    assert len({(len(rows), width) for rows, width in blocks}) == len({width for _, width in blocks}) == 4
    if multiple == 1:  # nine rows of at most 10 tokens; three, one and two of more
        assert [(len(rows), width) for rows, width in blocks] == [(9, 10), (2, 20), (1, 30), (2, 40)]


def of_lengths(lengths):
    """Sequences of different prompts and no completions."""
    tokens = np.repeat(np.arange(len(lengths), dtype=np.int32)[:, None], 12, axis=1)
    return Sequences(tokens, np.asarray(lengths, np.int32), np.zeros(len(lengths), np.int32))


def test_blocks_have_the_smallest_shape_that_holds_them_all():
    sequences = of_lengths([9, 2, 2, 2, 8, 8, 3, 3, 1, 1, 1, 1])
    plans = pack_blocks(sequences, np.arange(12).reshape(3, 1, 4))
    assert plans.sequence.shape == (3, 1, 2, 12)
    assert plans.place.shape == (3, 1, 4, 12)
    assert plans.segments.last is None  # no two of them share a prompt
    np.testing.assert_array_equal(plans.place[1, 0], pack(alone([8, 8, 3, 3]), 12, 12, 2).place)
    assert pack_blocks(sequences, np.arange(8, 12)[None]).sequence.shape == (1, 1, 12)
    assert pack_blocks(sequences, np.array([[0, 4, 5, 8]])).sequence.shape == (1, 3, 12)
    assert pack_blocks(of_lengths([7] * 4), np.arange(4)[None]).sequence.shape == (1, 2, 15)
    assert pack_blocks(of_lengths([10] * 4), np.arange(4)[None]) is None  # 40 of 48 tokens
    assert pack_blocks(sequences, np.arange(8, 12)[None], multiple=2).sequence.shape == (1, 2, 12)
    assert pack_blocks(sequences, np.arange(8, 12)[None], multiple=4) is None


def test_prompts_that_begin_alike_are_packed_and_have_the_means_of_each_alone(monkeypatch):
    monkeypatch.setattr("lilo_jax.models.packing.CALL", 6 * 24)
    rng = np.random.default_rng(0)
    begun = in_groups(rng, rng.integers(2, 6, size=11).tolist(), [(g, 0) for g in range(11)], 24, examples=14)
    prompts = Prompts(begun.tokens, begun.prompt_lengths)
    model = build_model(CONFIG, unconstrained)
    params = model.init(jax.random.key(0))
    found, computed = np.full((11, 16), np.nan), 0
    for rows, block, plan in prompt_blocks(prompts):
        found[rows] = mean_states(packed(model, plan), params, block, layers=(1,))[0]
        computed += plan.sequence.size
    assert computed < 0.75 * prompts.lengths.sum()
    np.testing.assert_allclose(found, mean_states(model, params, prompts, layers=(1,))[0], atol=1e-5)
    little = in_groups(rng, [8] * 11, [(g, 0) for g in range(11)], 24, examples=1)
    assert all(plan is None for _, _, plan in prompt_blocks(Prompts(little.tokens, little.prompt_lengths)))
    assert all(plan is None for _, _, plan in prompt_blocks(prompts, share=False))
    one = Prompts(begun.tokens[:1], begun.prompt_lengths[:1])
    assert [plan for _, _, plan in prompt_blocks(one)] == [None]


def test_a_group_takes_the_tokens_of_one_prompt():
    """Four groups of eight, prompts of 28 and completions of 2 to 4: 988 tokens, or 204 if a prompt counts once."""
    completions = [(g, 2 + i % 3) for g in range(4) for i in range(8)]
    sequences = in_groups(np.random.default_rng(0), (28,) * 4, completions, 32)
    assert pack_blocks(sequences, np.arange(32)[None]).sequence.shape == (1, 4, 64)
    assert pack_blocks(sequences, np.arange(32).reshape(4, 8)).sequence.shape == (4, 1, 64)
    unshared = pack_blocks(sequences, np.arange(32)[None], share=False)
    assert unshared is None  # 31 of 32 tokens are in use
    scattered = pack_blocks(sequences, np.arange(32).reshape(8, 4).T)  # a block has two of each group
    assert scattered.sequence.shape == (4, 2, 80)
    wide = in_groups(np.random.default_rng(0), (256,) * 4, [(g, 64) for g in range(4) for _ in range(8)], 320)
    assert pack_blocks(wide, np.arange(32)[None]).sequence.shape == (1, 4, 800)  # each row a group of 768


# ------------------------------------------------------------------------------------------------- values, gradients
KINDS = {
    "plain": CONFIG,
    "windows": dataclasses.replace(CONFIG, windows=(3, 0), local_rope_theta=100.0),
    "capped": dataclasses.replace(CONFIG, windows=(0, 4), attention_softcap=0.5, logit_softcap=2.0),
    "scanned": dataclasses.replace(CONFIG, train_layers="scanned", remat="layers"),
}


def weighted(model, params, sequences, plan, weights):
    """A sum of log-probs, entropies and values, and these."""
    model = model if plan is None else packed(model, plan)
    scores = score(model, params[0], sequences, completion_width=SLOTS, temperature=0.8, chunk=8)
    values = score_values(model, params[1], sequences, completion_width=SLOTS)
    found = (scores.logprobs, scores.entropy, values)
    return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True)), found


def compare(model, sequences, plans, random_weights):
    """Holds scores, values and gradients of packed rows to those of one sequence per row."""
    params = random_weights(jax.eval_shape(model.init, jax.random.key(0)), seed=1)
    critic = random_weights(jax.eval_shape(model.init_critic, jax.random.key(0)), seed=2)
    weights = np.random.default_rng(0).normal(size=(3, len(sequences.tokens), SLOTS)).astype(np.float32)
    run = jax.jit(jax.value_and_grad(lambda p, *given: weighted(model, p, *given), has_aux=True))
    (_, expected), expected_gradient = run((params, critic), sequences, None, weights)
    assert np.abs(expected[0]).max() > 0.1
    for plan in plans:
        (_, found), gradient = run((params, critic), sequences, plan, weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), gradient, expected_gradient)


EVERY_KIND = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "plain")) for kind in KINDS]
)


@EVERY_KIND
def test_shared_prompts_leave_scores_values_and_gradients_as_they_are(kind, random_weights):
    sequences = in_groups(np.random.default_rng(1), GROUPS, COMPLETIONS, T)
    cut = pieces(sequences)
    assert cut.common == 0
    whole, split = pack(cut, T, 45, 1), pack(cut, T, 15, 4)
    assert np.sum(whole.sequence >= 0) == 6 + 1 + 3 + 4 + 29 < np.sum(split.sequence >= 0)  # a prompt stands twice
    compare(build_model(KINDS[kind], unconstrained), sequences, (whole, split), random_weights)


@pytest.mark.slow
@EVERY_KIND
def test_worked_examples_that_stand_once_leave_them_as_they_are(kind, random_weights):
    sequences = in_groups(np.random.default_rng(2), GROUPS, COMPLETIONS, T + 5, examples=5)
    cut = pieces(sequences)
    assert cut.common == 5
    whole, split = pack(cut, T + 5, 50, 1), pack(cut, T + 5, 20, 4)
    assert np.sum(whole.sequence >= 0) == 5 + 6 + 1 + 3 + 4 + 29 < np.sum(split.sequence >= 0)
    compare(build_model(KINDS[kind], unconstrained), sequences, (whole, split), random_weights)


@pytest.mark.slow
def test_sequences_that_share_no_prompt_may_share_rows(random_weights):
    rng = np.random.default_rng(0)
    prompts, completions = np.array([6, 1, 3, 2, 4, 1], np.int32), np.array([6, 5, 2, 1, 0, 3], np.int32)
    sequences = Sequences(rng.integers(13, size=(6, T)).astype(np.int32), prompts, completions)
    plan = pack(pieces(sequences, share=False), T, T, 4)
    assert np.any(plan.sequence[-1] < 0)
    plain = plan.replace(segments=plan.segments._replace(last=None))
    compare(build_model(KINDS["windows"], unconstrained), sequences, (plain,), random_weights)


@pytest.mark.slow
def test_eight_devices_compute_the_same_from_shared_prompts():
    """Rows over four devices and heads over two, against one sequence per row on the same mesh."""
    script = """
        import jax, numpy as np
        from test_packing import COMPLETIONS, CONFIG, GROUPS, SLOTS, T, in_groups, weighted
        from lilo_jax.device.inference import model_on
        from lilo_jax.device.mesh import MeshConfig, make_mesh, put_replicated, put_rows
        from lilo_jax.models.packing import pack_blocks

        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        model = model_on(CONFIG, mesh)
        sequences = in_groups(np.random.default_rng(1), GROUPS, COMPLETIONS + COMPLETIONS[:6], T)
        plans = pack_blocks(sequences, np.arange(16)[None], multiple=4)
        assert plans.sequence.shape[1] == 4 and plans.segments.last is not None
        plan = put_replicated(mesh, jax.tree.map(lambda x: x[0], plans))
        params = model.init(jax.random.key(0)), model.init_critic(jax.random.key(1))
        weights = np.random.default_rng(0).normal(size=(3, 16, SLOTS)).astype(np.float32)
        run = jax.jit(jax.value_and_grad(lambda p, *given: weighted(model, p, *given), has_aux=True))
        placed = put_rows(mesh, sequences)
        expected, found = (run(params, placed, given, weights) for given in (None, plan))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), found, expected)
    """
    printed_by(script, devices=8)
