"""Advantages and losses agree with public libraries, where these are installed (benchmarks/README.md says how)."""

import numpy as np
import pytest

from benchmarks.loss_agreement import (
    CAP,
    CLIP,
    DUAL,
    HIGH,
    LIBRARIES,
    LIMIT,
    SEEDS,
    SEQUENCE_CLIP,
    Difference,
    compare,
    draw,
    largest,
)


@pytest.mark.parametrize("name", LIBRARIES)
def test_ours_equals_the_librarys(name):
    pytest.importorskip(LIBRARIES[name].module)
    found = largest(LIBRARIES[name])
    assert found
    assert [x for x in found if not x.agrees] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_batches_reach_every_bound(seed):
    """Otherwise functions that differ there would agree."""
    drawn = draw(seed)
    ratio = np.exp(drawn.logprobs - drawn.old_logprobs)[drawn.mask]
    mean = np.sum((drawn.logprobs - drawn.old_logprobs) * drawn.mask, axis=1) / drawn.lengths
    for bound in (1 - SEQUENCE_CLIP["clip_low"], 1, 1 + SEQUENCE_CLIP["clip_high"]):
        assert np.any(np.exp(mean) < bound)
        assert np.any(np.exp(mean) > bound)
    divergence = np.exp(drawn.reference_logprobs - drawn.logprobs)[drawn.mask]
    for low, high in (
        (0, 1 - CLIP),
        (1 - CLIP, 1),
        (1, 1 + CLIP),
        (1 + CLIP, 1 + HIGH),
        (1 + HIGH, DUAL),
        (DUAL, np.inf),
    ):
        assert np.any((low < ratio) & (ratio < high))
    assert np.any(divergence - np.log(divergence) - 1 > 10)
    assert np.any(np.exp(drawn.old_logprobs - drawn.sampler_logprobs)[drawn.mask] > CAP)
    moved = np.abs(drawn.values - drawn.old_values)[drawn.mask]
    assert np.any(moved < CLIP)
    assert np.any(moved > CLIP)
    assert len(set(drawn.lengths.tolist())) > 3


def test_a_difference_is_found():
    ones = np.ones((2, 3))
    assert compare("", (1.0, ones), (1.0, ones)).agrees
    assert not compare("", (1.0, ones), (1.0 + 2 * LIMIT, ones)).agrees
    assert not compare("", (1.0, ones), (1.0, ones + 2 * LIMIT)).agrees
    assert not Difference("", float("nan"), None).agrees
