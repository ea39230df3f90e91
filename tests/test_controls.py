"""The controls of a study: that they leave everything of a rule as it is but the one thing they take away."""

import jax
import jax.numpy as jnp
import numpy as np
import reference
from curriculum_simulation import POOL, QUESTIONS, SAMPLES, Simulation, facts

from experiments.controls import Oracle, ShuffledFeatures, ShuffledScores
from lilo_jax.curriculum.rules.frontier import Frontier

SIZES = {"pool_size": POOL, "questions": QUESTIONS, "samples": SAMPLES}
SETTINGS = {"tokens": 3, "pairs": 2, "pool_ratio": 4}


def test_shuffled_features_are_those_of_other_questions_and_nothing_else_moves():
    plain, shuffled = (spec(**SETTINGS).build(**SIZES) for spec in (Frontier, ShuffledFeatures))
    known = facts(POOL, plain.wants)
    a, b = plain.init(known).facts, shuffled.init(known).facts
    where = [np.flatnonzero(np.all(np.asarray(a.features) == row, axis=1)).tolist() for row in np.asarray(b.features)]
    assert sorted(where) == [[i] for i in range(POOL)]
    assert sum(own != [i] for i, own in enumerate(where)) > POOL / 2
    jax.tree.map(np.testing.assert_array_equal, a.replace(features=0), b.replace(features=0))
    again = ShuffledFeatures(**SETTINGS).build(**SIZES).init(known).facts.features
    np.testing.assert_array_equal(again, b.features)


def test_shuffled_scores_put_one_question_for_another_always_the_same():
    plain, shuffled = (spec(**SETTINGS).build(**SIZES) for spec in (Frontier, ShuffledScores))
    state, instead = plain.init(facts(POOL, plain.wants)), {}
    rules = [jax.jit(rule.propose) for rule in (plain, shuffled)]
    for key in range(25):
        a, b = (rule(state, Simulation.empty(4), jax.random.key(key)) for rule in rules)
        for one, other in zip(a.ids.tolist(), b.ids.tolist(), strict=True):
            assert instead.setdefault(one, other) == other
        jax.tree.map(np.testing.assert_array_equal, a.replace(ids=0), b.replace(ids=0))
    assert len(set(instead.values())) == len(instead) > POOL / 4
    assert sum(one != other for one, other in instead.items()) > len(instead) / 2
    assert set(instead.values()) <= set(range(POOL))


def test_the_oracle_takes_what_is_most_learnable_by_the_true_rates():
    rule = Oracle(pool_ratio=POOL).build(**SIZES)
    assert rule.wants.truth
    rates = np.random.default_rng(0).choice([0.0, 0.1, 0.3, 0.45, 0.8, 1.0], POOL).astype(np.float32)
    rates[:2] = 0.5
    state = rule.init(facts(POOL, rule.wants).replace(grade=jnp.asarray(rates)))
    allowed = reference.best_sets([round(float(p * (1 - p)), 6) for p in rates], QUESTIONS)
    chosen = set()
    for key in range(10):
        ids = rule.propose(state, Simulation.empty(4), jax.random.key(key)).ids.tolist()
        assert frozenset(ids) in allowed
        chosen.add(frozenset(ids))
    assert len(chosen) > 1
    few = Oracle(pool_ratio=1).build(**SIZES)
    ids = [few.propose(state, Simulation.empty(4), jax.random.key(key)).ids.tolist() for key in range(10)]
    assert len({i for own in ids for i in own}) > 2 * QUESTIONS  # of a small random pool it takes all
