"""Features of questions: counts by hand, the choice of grams against a loop, the scale of blocks."""

import fractions

import numpy as np
import pytest

from lilo_jax.curriculum.contract import COUNTS, Wants
from lilo_jax.curriculum.features import commonest, no_facts, projected, standardized, text_counts, text_features


# ---------------------------------------------------------------------------------------------------------------- text
@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", (0, 0, 0, 0, 0, 0)),
        ("What is 12 + 345?", (17, 5, 5, 1, 2, 3)),
        ("a-b=7*7", (7, 1, 2, 3, 2, 1)),
        (r"\frac{1}{20} \le \left x", (24, 4, 3, 2, 2, 2)),  # \left is no operator
        ("no digits\n here", (15, 3, 0, 0, 0, 0)),
    ],
)
def test_text_counts_by_hand(text, counts):
    assert len(counts) == COUNTS
    np.testing.assert_allclose(text_counts(text), [np.log(1 + n) for n in counts])


def commonest_by_loop(grams, mask, width):
    """The same from the definition, with shares as fractions."""
    rows = [[int(g) for g, meant in zip(row, own, strict=True) if meant] for row, own in zip(grams, mask, strict=True)]
    share = {g: fractions.Fraction(sum(g in row for row in rows), len(rows)) for row in rows for g in row}
    best = sorted(share, key=lambda g: (-share[g] * (1 - share[g]), g))[:width]
    return [[row.count(g) for g in best] + [0] * (width - len(best)) for row in rows]


@pytest.mark.parametrize("width", [0, 1, 3, 7, 40])
@pytest.mark.parametrize("seed", range(3))
def test_the_grams_of_a_pool_are_those_of_a_loop(seed, width):
    """Few ids in 10 rows, so that most shares tie, f with 1 - f among them; 40 columns are more than there are ids."""
    rng = np.random.default_rng(seed)
    grams = rng.integers(0, 9, (10, 6)) ** 3
    mask = np.arange(6) < rng.integers(0, 7, 10)[:, None]
    found = commonest(grams, mask, width)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.reshape(commonest_by_loop(grams, mask, width), (10, width)))


def test_what_is_masked_takes_no_column_and_no_count():
    grams = np.array([[5, 5, 0], [5, 7, 0], [5, 0, 0]])
    mask = np.array([[True, True, False], [True, True, False], [True, False, False]])
    # 7 is in one row of three; 5 is everywhere, and comes before a padding id that is in none.
    assert commonest(grams, mask, 3).tolist() == [[0, 2, 0], [1, 1, 0], [0, 1, 0]]
    changed = np.where(mask, grams, 7)
    np.testing.assert_array_equal(commonest(changed, mask, 3), commonest(grams, mask, 3))


def test_grams_of_nothing_are_columns_of_zeros():
    assert commonest(np.zeros((3, 0), np.int64), np.zeros((3, 0), bool), 2).tolist() == [[0, 0]] * 3
    assert commonest(np.ones((2, 4), np.int64), np.zeros((2, 4), bool), 1).tolist() == [[0], [0]]


def test_blocks_of_the_text_have_the_widths_that_are_wanted_and_read_no_padding():
    wants = Wants(tokens=3, pairs=2)
    tokens = np.array([[1, 2, 1, 9], [2, 2, 9, 9], [3, 1, 2, 1]], np.int32)
    lengths = np.array([3, 2, 4])
    blocks = text_features(["1 + 2", "x", "3"], tokens, lengths, wants)
    assert tuple(block.shape[1] for block in blocks) == wants.blocks[:3]
    # Ids 1 and 3 tie with shares 2/3 and 1/3, 2 is everywhere; pairs (1, 2) and (2, 1) are in rows 0 and 2.
    np.testing.assert_array_equal(blocks[1], [[2, 0, 1], [0, 0, 2], [2, 1, 1]])
    np.testing.assert_array_equal(blocks[2], [[1, 1], [0, 0], [1, 1]])
    other = np.where(np.arange(4) < lengths[:, None], tokens, 5)
    for a, b in zip(blocks, text_features(["1 + 2", "x", "3"], other, lengths, wants), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pairs_of_large_ids_do_not_run_into_each_other():
    tokens = np.array([[0, 2**31 - 1], [1, 0]], np.int32)
    np.testing.assert_array_equal(text_features(["", ""], tokens, np.array([2, 2]), Wants(pairs=2))[2], np.eye(2))


# --------------------------------------------------------------------------------------------------------------- scale
def test_blocks_have_mean_zero_and_variances_that_sum_to_one():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(3, 50, (200, 4)), rng.exponential(size=(200, 9)), rng.normal(size=(200, 1))]
    blocks[1][:, [2, 5]] = 4.0
    found = standardized(blocks)
    assert found.dtype == np.float32
    assert found.shape == (200, 15)
    np.testing.assert_array_equal(found[:, -1], 1)
    np.testing.assert_allclose(found[:, :-1].mean(axis=0), 0, atol=1e-6)
    variances = np.split(found[:, :-1].astype(np.float64).var(axis=0), [4, 13])
    for own, varying in zip(variances, (4, 7, 1), strict=True):
        np.testing.assert_allclose(own[own > 0], 1 / varying, rtol=1e-5)
        assert own.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(variances[1] == 0, np.isin(np.arange(9), [2, 5]))


def test_what_is_constant_says_nothing_in_a_pool_of_any_size():
    found = standardized([np.full((100_000, 1), 7.123, np.float32), np.zeros((100_000, 0), np.float32)])
    np.testing.assert_array_equal(np.unique(found, axis=0), [[0, 1]])


def test_shift_and_scale_of_a_column_do_not_matter():
    raw = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(standardized([raw * [2, 0.1, 30] + [5, -1, 0]]), standardized([raw]), atol=1e-5)


def test_projections_are_linear_fixed_and_keep_lengths_on_average():
    rng = np.random.default_rng(2)
    states, others = (rng.normal(size=(30, 40)).astype(np.float32) for _ in range(2))
    assert projected(states, 40) is states
    found = projected(states, 600)
    assert found.shape == (30, 600)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, projected(states, 600))
    np.testing.assert_allclose(projected(states + 2 * others, 600), found + 2 * projected(others, 600), atol=1e-4)
    lengths = np.sum(found**2, axis=1) / np.sum(states**2, axis=1)
    assert lengths.mean() == pytest.approx(1, abs=0.1)  # deviation of one: sqrt(2 / 600)


@pytest.mark.parametrize(("wants", "width"), [(Wants(), None), (Wants(tokens=3, pairs=2, hidden=4), COUNTS + 10)])
def test_facts_of_nothing_known(wants, width):
    facts = no_facts(7, wants)
    assert (facts.features is None) if width is None else (facts.features.shape == (7, width))
    assert np.isnan(facts.grade).all()
    assert [facts.category.tolist(), facts.level.tolist()] == [[0] * 7] * 2
