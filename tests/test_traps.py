"""The detector of traps: likelihoods against the gamma function, and pools with planted flaws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curriculum_simulation import Simulation, facts

from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.statistics import initial_state, remember
from lilo_jax.curriculum.traps import (
    EPSILON,
    LEAST_RATE,
    Suspicion,
    log_ratios,
    trap_detector,
    trap_probability,
)
from lilo_jax.types import Estimate

PRIOR = 0.05


def log_beta(a, b):
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def ratios(s, n, m, strength):
    """Log-likelihood ratios from the definition, with the binomial coefficient in all three."""
    m = min(max(m, LEAST_RATE), 1 - LEAST_RATE)
    ways = math.log(math.comb(n, s))
    clean = ways + log_beta(s + strength * m, n - s + strength * (1 - m)) - log_beta(strength * m, strength * (1 - m))
    coin = ways + n * math.log(0.5)
    dead = ways + s * math.log(EPSILON) + (n - s) * math.log(1 - EPSILON)
    return coin - clean, dead - clean


def collected(question, successes, attempts, rollouts=None):
    found = Simulation.empty(len(question))
    found.place[:], found.round[:] = question, 0
    found.successes[:], found.attempts[:] = successes, attempts
    found.rollouts[:] = attempts if rollouts is None else rollouts
    return found


def pool_state(pool):
    return initial_state(facts(pool, Wants()))


def judged(tracker, groups_of_steps, pool=4):
    """(evidence, state) after steps of groups."""
    state, memory = pool_state(pool), tracker.init(pool)
    for step, groups in groups_of_steps:
        memory = tracker.observe(memory, state, groups, jnp.int32(step))
        state = remember(state, groups, jnp.int32(step))
    return memory, state


def certainly(rates):
    """A belief in rates(state, places), held for certain."""

    def believe(state, places, key):
        mean = rates(state, places)
        return Estimate(mean, jnp.zeros(mean.shape))

    return believe


# --------------------------------------------------------------------------------------------------------- likelihoods
@pytest.mark.parametrize("strength", [1.0, 4.0, 30.0])
def test_ratios_against_the_gamma_function(strength):
    cases = [(s, n, m) for n in (1, 5, 16) for s in range(n + 1) for m in (0.0, 0.03, 0.4, 0.9, 1.0)]
    s, n, m = (jnp.array(x, jnp.float32) for x in zip(*cases, strict=True))
    found = log_ratios(s, n, m, strength=strength)
    expected = [ratios(*case, strength) for case in cases]
    np.testing.assert_allclose(np.stack(found, axis=1), expected, rtol=2e-4, atol=5e-4)


def test_likelihoods_are_distributions():
    """Exp(ratio) times the clean probability sums to 1 over outcomes, for both explanations."""
    n, m, strength = 7, 0.3, 4.0
    s = np.arange(n + 1)
    a, b = strength * m, strength * (1 - m)
    clean = [math.comb(n, k) * math.exp(log_beta(k + a, n - k + b) - log_beta(a, b)) for k in s]
    assert sum(clean) == pytest.approx(1)
    for ratio in log_ratios(jnp.array(s, jnp.float32), jnp.full(n + 1, 7.0), jnp.full(n + 1, m), strength=strength):
        assert np.sum(np.exp(ratio) * clean) == pytest.approx(1, rel=1e-3)


def test_a_group_without_verdicts_is_no_evidence():
    np.testing.assert_allclose(log_ratios(jnp.zeros(3), jnp.zeros(3), jnp.array([0.0, 0.5, 1.0]), strength=4.0), 0)


# ------------------------------------------------------------------------------------------------------------ evidence
def test_evidence_adds_up_over_groups_and_fades_with_steps():
    tracker = trap_detector(certainly(lambda state, places: jnp.full(places.shape, 0.4)), fade=0.9)
    steps = [
        (0, collected([1, 2, 1], [4, 0, 3], [8, 8, 6])),
        (3, collected([1, -1, 3], [5, 0, 8], [8, 0, 8])),
    ]
    memory, _ = judged(tracker, steps)
    first, second, third = (np.array(ratios(s, n, 0.4, 4.0)) for s, n in ((4, 8), (3, 6), (5, 8)))
    expected = np.stack(
        [np.zeros(2), (first + second) * 0.9**3 + third, ratios(0, 8, 0.4, 4.0), ratios(8, 8, 0.4, 4.0)]
    )
    np.testing.assert_allclose(np.stack([memory.coin, memory.dead], axis=1), expected, rtol=1e-3, atol=1e-3)


def test_a_visit_without_verdicts_fades_what_there_was():
    tracker = trap_detector(certainly(lambda state, places: jnp.full(places.shape, 0.4)), fade=0.9)
    seen, nothing = collected([1], [4], [8]), collected([1], [0], [0], [8])
    memory, state = judged(tracker, [(0, seen), (7, nothing)])
    np.testing.assert_allclose(memory.coin[1], 0.9**7 * ratios(4, 8, 0.4, 4.0)[0], rtol=1e-3)
    without, other = judged(tracker, [(0, seen)])
    later = other.replace(step=jnp.int32(8), rollouts=state.rollouts)
    found, expected = (trap_probability(m, s, jnp.arange(4), fade=0.9) for m, s in ((memory, state), (without, later)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def probability(coin, dead, *, graded=8.0, rollouts=8.0, age=0, prior=PRIOR, fade=1.0):
    counts = jnp.array([rollouts], jnp.float32)
    state = pool_state(1).replace(
        step=jnp.int32(10), last_seen=jnp.array([10 - age]), attempts=jnp.array([graded], jnp.float32), rollouts=counts
    )
    memory = Suspicion(jnp.array([coin], jnp.float32), jnp.array([dead], jnp.float32))
    return float(trap_probability(memory, state, jnp.array([0]), prior=prior, fade=fade)[0])


@pytest.mark.parametrize(("coin", "dead"), [(0.0, 0.0), (2.0, -3.0), (-5.0, 4.0), (-9.0, -9.0)])
def test_the_probability_is_bayes_rule(coin, dead):
    traps = PRIOR / 2 * (math.exp(coin) + math.exp(dead))
    assert probability(coin, dead) == pytest.approx(traps / (traps + 1 - PRIOR), rel=1e-4, abs=2e-7)


def test_a_wrong_key_is_told_from_a_hard_question_by_what_was_predicted():
    """No answer of eight is right, twice: of a question that was promised and of one that was not."""
    rates = jnp.array([0.7, 0.02, 0.3])
    tracker = trap_detector(certainly(lambda state, places: rates[places]))
    visits = [(step, collected([0, 1, 2], [0, 0, 3], [8, 8, 8])) for step in range(2)]
    memory, state = judged(tracker, visits)
    promised, hard, fair = np.asarray(trap_probability(memory, state, jnp.arange(3), prior=PRIOR))
    assert promised > 0.9
    assert hard < 2 * PRIOR
    assert fair < 2 * PRIOR


def test_much_evidence_is_no_overflow_and_no_prior_is_no_suspicion():
    assert probability(500.0, -500.0) == pytest.approx(1)
    assert probability(-500.0, -500.0) == pytest.approx(0, abs=1e-6)
    assert probability(500.0, 500.0, prior=0.0) == 0


def test_failures_of_the_grader_raise_suspicion():
    found = [probability(0.0, 0.0, graded=graded) for graded in (8, 4, 0)]
    assert found == pytest.approx([PRIOR, 1 - 0.95 * 5 / 9, 1 - 0.95 / 9], rel=1e-4)
    assert probability(0.0, 0.0, graded=0, rollouts=0) == pytest.approx(PRIOR)


def test_evidence_fades_until_the_prior_is_left():
    found = [probability(4.0, -4.0, age=age, fade=0.97) for age in (0, 20, 80, 400)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.5
    assert found[-1] == pytest.approx(PRIOR, abs=1e-3)


# -------------------------------------------------------------------------------------------------------- planted pool
POOL, SEEN, ROLLOUTS, STEPS = 2000, 200, 8, 250


@functools.cache
def planted():
    """(kind of each question, probability of a trap after each fifth of a run).

    5% are coins, 5% have wrong keys, and the policy improves all the while.  Every step rolls out a tenth of the pool;
    predictions are the clean success rates, off by noise in the log-odds.
    """
    rng = np.random.default_rng(0)
    kind = np.where(rng.random(POOL) < 0.9, 0, rng.integers(1, 3, POOL))  # clean, coin, wrong key
    difficulty = rng.normal(0, 1.5, POOL)
    ability = np.linspace(-1, 2, STEPS)
    seen = np.stack([rng.choice(POOL, SEEN, replace=False) for _ in range(STEPS)])
    rates = 1 / (1 + np.exp(difficulty[seen] - ability[:, None]))
    rates = np.choose(kind[seen], [rates, np.full_like(rates, 0.5), np.zeros_like(rates)])
    successes = rng.binomial(ROLLOUTS, rates).astype(np.float32)
    off = jnp.asarray(difficulty + rng.normal(0, 0.5, POOL), jnp.float32)
    tracker = trap_detector(
        certainly(lambda state, places: jax.nn.sigmoid(jnp.asarray(ability, jnp.float32)[state.step] - off[places]))
    )

    def step(carry, groups):
        state, memory = carry
        question, right = groups
        full = jnp.full(SEEN, float(ROLLOUTS))
        now = jax.tree.map(jnp.asarray, collected(np.zeros(SEEN), 0, 0)).replace(
            place=question, successes=right, attempts=full, rollouts=full
        )
        memory = tracker.observe(memory, state, now, state.step)
        state = remember(state, now, state.step)
        return (state, memory), trap_probability(memory, state, jnp.arange(POOL))

    start = pool_state(POOL), tracker.init(POOL)
    found = jax.jit(lambda: jax.lax.scan(step, start, (jnp.asarray(seen, jnp.int32), jnp.asarray(successes)))[1])()
    return kind, np.asarray(found)[STEPS // 5 - 1 :: STEPS // 5]


def separation(worths, ours, others):
    """Probability that one of ours is worth more than one of the others, ties counting half."""
    a, b = worths[ours][:, None], worths[others][None]
    return np.mean(a > b) + np.mean(a == b) / 2


def test_planted_traps_are_told_from_clean_questions():
    kind, found = planted()
    assert found.shape == (5, POOL)
    for trap in (1, 2):
        after = [separation(worths, kind == trap, kind == 0) for worths in found]
        assert after[-1] > 0.9
        assert after[-1] > after[0]
    last = found[-1]
    assert np.mean(last[kind == 0] > 0.5) < 0.02
    for trap in (1, 2):
        assert np.mean(last[kind == trap] > 0.5) > 0.5
