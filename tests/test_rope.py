"""Rotary wavelengths and their stretching: hand-worked cases, identities, and the implementation in transformers."""

import dataclasses

import numpy as np
import pytest

from lilo_jax.models.rope import Rope, frequencies, rotate

LLAMA3 = Rope(scaling="llama3", factor=8.0, original_length=64)
YARN = Rope(scaling="yarn", factor=4.0, original_length=64)
ROPES = {
    "linear": (Rope(theta=500.0, scaling="linear", factor=3.0), {"factor": 3.0}),
    "dynamic": (Rope(scaling="dynamic", factor=2.0, original_length=128), {"factor": 2.0}),
    "llama3": (
        LLAMA3,
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    ),
    "yarn": (YARN, {"factor": 4.0, "original_max_position_embeddings": 64}),
    "yarn, long": (
        dataclasses.replace(YARN, original_length=4096, truncate=False, beta_fast=16.0, beta_slow=2.0),
        {
            "factor": 4.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        },
    ),
}


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("head_dim", [6, 10, 64, 128])
def test_frequencies_equal_those_of_transformers(name, head_dim):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope, parameters = ROPES[name]
    kind = name.partition(",")[0]
    config = transformers.LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_type": kind, "rope_theta": rope.theta, **parameters},
    )
    expected, _ = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=300)
    found = frequencies(rope, head_dim, 300)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_unstretched_frequencies_by_hand():
    np.testing.assert_allclose(frequencies(Rope(theta=10_000.0), 4, 0), [1.0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(frequencies(Rope(theta=16.0), 8, 0), [1.0, 0.5, 0.25, 0.125], rtol=1e-6)


def test_linear_stretching_is_a_slower_walk():
    """A factor of 3 turns position 6 as position 2 was turned."""
    x = np.random.default_rng(0).standard_normal((1, 1, 2, 8)).astype(np.float32)
    slow, plain = Rope(scaling="linear", factor=3.0), Rope()
    stretched = rotate(x, np.array([[6]], np.int32), frequencies(slow, 8, 0))
    np.testing.assert_allclose(stretched, rotate(x, np.array([[2]], np.int32), frequencies(plain, 8, 0)), atol=1e-6)


def test_dynamic_is_plain_up_to_the_trained_length_and_slower_beyond():
    rope, plain = Rope(scaling="dynamic", factor=2.0, original_length=128), frequencies(Rope(), 16, 0)
    for length in (0, 64, 128):
        np.testing.assert_array_equal(frequencies(rope, 16, length), plain)
    longer = frequencies(rope, 16, 256)
    assert longer[0] == plain[0]
    assert np.all(longer[1:] < plain[1:])
    # theta (2 * 256 / 128 - 1)^(16/14), by hand
    np.testing.assert_allclose(longer[1], (10_000 * 3 ** (16 / 14)) ** (-1 / 8), rtol=1e-6)


def test_llama3_and_yarn_leave_fast_pairs_and_stretch_slow_ones():
    for rope in (LLAMA3, YARN):
        plain, found = frequencies(Rope(), 64, 0), frequencies(rope, 64, 0)
        assert found[0] == plain[0]
        np.testing.assert_allclose(found[-1], plain[-1] / rope.factor, rtol=1e-6)
        assert np.all(np.diff(found) < 0)
        between = (found < plain * 0.999) & (found > plain / rope.factor * 1.001)
        assert between.any()


def test_scale_multiplies_and_position_zero_turns_nothing():
    x = np.random.default_rng(1).standard_normal((1, 2, 1, 6)).astype(np.float32)
    positions = np.array([[0, 3]], np.int32)
    turned = rotate(x, positions, frequencies(Rope(), 6, 0), scale=2.5)
    np.testing.assert_allclose(turned[:, 0], 2.5 * x[:, 0], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(turned), 2.5 * np.linalg.norm(x), rtol=1e-6)
