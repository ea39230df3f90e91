"""The controls of a study: that they leave everything of a rule as it is but the one thing they take away."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from curriculum_simulation import POOL, QUESTIONS, SAMPLES, Simulation, facts

from experiments.controls import (
    SHUFFLE,
    Oracle,
    OracleFrontier,
    Scored,
    ShuffledFeatures,
    ShuffledScores,
    UniformBelieving,
)
from lilo_jax.curriculum.rules.frontier import Frontier

SIZES = {"pool_size": POOL, "questions": QUESTIONS, "samples": SAMPLES}
SETTINGS = {"tokens": 3, "pairs": 2, "hidden": 0, "pool_ratio": 4}


@pytest.mark.slow
def test_shuffled_features_are_those_of_other_questions_and_nothing_else_moves():
    """As the plain rule on features in another order, the same whenever features are made anew."""
    plain, shuffled = (spec(**SETTINGS).build(**SIZES) for spec in (Frontier, ShuffledFeatures))
    order = np.asarray(jax.random.permutation(jax.random.key(SHUFFLE), POOL))
    assert sum(order != np.arange(POOL)) > POOL / 2
    state = other = shuffled.init(facts(POOL, plain.wants))
    rng = np.random.default_rng(0)
    for step in range(4):
        features = rng.normal(size=state.facts.features.shape).astype(np.float32)
        state = state.replace(facts=state.facts.replace(features=jnp.asarray(features)))
        other = other.replace(facts=other.facts.replace(features=jnp.asarray(features[order])))
        a, b = (r.propose(s, Simulation.empty(4), jax.random.key(step)) for r, s in ((shuffled, state), (plain, other)))
        jax.tree.map(np.testing.assert_array_equal, a, b)
        groups = Simulation.empty(len(a.places))
        groups.place[:], groups.round[:], groups.attempts[:] = a.places, 0, 8
        groups.successes[:] = rng.integers(0, 9, len(a.places))
        state, other = shuffled.observe(state, groups, jnp.int32(step)), plain.observe(other, groups, jnp.int32(step))
        np.testing.assert_array_equal(state.facts.features, features)
        beliefs = (
            rule.estimate(s, np.arange(POOL), jax.random.key(0)) for rule, s in ((shuffled, state), (plain, other))
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), *beliefs)


def test_shuffled_scores_put_one_question_for_another_always_the_same():
    plain, shuffled = (spec(**SETTINGS).build(**SIZES) for spec in (Frontier, ShuffledScores))
    state, instead = plain.init(facts(POOL, plain.wants)), {}
    rules = [jax.jit(rule.propose) for rule in (plain, shuffled)]
    for key in range(25):
        a, b = (rule(state, Simulation.empty(4), jax.random.key(key)) for rule in rules)
        for one, other in zip(a.places.tolist(), b.places.tolist(), strict=True):
            assert instead.setdefault(one, other) == other
        jax.tree.map(np.testing.assert_array_equal, a.replace(places=0), b.replace(places=0))
    assert len(set(instead.values())) == len(instead) > POOL / 4
    assert sum(one != other for one, other in instead.items()) > len(instead) / 2
    assert set(instead.values()) <= set(range(POOL))


def test_without_choice_questions_are_drawn_at_random_and_beliefs_stay():
    plain, drawn = (spec(**SETTINGS).build(**SIZES) for spec in (Frontier, UniformBelieving))
    state, groups = plain.init(facts(POOL, plain.wants)), Simulation.empty(4)
    groups.place[:], groups.round[:], groups.attempts[:], groups.successes[:] = range(4), 0, 8, (0, 2, 6, 8)
    state = drawn.observe(state, groups, jnp.int32(0))
    jax.tree.map(
        np.testing.assert_array_equal,
        *(rule.estimate(state, np.arange(POOL), jax.random.key(0)) for rule in (plain, drawn)),
    )
    propose = jax.jit(jax.vmap(lambda key: drawn.propose(state, Simulation.empty(4), key).places))
    chosen = np.bincount(np.asarray(propose(jax.random.split(jax.random.key(1), 2000))).ravel(), minlength=POOL)
    expected = 2000 * QUESTIONS / POOL
    assert np.abs(chosen - expected).max() < 5 * np.sqrt(expected)


def test_the_oracle_takes_what_is_most_learnable_by_the_true_rates():
    rule = Oracle(pool_ratio=POOL).build(**SIZES)
    assert rule.wants.truth
    rates = np.random.default_rng(0).choice([0.0, 0.1, 0.3, 0.45, 0.8, 1.0], POOL).astype(np.float32)
    rates[:2] = 0.5
    state = rule.init(facts(POOL, rule.wants).replace(grade=jnp.asarray(rates)))
    allowed = reference.best_sets([round(float(p * (1 - p)), 6) for p in rates], QUESTIONS)
    chosen = set()
    for key in range(10):
        places = rule.propose(state, Simulation.empty(4), jax.random.key(key)).places.tolist()
        assert frozenset(places) in allowed
        chosen.add(frozenset(places))
    assert len(chosen) > 1
    few = Oracle(pool_ratio=1).build(**SIZES)
    places = [few.propose(state, Simulation.empty(4), jax.random.key(key)).places.tolist() for key in range(10)]
    assert len({i for own in places for i in own}) > 2 * QUESTIONS  # of a small random pool it takes all


def test_the_oracle_of_frontier_prefers_a_third_to_a_half_and_what_differs():
    rule = OracleFrontier(hidden=2, pool_ratio=POOL).build(**SIZES)
    assert rule.wants.truth
    rates = np.zeros(POOL, np.float32)
    rates[:3], rates[3:20] = 1 / 3, 0.5
    angles = np.full(POOL, 0.1, np.float32)
    angles[1:3] = 0.3, 1.6  # 0 and 1 are much alike; 2 is at a right angle to both
    features = np.stack([np.cos(angles), np.sin(angles), np.ones(POOL)], axis=1)
    known = facts(POOL, rule.wants).replace(grade=jnp.asarray(rates), features=jnp.asarray(features, jnp.float32))
    first, second = rule.propose(rule.init(known), Simulation.empty(4), jax.random.key(0)).places.tolist()[:2]
    assert first in (0, 1, 2)
    assert {first, second} in ({0, 2}, {1, 2})


def admit(curriculum, groups, key):
    return curriculum.admit(curriculum.init(facts(POOL, curriculum.wants)), groups, key)


def groups_of(successes):
    """Collected groups of 10 rollouts, at places in reverse order."""
    count = len(successes)
    groups = Simulation.empty(count)
    groups.place[:], groups.round[:] = np.arange(count)[::-1], 0
    groups.attempts[:], groups.successes[:] = 10, successes
    return groups


@pytest.mark.parametrize(
    ("score", "first", "last"),
    [
        ("variance", {4}, {0, 6}),
        ("mixed", {1, 2, 3, 4, 5}, {0, 6}),
        ("band", {2, 3, 4}, {0, 1, 5, 6}),
        ("hardest", {1}, {0, 6}),
        ("easiest", {5}, {0, 6}),
        ("near_half", {4}, {0, 6}),
        ("failure", {0}, {6}),
        ("random", {0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_a_score_ranks_candidates_as_its_name_says(score, first, last):
    """Of success rates 0, .1, .3, .4, .5, .9, 1: who may come first, and who last, whatever the key."""
    curriculum = Scored(score).build(pool_size=POOL, questions=7, samples=10)
    groups = groups_of([0, 1, 3, 4, 5, 9, 10])
    orders = [admit(curriculum, groups, jax.random.key(key)).indices.tolist() for key in range(40)]
    assert {order[0] for order in orders} == first
    assert {order[-1] for order in orders} == last


def test_equals_are_taken_by_place_or_at_random():
    groups = groups_of([5, 5, 5, 4])  # places 3, 2, 1, 0
    for ties, order in (("first", [2, 1, 0, 3]), ("last", [0, 1, 2, 3])):
        curriculum = Scored(ties=ties).build(pool_size=POOL, questions=4, samples=10)
        assert admit(curriculum, groups, jax.random.key(0)).indices.tolist() == order


def test_candidates_are_drawn_in_proportion_to_the_score():
    """Of .25 and .09 the first comes first with .25 / .34."""
    curriculum = Scored(drawn=True).build(pool_size=POOL, questions=1, samples=10)
    groups = groups_of([5, 1, 0, 10])
    drawn = jax.vmap(lambda key: admit(curriculum, groups, key).indices[0])(jax.random.split(jax.random.key(0), 4000))
    shares = np.bincount(np.asarray(drawn), minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.25 / 0.34, 0.09 / 0.34, 0, 0], atol=0.03)
    with pytest.raises(ValueError, match="there are no ties"):
        Scored(drawn=True, ties="first").build(pool_size=POOL, questions=1, samples=10)
