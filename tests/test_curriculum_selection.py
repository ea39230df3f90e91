"""Top-k with fair ties, and draws without replacement."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax.curriculum.selectors import draw, top_k

# Upper 1e-4 quantiles of chi-square.  The keys are fixed, so a test either always passes or always fails.
CHI_SQUARE_LIMIT = {4: 23.5, 5: 25.7, 9: 33.7, 11: 37.4, 19: 50.8, 23: 57.1}
NUM_KEYS = 4000


def many_keys(seed=0, count=NUM_KEYS):
    return jax.random.split(jax.random.key(seed), count)


def assert_uniform(counts):
    counts = np.asarray(counts, np.float64)
    expected = counts.sum() / len(counts)
    assert expected > 50
    assert np.sum((counts - expected) ** 2) / expected < CHI_SQUARE_LIMIT[len(counts) - 1]


@functools.cache
def over_keys(k):
    return jax.jit(jax.vmap(functools.partial(top_k, k=k), in_axes=(None, 0)))


# ------------------------------------------------------------------------------------------------------------- top k
@pytest.mark.parametrize("seed", range(4))
def test_chosen_sets_are_those_that_the_reference_allows(seed):
    """Scores with many ties and some never measured: over many keys exactly the allowed sets occur, each of them."""
    rng = np.random.default_rng(seed)
    worths = rng.choice([0.0, 0.1875, 0.25, np.nan], size=7, p=[0.4, 0.3, 0.1, 0.2]).astype(np.float32)
    for k in (1, 3, 6):
        allowed = reference.best_sets([None if np.isnan(s) else float(s) for s in worths], k)
        indices, mask = over_keys(k)(worths, many_keys(seed, 1500))
        found = {frozenset(row.tolist()) for row in np.asarray(indices)}
        assert found == allowed
        np.testing.assert_array_equal(mask, ~np.isnan(worths[indices]))


def test_indices_are_distinct_best_first_and_exactly_k():
    worths = jnp.asarray(np.random.default_rng(0).choice([0, 0.1, 0.2, np.nan], 30), jnp.float32)
    for k in (1, 7, 30):
        indices, mask = top_k(worths, jax.random.key(k), k=k)
        assert indices.shape == mask.shape == (k,)
        assert indices.dtype == jnp.int32
        assert len(set(indices.tolist())) == k
        chosen = np.asarray(worths[indices])
        measured = chosen[np.asarray(mask)]
        assert np.all(np.diff(measured) <= 0)
        assert np.isnan(chosen[len(measured) :]).all()  # what was never measured comes last


def test_nan_never_displaces_a_number():
    worths = jnp.array([np.nan, 0.0, np.nan, -np.inf, np.nan])
    for key in many_keys(count=20):
        indices, mask = top_k(worths, key, k=3)
        assert indices[:2].tolist() == [1, 3]
        assert mask.tolist() == [True, True, False]


def sorted_choice(worths, eligible, k):
    """What `top_k` promises, by a sort of the numbers that may be chosen: their worths, best first."""
    numbers = np.sort(worths[eligible & ~np.isnan(worths)])[::-1]
    return numbers[:k]


@pytest.mark.parametrize("seed", range(8))
def test_infinities_are_numbers_and_nan_is_none(seed):
    """Scores of every kind, some ineligible, for fewer, as many and more places than there are."""
    rng = np.random.default_rng(seed)
    kinds = [[np.nan, -np.inf, np.inf, 0.0, -1.5, 2.5], [np.nan], [-np.inf, np.nan], [np.inf, -np.inf]][seed % 4]
    worths = rng.choice(np.array(kinds, np.float32), 9)
    eligible = rng.random(9) < (0.7 if seed < 7 else 0.0)
    for k in (1, 4, 9, 12):
        indices, mask = (
            np.asarray(x) for x in top_k(jnp.asarray(worths), jax.random.key(seed), k=k, eligible=eligible)
        )
        expected = sorted_choice(worths, eligible, k)
        assert mask.tolist() == [i < len(expected) for i in range(k)]
        chosen = indices[mask]
        np.testing.assert_array_equal(worths[chosen], expected)
        assert eligible[chosen].all()
        assert len(set(chosen.tolist())) == len(chosen)


def test_negative_zero_ties_with_zero():
    counts = np.bincount(np.asarray(over_keys(1)(jnp.array([0.0, -0.0, 0.0, -0.0, -1.0]), many_keys())[0])[:, 0])
    assert len(counts) == 4
    assert np.abs(counts - NUM_KEYS / 4).max() < 4 * np.sqrt(NUM_KEYS * 0.25 * 0.75)


def test_ineligible_entries_are_never_chosen_first():
    worths, eligible = jnp.array([9.0, 1, 8, 2]), jnp.array([False, True, False, True])
    indices, mask = top_k(worths, jax.random.key(0), k=3, eligible=eligible)
    assert indices[:2].tolist() == [3, 1]
    assert mask.tolist() == [True, True, False]
    assert top_k(worths, jax.random.key(0), k=2, eligible=jnp.zeros(4, bool))[1].tolist() == [False, False]


def test_ties_are_uniform_over_pairs():
    """Two of five equal entries behind a better one: all 20 ordered pairs are equally likely."""
    worths = jnp.array([0.1, 0.1, 0.25, 0.1, 0.1, 0.1, 0.0])
    indices = np.asarray(over_keys(3)(worths, many_keys())[0])
    assert set(indices[:, 0]) == {2}
    pairs = list(itertools.permutations([0, 1, 3, 4, 5], 2))
    counts = dict.fromkeys(pairs, 0)
    for _, second, third in indices.tolist():
        counts[second, third] += 1
    assert_uniform(list(counts.values()))


def test_a_tie_at_the_edge_of_the_choice_is_uniform():
    indices = np.asarray(over_keys(3)(jnp.array([0.2, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1]), many_keys(1))[0])
    assert {frozenset(row) for row in indices[:, :2].tolist()} == {frozenset({0, 4})}
    assert_uniform([np.sum(indices[:, 2] == i) for i in (1, 2, 3, 5, 6)])


@pytest.mark.parametrize("seed", range(3))
def test_permuting_scores_without_ties_permutes_the_choice(seed):
    rng = np.random.default_rng(seed)
    worths = rng.permutation(20).astype(np.float32)
    worths[rng.choice(20, 4, replace=False)] = np.nan
    order = rng.permutation(20)
    chosen = top_k(worths, jax.random.key(0), k=10)[0]
    permuted = top_k(worths[order], jax.random.key(1), k=10)[0]
    np.testing.assert_array_equal(order[permuted], chosen)


def test_vmap_and_jit_agree_with_single_calls():
    worths = jnp.asarray(np.random.default_rng(0).choice([0, 0.25, np.nan], (6, 9)), jnp.float32)
    eligible = jnp.asarray(np.random.default_rng(1).random((6, 9)) < 0.7)
    keys = many_keys(count=6)
    found = jax.jit(jax.vmap(lambda s, key, e: top_k(s, key, k=4, eligible=e)))(worths, keys, eligible)
    for i in range(6):
        single = top_k(worths[i], keys[i], k=4, eligible=eligible[i])
        np.testing.assert_array_equal(found[0][i], single[0])
        np.testing.assert_array_equal(found[1][i], single[1])


# -------------------------------------------------------------------------------------------------------------- draw
@pytest.mark.parametrize(("size", "k"), [(4, 3), (5, 2)])  # by a permutation, and from a stream
def test_draws_are_distinct_and_uniform_over_what_is_ordered(size, k):
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw(key, size=size, k=k)))(many_keys()))
    assert drawn.dtype == np.int32
    counts = dict.fromkeys(itertools.permutations(range(size), k), 0)
    for row in drawn.tolist():
        counts[tuple(row)] += 1
    assert_uniform(list(counts.values()))


def test_a_draw_of_everything_is_a_permutation():
    np.testing.assert_array_equal(np.sort(draw(jax.random.key(0), size=50, k=50)), np.arange(50))


def test_draws_of_a_large_pool_reach_every_number_equally():
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw(key, size=12, k=5)))(many_keys(2)))
    assert all(len(set(row)) == 5 for row in drawn.tolist())
    for column in range(5):
        assert_uniform(np.bincount(drawn[:, column], minlength=12))
