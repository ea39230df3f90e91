"""The diverse selector against a greedy search over determinants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from virtual_devices import printed_by

from lilo_jax.curriculum.selectors import diverse

KEY = jax.random.key(0)
select = jax.jit(diverse, static_argnames="k")


def greedy(weights, rows, k, allowed=None):
    """One at a time, whatever makes sum log w + log det(cosines) largest; and by how much the second was worse."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, chosen, margin = rows @ rows.T, [], np.inf
    for _ in range(k):
        worth = {}
        for i in range(len(weights)):
            if i not in chosen and (allowed is None or allowed[i]):
                some = [*chosen, i]
                worth[i] = np.log(weights[some]).sum() + np.linalg.slogdet(cosines[np.ix_(some, some)])[1]
        best, *rest = sorted(worth, key=lambda i: -worth[i])
        margin = min(margin, worth[best] - worth[rest[0]] if rest else np.inf)
        chosen.append(best)
    return chosen, margin


def drawn(seed, count=30, width=8):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 1, count), rng.normal(size=(count, width)) * rng.uniform(0.1, 9, (count, 1))


def on_device(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@pytest.mark.parametrize("seed", range(6))
def test_the_set_is_that_of_a_greedy_search_over_determinants(seed):
    weights, rows = drawn(seed)
    expected, margin = greedy(weights, rows, 6)
    assert margin > 2e-4  # more than ties are broken by
    indices, mask = select(on_device(weights, rows), KEY, k=6)
    assert indices.tolist() == expected
    assert mask.all()
    assert expected != np.argsort(-weights)[:6].tolist()


def many(count=4096, width=96):
    """As many as `frontier` chooses from for a batch of 64, alike by twelve directions."""
    rng = np.random.default_rng(6)
    skills = rng.normal(size=(12, width))
    return np.exp(rng.normal(size=count)), rng.normal(size=(count, 12)) @ skills + rng.normal(size=(count, width))


def greedy_of_many(weights, rows, k):
    """As `greedy`, by what Gram and Schmidt leave of each row, whose square is the ratio of determinants; float64."""
    left = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen, margin = [], np.inf
    for _ in range(k):
        gain = np.log(weights) + np.log(np.maximum(np.sum(left**2, axis=1), 1e-300))
        gain[chosen] = -np.inf
        second, best = np.argsort(gain)[-2:]
        margin = min(margin, gain[best] - gain[second])
        chosen.append(int(best))
        unit = left[best] / np.linalg.norm(left[best])
        left = left - np.outer(left @ unit, unit)
    return chosen, margin


def test_of_4096_the_set_of_64_is_exact():
    assert greedy_of_many(*drawn(1), 6)[0] == greedy(*drawn(1), 6)[0]  # the references agree
    weights, rows = many()
    expected, margin = greedy_of_many(weights, rows, 64)
    assert margin > 2e-5  # more than float32 rounds away
    indices, mask = select(on_device(weights, rows), KEY, k=64)
    assert indices.tolist() == expected
    assert mask.all()
    assert len(set(expected) & set(np.argsort(-weights)[:64].tolist())) < 50


@pytest.mark.slow
def test_eight_devices_choose_what_one_does():
    """Of 4096 whose rows are split over the devices, and of 4096 that each of them has a copy of, as in a run."""
    script = """
        from lilo_jax.device.mesh import MeshConfig, make_mesh, put_replicated, put_rows
        from test_diverse import KEY, many, on_device, select

        for put in (put_rows, put_replicated):
            weighted = put(make_mesh(MeshConfig()), on_device(*many()))
            assert len(weighted[1].sharding.device_set) == 8
            print(*select(weighted, KEY, k=64)[0].tolist())
    """
    alone = select(on_device(*many()), KEY, k=64)[0].tolist()
    found = [[int(i) for i in line.split()] for line in printed_by(script, devices=8).splitlines()]
    assert found == [alone, alone]


@pytest.mark.parametrize("seed", range(3))
def test_renaming_entries_renames_the_choice(seed):
    weights, rows = drawn(seed)
    assert greedy(weights, rows, 6)[1] > 2e-4  # more than ties are broken by
    order = np.random.default_rng(seed).permutation(len(weights))
    chosen = select(on_device(weights, rows), KEY, k=6)[0]
    renamed = select(on_device(weights[order], rows[order]), jax.random.key(1), k=6)[0]
    assert order[np.asarray(renamed)].tolist() == chosen.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_of_rows_at_right_angles_the_heaviest_are_taken(seed):
    weights = drawn(seed, 12)[0]
    turned = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 12)))[0] * np.arange(1, 13)[:, None]
    assert select(on_device(weights, turned), KEY, k=5)[0].tolist() == np.argsort(-weights)[:5].tolist()


