"""Teacher-forced log-probs, entropies and values against plain NumPy, for every chunk size, with gradients."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lilo_jax.device.gradients import gradient_products
from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.row_shards import ALONE
from lilo_jax.models.scoring import _Chunks, _Streaming, completion_mask, score, score_values, streamed
from lilo_jax.types import Sequences

SLOTS = 5
MODEL = build_model(
    DecoderConfig(num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16, vocab_size=13),
    unconstrained,
)


@pytest.fixture(scope="module")
def params(random_weights):
    return random_weights(jax.eval_shape(MODEL.init, jax.random.key(0)), seed=1, deviation=0.4)


@pytest.fixture(scope="module")
def critic(random_weights):
    return random_weights(jax.eval_shape(MODEL.init_critic, jax.random.key(0)), seed=2, deviation=0.4)


@pytest.fixture(scope="module")
def sequences():
    """Rows that fill the array, that are short, that have one token, and none."""
    tokens = np.random.default_rng(0).integers(13, size=(5, 9)).astype(np.int32)
    return Sequences(
        tokens=tokens,
        prompt_lengths=np.array([4, 1, 3, 8, 2], np.int32),
        completion_lengths=np.array([5, 5, 2, 1, 0], np.int32),
    )


@functools.cache
def jitted_score(temperature: float = 1.0, chunk: int = 128, slots: int = SLOTS):
    return jax.jit(functools.partial(score, MODEL, completion_width=slots, temperature=temperature, chunk=chunk))


jitted_hidden = jax.jit(MODEL.hidden)


def reference(params, sequences: Sequences, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs and entropies from the log-softmax of all logits, a token at a time."""
    logits = np.asarray(MODEL.logits(params, jitted_hidden(params, sequences.tokens)), np.float64)
    logprobs, entropy = np.zeros((2, len(sequences.tokens), SLOTS))
    for row, start in enumerate(sequences.prompt_lengths):
        for i in range(sequences.completion_lengths[row]):
            distribution = scipy.special.log_softmax(logits[row, start + i - 1] / temperature)
            logprobs[row, i] = distribution[sequences.tokens[row, start + i]]
            entropy[row, i] = -np.sum(np.exp(distribution) * distribution)
    return logprobs, entropy


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_scores_equal_the_log_softmax_of_full_logits(params, sequences, temperature):
    found = jitted_score(temperature)(params, sequences)
    logprobs, entropy = reference(params, sequences, temperature)
    np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-5)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-5)
    assert np.all(logprobs[0] < -0.05)
    assert np.all(entropy[0] > 0.05)


def test_temperatures_differ(params, sequences):
    cold, hot = jitted_score(0.6)(params, sequences), jitted_score(1.7)(params, sequences)
    live = np.asarray(completion_mask(sequences, SLOTS))
    assert np.all(np.asarray(cold.entropy)[live] < np.asarray(hot.entropy)[live])
    assert np.abs(cold.logprobs - hot.logprobs).max() > 0.2


def test_mask_goes_by_length():
    lengths = np.array([0, 1, 3, 4], np.int32)
    sequences = Sequences(
        tokens=np.zeros((4, 8), np.int32), prompt_lengths=np.ones(4, np.int32), completion_lengths=lengths
    )
    expected = [[False] * 4, [True] + [False] * 3, [True] * 3 + [False], [True] * 4]
    assert completion_mask(sequences, 4).tolist() == expected


@functools.cache
def loss_and_gradient(chunk: int):
    """A loss of log-probs and entropies with uneven weights."""
    weights = np.linspace(0.5, 2, 5 * SLOTS, dtype=np.float32).reshape(5, SLOTS)

    def loss(params, sequences):
        found = score(MODEL, params, sequences, completion_width=SLOTS, temperature=0.8, chunk=chunk)
        return jnp.sum(weights * (found.logprobs + 0.3 * found.entropy)), found

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_chunk_sizes_agree_in_values_and_gradients_and_with_the_plain_computation(params, sequences):
    weights = np.linspace(0.5, 2, 5 * SLOTS, dtype=np.float32).reshape(5, SLOTS)

    def plain(params):
        """All logits at once, without chunks or recomputation."""
        logprobs = jax.nn.log_softmax(MODEL.logits(params, MODEL.hidden(params, sequences.tokens)) / 0.8)
        slots = np.minimum(sequences.prompt_lengths[:, None] + np.arange(SLOTS), 8)
        rows = np.arange(5)[:, None]
        at = logprobs[rows, slots - 1]
        entropy = -jnp.sum(jnp.exp(at) * at, axis=-1)
        mask = np.arange(SLOTS) < sequences.completion_lengths[:, None]
        taken = jnp.take_along_axis(at, sequences.tokens[rows, slots][..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(mask, weights * (taken + 0.3 * entropy), 0))

    value, gradient = jax.jit(jax.value_and_grad(plain))(params)
    assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradient))
    for chunk in (1, 2, 10, 128):
        (chunked_value, found), chunked_gradient = loss_and_gradient(chunk)(params, sequences)
        np.testing.assert_allclose(chunked_value, value, rtol=1e-5)
        np.testing.assert_allclose(found.logprobs, reference(params, sequences, 0.8)[0], atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), chunked_gradient, gradient)


@pytest.mark.parametrize("kind", ["tokens", "responses"])
def test_products_of_gradients_are_those_of_plain_gradients(params, sequences, kind):
    """The first three rows: their Gram matrix from a backward pass for each sum, flattened, in float64."""
    rows = jax.tree.map(lambda x: x[:3], sequences)
    sums = np.eye(SLOTS) if kind == "tokens" else np.ones((1, SLOTS))

    def parts(params):
        return jnp.ravel(jitted_score(0.8)(params, rows).logprobs @ jnp.asarray(sums.T, jnp.float32))

    gradients = [jax.grad(lambda params, at=at: parts(params)[at])(params) for at in range(3 * len(sums))]
    flat = np.array([np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in gradients], np.float64)
    found = gradient_products(MODEL, sums, temperature=0.8)(params, rows)
    expected = flat @ flat.T
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    if kind == "tokens":
        assert not np.any(found[2 * SLOTS + 2 :])  # beyond the third response


