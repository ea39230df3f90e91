"""Packing: plans worked by hand and checked for every invariant; scores, values and gradients as without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.packing import bucket_width, first_fit_decreasing, pack, pack_blocks, packed
from lilo_jax.models.scoring import score, score_values
from lilo_jax.types import Sequences

SLOTS, T = 6, 12
CONFIG = DecoderConfig(num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16, vocab_size=13)
MODEL = build_model(CONFIG, unconstrained)


def test_longest_first_into_the_first_row_with_room():
    assert first_fit_decreasing(np.array([4, 8, 1, 4, 2, 1]), 10) == [[1, 4], [0, 3, 2, 5]]
    assert first_fit_decreasing(np.array([5, 5, 5]), 10) == [[0, 1], [2]]
    assert first_fit_decreasing(np.zeros(0, int), 10) == []


def test_a_plan_worked_by_hand():
    plan = pack(np.array([1, 3, 2]), 4, 3)
    assert plan.sequence.tolist() == [[1, 1, 1, 0], [2, 2, -1, -1], [-1] * 4]
    assert plan.position.tolist() == [[0, 1, 2, 0], [0, 1, 0, 0], [0] * 4]
    assert plan.start.tolist() == [3, 0, 4]


@pytest.mark.parametrize("seed", range(8))
def test_every_token_stands_once_and_rows_are_few(seed):
    rng = np.random.default_rng(seed)
    lengths, slots = rng.integers(1, 33, rng.integers(1, 60)), 32
    fewest = -(-lengths.sum() // slots)
    plan = pack(lengths, slots, len(lengths))
    used = np.any(plan.sequence >= 0, axis=1).sum()
    assert fewest <= used <= len(lengths)
    flat_sequence, flat_slot = plan.sequence.ravel(), plan.position.ravel()
    for sequence, length in enumerate(lengths):
        places = plan.start[sequence] + np.arange(length)
        assert np.all(flat_sequence[places] == sequence)
        np.testing.assert_array_equal(flat_slot[places], np.arange(length))
        assert len(np.unique(places // slots)) == 1
    assert np.sum(flat_sequence >= 0) == lengths.sum()
    assert pack(lengths, slots, int(used)) is not None
    assert pack(lengths, slots, int(used) - 1) is None


def test_scores_values_and_gradients_are_those_of_one_sequence_per_row(random_weights):
    rng = np.random.default_rng(0)
    prompts, completions = np.array([6, 1, 3, 2, 4, 1], np.int32), np.array([6, 5, 2, 1, 0, 3], np.int32)
    sequences = Sequences(rng.integers(13, size=(6, T)).astype(np.int32), prompts, completions)
    params = random_weights(jax.eval_shape(MODEL.init, jax.random.key(0)), seed=1)
    critic = random_weights(jax.eval_shape(MODEL.init_critic, jax.random.key(0)), seed=2)
    weights = rng.normal(size=(3, 6, SLOTS)).astype(np.float32)
    plan = pack(prompts + completions, T, 4)
    assert np.any(plan.sequence[-1] < 0)

    def loss(params, sequences, plan):
        model = MODEL if plan is None else packed(MODEL, plan)
        scores = score(model, params[0], sequences, completion_width=SLOTS, temperature=0.8, chunk=8)
        values = score_values(model, params[1], sequences, completion_width=SLOTS)
        found = (scores.logprobs, scores.entropy, values)
        return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True)), found

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, expected), expected_gradient = run((params, critic), sequences, None)
    (_, found), gradient = run((params, critic), sequences, plan)
    assert np.abs(expected[0][0]).min() > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), gradient, expected_gradient)


def test_rows_are_cut_to_the_smallest_bucket_that_holds_the_longest():
    assert [bucket_width(np.array([1, n]), 26) for n in (1, 7, 8, 13, 14, 20, 21, 26)] == [7, 7, 13, 13, 20, 20, 26, 26]
    assert bucket_width(np.zeros(0, int), 4) == 1


def test_blocks_share_the_smallest_number_of_rows_that_holds_them_all():
    lengths = np.array([9, 2, 2, 2, 8, 8, 3, 3, 1, 1, 1, 1])
    plans = pack_blocks(lengths, np.arange(12).reshape(3, 1, 4), 12)
    assert plans.sequence.shape == (3, 1, 2, 12)
    assert plans.start.shape == (3, 1, 4)
    np.testing.assert_array_equal(plans.start[1, 0], pack(lengths[4:8], 12, 2).start)
    assert pack_blocks(lengths, np.arange(8, 12)[None], 12).sequence.shape == (1, 1, 12)
    assert pack_blocks(lengths, np.array([[0, 4, 5, 8]]), 12).sequence.shape == (1, 3, 12)
    assert pack_blocks(np.full(4, 7), np.arange(4)[None], 12) is None  # no two of them share a row
    assert pack_blocks(lengths, np.arange(8, 12)[None], 12, multiple=2).sequence.shape == (1, 2, 12)
    assert pack_blocks(lengths, np.arange(8, 12)[None], 12, multiple=4) is None