def test_of_rows_in_one_direction_weights_order_all():
    weights = np.array([0.3, 0.9, 0.1, 0.5, 0.7])
    rows = np.outer([1.0, 2.0, 0.5, 7.0, 3.0], [0.3, -0.2, 0.9])
    assert select(on_device(weights, rows), KEY, k=5)[0].tolist() == [1, 4, 3, 0, 2]


def test_a_twin_waits_for_what_is_new():
    """Two heavy twins and a lighter one at right angles: a heavy one, the other direction, then the twin."""
    weights, rows = np.array([1.0, 0.9, 0.01]), np.array([[2.0, 0], [5.0, 0], [0, 1.0]])
    assert select(on_device(weights, rows), KEY, k=3)[0].tolist() == [0, 2, 1]


def test_what_may_not_be_taken_comes_after_all_others():
    """Ineligible ones and NaN after numbers, weight 0 after weight; the mask tells which were usable."""
    weights, rows = drawn(3, 10)
    weights[[2, 5]], weights[7] = np.nan, 0.0
    eligible = np.ones(10, bool)
    eligible[np.argsort(-np.nan_to_num(weights))[:2]] = False
    usable = eligible & ~np.isnan(weights)
    indices, mask = select(on_device(weights, rows), KEY, k=10, eligible=jnp.asarray(eligible))
    assert sorted(indices.tolist()) == list(range(10))
    assert mask.tolist() == [True] * usable.sum() + [False] * (10 - usable.sum())
    assert set(indices[:6].tolist()) == set(np.flatnonzero(usable).tolist())
    assert indices.tolist().index(7) == 5
    positive = usable & (np.arange(10) != 7)
    expected, _ = greedy(np.where(positive, weights, 1), rows, 4, positive)
    assert indices[:4].tolist() == expected


def test_more_places_than_entries_are_masked():
    weights, rows = drawn(0, 3)
    indices, mask = select(on_device(weights, rows), KEY, k=5)
    assert sorted(indices[:3].tolist()) == [0, 1, 2]
    assert mask.tolist() == [True] * 3 + [False] * 2


def test_the_key_decides_between_equals_alone():
    weights, rows = np.ones(6), np.eye(6)
    firsts = {int(select(on_device(weights, rows), jax.random.key(k), k=2)[0][0]) for k in range(30)}
    assert len(firsts) > 3
    np.testing.assert_array_equal(*(select(on_device(weights, rows), KEY, k=4)[0] for _ in range(2)))
    different = on_device(*drawn(1))
    assert len({tuple(select(different, jax.random.key(k), k=5)[0].tolist()) for k in range(5)}) == 1


def test_pools_side_by_side_are_single_pools():
    pools = [on_device(*drawn(seed)) for seed in range(3)]
    together = tuple(jnp.stack(x) for x in zip(*pools, strict=True))
    indices, _ = jax.vmap(functools.partial(diverse, key=KEY, k=5))(together)
    for own, found in zip(pools, indices, strict=True):
        np.testing.assert_array_equal(found, select(own, KEY, k=5)[0])