def dense(z, targets):
    """Log-probs and entropies by automatic differentiation's own means."""
    logprobs = jax.nn.log_softmax(z)
    return jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0], -jnp.sum(
        jnp.exp(logprobs) * logprobs, axis=-1
    )


def test_streamed_gradients_in_float64_are_those_of_automatic_differentiation():
    """Each output alone and both together, both factors of the projection; one chunk is near-deterministic.

    What stands outside of the mask is never read.
    """
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        states, head = jnp.asarray(rng.normal(size=(4, 3, 6))), jnp.asarray(rng.normal(size=(6, 11)))
        states = states.at[0].multiply(30)
        targets = jnp.asarray(rng.integers(11, size=(4, 3)))
        mask = jnp.asarray(rng.random((4, 3)) < 0.7)
        weights = jnp.where(mask[None], jnp.asarray(rng.normal(size=(2, 4, 3))), 0)

        def loss(outputs, share):
            return jnp.sum(weights[0] * outputs[0] * (1 - share) + weights[1] * outputs[1] * share)

        def ours(factors, share):
            how = _Streaming(lambda head, states: states @ head, ALONE, temperature=0.7, chunk=4)
            padded = jnp.where(mask[:, :, None], factors[0], jnp.nan)
            return loss(streamed(how, factors[1], padded, targets, mask), share)

        def plain(factors, share):
            return loss(dense(factors[0] @ factors[1] / 0.7, targets), share)

        found, expected = (jax.jit(jax.value_and_grad(f)) for f in (ours, plain))
        for share in (0.0, 0.4, 1.0):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
                found((states, head), share),
                expected((states, head), share),
            )


@pytest.mark.parametrize("share", [0, 0.3, 1])
@pytest.mark.parametrize(("rows", "slots", "chunk"), [(4, 7, 8), (4, 7, 1), (6, 3, 4), (3, 5, 100), (64, 32, 1000)])
def test_no_more_tokens_than_a_chunk_are_projected_at_a_time_and_each_comes_back_to_its_place(
    rows, slots, chunk, share
):
    rng = np.random.default_rng(rows)
    x, mask = rng.normal(size=(rows, slots)), rng.random((rows, slots)) < share
    cut = _Chunks.of(jnp.asarray(mask), chunk)
    assert cut.size <= chunk
    assert mask.sum() <= cut.number * cut.size < mask.sum() + cut.size
    taken = [cut.take(jnp.asarray(x), jnp.int32(i)) for i in range(cut.number)]
    np.testing.assert_allclose(np.concatenate([[], *taken])[: mask.sum()], x[mask], rtol=1e-6)
    found = jnp.full((rows, slots), -9.0)
    for i, values in enumerate(taken):
        found = cut.put(found, jnp.int32(i), values)
    np.testing.assert_allclose(found, np.where(mask, x, -9), rtol=1e-6)


def test_padding_columns_change_nothing(params, sequences):
    """More token slots with rubbish in them, and more completion slots."""
    before = jitted_score()(params, sequences)
    rubbish = np.random.default_rng(1).integers(13, size=(5, 4)).astype(np.int32)
    wider = sequences.replace(tokens=np.concatenate([sequences.tokens, rubbish], axis=1))
    after = jitted_score(slots=SLOTS + 3)(params, wider)
    for name in ("logprobs", "entropy"):
        np.testing.assert_allclose(getattr(after, name)[:, :SLOTS], getattr(before, name), atol=1e-6)
        assert not np.any(getattr(after, name)[:, SLOTS:])

    end = (sequences.prompt_lengths + sequences.completion_lengths)[:, None]
    changed = sequences.replace(tokens=np.where(np.arange(9) < end, sequences.tokens, 7))
    assert np.any(changed.tokens != sequences.tokens)
    np.testing.assert_array_equal(jitted_score()(params, changed).logprobs, np.asarray(before.logprobs))


def test_tokens_beyond_a_row_get_no_gradient(params, sequences):
    """Rows of length 0 contribute nothing: the gradient is that of the other rows alone."""
    _, gradient = loss_and_gradient(3)(params, sequences)
    other = sequences.replace(tokens=np.concatenate([sequences.tokens[:4], 12 - sequences.tokens[4:]]))
    _, same = loss_and_gradient(3)(params, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, same)


def test_values_are_those_of_the_state_before_each_token(critic, sequences):
    found = jax.jit(functools.partial(score_values, MODEL, completion_width=SLOTS))(critic, sequences)
    hidden = np.asarray(jitted_hidden(critic, sequences.tokens), np.float64)
    expected = np.zeros((5, SLOTS))
    for row, start in enumerate(sequences.prompt_lengths):
        for i in range(sequences.completion_lengths[row]):
            expected[row, i] = hidden[row, start + i - 1] @ critic["head"] + critic["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected[0]).min() > 1e-3


@pytest.mark.parametrize("program", ["score", "gradient"])
def test_streaming_takes_at_most_a_third_of_the_memory_on_a_tpu(program):
    """Vocabulary 102,400, compiled for a v5e; needs its compiler, not the chip."""
    pytest.importorskip("libtpu")
    command = [sys.executable, "-m", "benchmarks.memory", "tpu", program]
    # Of the compiler alone several processes may be at work; there is no TPU to share.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["streamed"] <= found["plain"] / 3
