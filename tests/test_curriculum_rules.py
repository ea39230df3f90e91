"""Each rule of the catalogue against its paper's rule in plain Python, on recorded statistics."""

import functools
import sys
import unittest.mock

import curriculum_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curriculum_simulation import POOL, QUESTIONS, SAMPLES, Simulation, facts

from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.estimators import beta
from lilo_jax.curriculum.histories import foretold
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rules import frontier
from lilo_jax.curriculum.values import marginal_variance
from lilo_jax.types import GroupSignals, GroupStatistics

STEPS, SLOTS = 7, 12
SIZES = {"pool_size": POOL, "questions": QUESTIONS, "samples": SAMPLES}
KEY = jax.random.key(0)


@functools.cache
def record():
    """[(question, successes, attempts)] a step: some questions come twice, some never, some are all right or wrong."""
    rng = np.random.default_rng(11)
    rates = rng.choice([0.0, 0.2, 0.5, 1.0], POOL)
    steps = []
    for _ in range(STEPS):
        question = rng.integers(0, POOL - 6, SLOTS - 2)
        question[1] = question[0]
        attempts = rng.integers(1, SAMPLES + 1, len(question))
        steps.append(
            [(int(q), int(rng.binomial(n, rates[q])), int(n)) for q, n in zip(question, attempts, strict=True)]
        )
    return steps


def statistics(groups):
    """A step of the record, with an empty entry and a group without a verdict."""
    columns = np.zeros((5, SLOTS), np.float32)
    place, round_index = np.full(SLOTS, -1, np.int32), np.full(SLOTS, -1, np.int32)
    for slot, (q, s, n) in enumerate([*groups, (POOL - 1, 0, 0)]):
        place[slot], round_index[slot] = q, 0
        columns[:, slot] = n, s, s, 3 * n, SAMPLES
    return GroupStatistics(place, round_index, *columns)


def parts(spec):
    """What the rule composes."""
    module, found = sys.modules[type(spec).__module__], {}

    def seen(**composed):
        found.update(composed)
        return compose(**composed)

    with unittest.mock.patch.object(module, "compose", seen):
        spec.build(**SIZES)
    return found


class Played:
    """A rule's parts, and its state after the record and updates on its groups."""

    def __init__(self, spec):
        self.parts = parts(spec)
        curriculum = compose(**self.parts)
        self.curriculum = curriculum
        state = curriculum.init(facts(POOL, curriculum.wants))
        observe, feedback = jax.jit(curriculum.observe), jax.jit(curriculum.feedback)
        self.before = []
        for step, groups in enumerate(record()):
            self.before.append(state)
            collected = statistics(groups)
            state = observe(state, collected, np.int32(step))
            state = feedback(state, collected.place, collected.attempts > 0, signals(collected), np.int32(step))
        self.state, self.facts, self.places = state, state.facts, jnp.arange(POOL)

    def worth(self, key=KEY):
        return jax.jit(self.parts["worth"])(self.state, self.places, key)

    def choices(self, keys=400):
        """Ids of the first round over many keys, int [keys, first round]."""
        nothing = Simulation.empty(SLOTS)
        propose = jax.jit(jax.vmap(lambda key: self.curriculum.propose(self.state, nothing, key)))
        return propose(jax.random.split(KEY, keys))


def believed(played, state=None):
    """Means of what a rule believes of the pool's questions, at the end or in another state."""
    return np.asarray(played.curriculum.estimate(state or played.state, played.places, KEY).mean)


def signals(collected):
    rate = collected.successes / np.maximum(collected.attempts, 1)
    return GroupSignals(advantage_abs=2 * rate * (1 - rate) + 0.01 * rate, value_loss=0 * rate)


def updates():
    """(category, mean |advantage|) of the groups of each step."""
    category = np.arange(POOL) % 3
    found = []
    for groups in record():
        rates = [(q, s / n) for q, s, n in groups]
        found.append([(int(category[q]), 2 * p * (1 - p) + 0.01 * p) for q, p in rates])
    return found


def assert_close(found, expected, **kwargs):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected, np.float64), rtol=2e-5, atol=2e-6, **kwargs)


# ------------------------------------------------------------------------------------------------- weights of questions
def test_kimi_weighs_by_failures():
    expected = [1 - p for p in reference.frequencies(record(), POOL, unseen=0.0)]
    assert_close(Played(CURRICULA["kimi"]()).worth(), expected)


@pytest.mark.parametrize(("name", "rates"), [("kimi", reference.frequencies), ("knapsack", reference.last_rates)])
def test_nothing_is_believed_of_a_question_without_a_verdict(name, rates):
    """What stands in for it when rollouts are handed out is no belief that an audit may judge."""
    played = Played(CURRICULA[name]())
    expected = rates(record(), POOL, unseen=np.nan)
    assert 5 < np.isnan(expected).sum() < POOL / 2
    assert_close(believed(played), expected)


def test_spo_weighs_by_the_standard_deviation_and_a_floor():
    a, b = reference.fading_counts(record(), POOL, 0.96, 1.0)
    expected = [np.sqrt(x * y) / (x + y) + 0.05 for x, y in zip(a, b, strict=True)]
    assert_close(Played(CURRICULA["spo"]()).worth(), expected)


def test_prime_rl_pools_weigh_by_the_last_rate():
    rates = reference.last_rates(record(), POOL, unseen=None)
    expected = reference.pool_weights(rates, 0.25, 0.75, (0.2, 1.0, 0.2), 1.0)
    assert len(set(expected)) == 2
    assert_close(Played(CURRICULA["prime_rl_pools"]()).worth(), expected)
    other = CURRICULA["prime_rl_pools"](hard_weight=0.3, normal_weight=2.0, easy_weight=0.1, unseen_weight=0.7)
    expected = reference.pool_weights(rates, 0.25, 0.75, (0.3, 2.0, 0.1), 0.7)
    assert len(set(expected)) == 4
    assert_close(Played(other).worth(), expected)


def test_plr_mixes_ranks_and_staleness_and_new_questions():
    played = Played(CURRICULA["plr"](beta=0.5))
    worths, last_seen = [None] * POOL, [-1] * POOL
    for step, groups in enumerate(record()):
        sizes = {}
        for q, s, n in groups:
            sizes.setdefault(q, []).append(2 * s / n * (1 - s / n) + 0.01 * s / n)
            last_seen[q] = step
        for q, found in sizes.items():
            worths[q] = max(found)
    last_seen[POOL - 1] = STEPS - 1  # collected, though without a verdict
    assert_close(played.state.memory["loss"], [np.nan if s is None else s for s in worths])
    found = np.asarray(played.worth())
    # Ties share their ranks at random: only distinct worths have probabilities of their own.
    order = np.argsort(-found, kind="stable").argsort()
    exact = [None if s is None else round(s, 6) for s in worths]
    expected = reference.plr(exact, last_seen, STEPS, 0.5, 0.1, 0.5, order)
    assert_close(found.sum(), 1)
    unseen = [i for i in range(POOL) if last_seen[i] < 0]
    assert_close(found[unseen], np.asarray(expected)[unseen])
    by_score = sorted((i for i in range(POOL) if exact[i] is not None), key=lambda i: -exact[i])
    distinct = [i for i in by_score if sum(exact[j] == exact[i] for j in by_score) == 1]
    assert len(distinct) >= 4
    assert_close(found[distinct], np.asarray(expected)[distinct])


def test_retired_questions_come_last():
    played = Played(CURRICULA["retire_solved"]())
    rates = reference.last_rates(record(), POOL, unseen=0.0)
    assert_close(played.worth(), [-1.0 if p >= 1 else 0.0 for p in rates])
    assert rates.count(1.0) >= 3
    assert not {i for i, p in enumerate(rates) if p >= 1} & set(np.unique(played.choices().places).tolist())


# ------------------------------------------------------------------------------------------------------------- beliefs
@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_mopps_keeps_beta_counts_and_draws_from_them(decay):
    played = Played(CURRICULA["mopps"](decay=decay))
    a, b = reference.fading_counts(record(), POOL, decay, 1.0)
    expected = np.array(a) / (np.array(a) + np.array(b))
    assert_close(believed(played), expected)
    draws = jax.jit(jax.vmap(lambda key: played.parts["worth"](played.state, played.places, key)))
    worths = np.asarray(draws(jax.random.split(KEY, 800)))
    n = np.array(a) + np.array(b)
    variance = expected * (1 - expected) / (n + 1)
    np.testing.assert_allclose(worths.mean(axis=0), -(variance + (expected - 0.5) ** 2), atol=0.016)


def predicted(features, decay=0.95, precision=0.03):
    """Success rates for the pool, after each step, by logistic regressions to convergence."""
    found = []
    for step in range(STEPS):
        groups = [(*group, step - t) for t in range(step + 1) for group in record()[t]]
        weights, _ = reference.logistic_mode(features, groups, decay, precision)
        found.append(1 / (1 + np.exp(-features @ weights)))
    return found


def test_bots_counts_predictions_for_questions_that_were_not_asked():
    played = Played(CURRICULA["bots"](tokens=2, pairs=2, window=128))
    features = np.asarray(played.facts.features, np.float64)
    predictions = predicted(features)  # to convergence, ours by two warm steps
    a, b = reference.blended_counts(record(), POOL, predictions, 0.1, 0.1, SAMPLES)
    np.testing.assert_allclose(played.state.memory["success"].successes, a, atol=0.06)
    np.testing.assert_allclose(played.state.memory["success"].failures, b, atol=0.06)


@pytest.mark.parametrize(("name", "worth"), [("dots", lambda p: -abs(p - 0.5)), ("pcl", lambda p: -((p - 0.5) ** 2))])
def test_dots_and_pcl_predict_by_logistic_regression(name, worth):
    played = Played(CURRICULA[name](hidden=4, window=128))
    mean = predicted(np.asarray(played.facts.features, np.float64))[-1]
    np.testing.assert_allclose(played.worth(), worth(mean), atol=0.03)


def test_dots_takes_the_nearest_and_pcl_the_nearest_of_its_pool():
    dots = Played(CURRICULA["dots"](hidden=4, window=128))
    distance = np.abs(believed(dots) - 0.5)
    frequency = np.bincount(np.asarray(dots.choices().places).ravel(), minlength=POOL) / 400
    assert frequency[np.argsort(distance)[:2]].min() > 0.6  # the temperature is sharp
    pcl = Played(CURRICULA["pcl"](hidden=4, window=128, pool_ratio=POOL))
    nearest = np.argsort(np.abs(believed(pcl) - 0.5))[:QUESTIONS]
    assert {frozenset(row) for row in np.asarray(pcl.choices(20).places).tolist()} == {frozenset(nearest.tolist())}


def test_frontier_collects_evidence_against_what_it_predicted():
    """Evidence group by group, of a coin and of a question that nothing answers, faded by the steps between visits."""
    played = Played(CURRICULA["frontier"](tokens=3, pairs=2, hidden=0))
    before = [read(played, state) for state in played.before]
    coin, dead = reference.trap_evidence(record(), POOL, before, strength=4.0, fade=0.99)
    found = played.state.memory["traps"]
    assert max(coin) > 0.5  # there is something to compare
    np.testing.assert_allclose(found.coin, coin, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.dead, dead, rtol=1e-3, atol=1e-3)


def read(played, state=None):
    """Means of what `frontier` reads of the pool's questions, their own past left out."""
    state = state or played.state
    reading = foretold([logistic_regression(width=3 + 2 + 7, window=24 * QUESTIONS, decay=d) for d in frontier.DECAYS])
    return np.asarray(reading.estimate(state.memory["reading"], state, played.places, KEY).mean)


def test_frontier_reads_by_logistic_regressions_weighed_by_how_well_they_foretold():
    played = Played(CURRICULA["frontier"](tokens=3, pairs=2, hidden=0))
    features = np.asarray(played.facts.features, np.float64)
    evidence = np.asarray(played.state.memory["reading"].evidence, np.float64)
    weights = np.exp(evidence) / np.exp(evidence).sum()
    assert np.ptp(weights) > 0.01
    means = [predicted(features, decay=decay)[-1] for decay in frontier.DECAYS]  # to convergence, ours by warm steps
    np.testing.assert_allclose(read(played), weights @ means, atol=0.08)


def test_frontier_believes_what_it_read_until_a_question_was_asked():
    played = Played(CURRICULA["frontier"](tokens=3, pairs=2, hidden=0))
    asked = np.asarray(played.state.attempts) > 0
    apart = np.abs(believed(played) - read(played))
    np.testing.assert_allclose(apart[~asked], 0, atol=1e-6)
    assert (apart[asked] > 0.02).mean() > 0.5
    rate = np.asarray(played.state.successes)[asked] / np.asarray(played.state.attempts)[asked]
    apart = (believed(played) - read(played))[asked]
    assert np.corrcoef(apart, rate - read(played)[asked])[0, 1] > 0.5  # towards what it showed


def missed(steps):
    """Of each question, its last visits in a row at which no rollout was right; a step is one visit."""
    found = [0] * POOL
    for groups in steps:
        for question in {q for q, _, n in groups if n}:
            right = sum(own for place, own, _ in groups if place == question)
            found[question] = 0 if right else found[question] + 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("traps", [0.05, 0.4, 0.0])
def test_frontier_takes_a_diverse_batch_of_what_is_just_within_reach(traps, monkeypatch):
    monkeypatch.setattr(frontier, "PATIENCE", 1)  # in so few steps no question is missed at more than four visits
    played = Played(CURRICULA["frontier"](tokens=1, hidden=0, pool_ratio=POOL, traps=traps))
    features = np.asarray(played.facts.features, np.float64)
    memory, state = played.state.memory, played.state
    mean = believed(played).astype(np.float64)
    weights, waits, misses = [], [], missed(record())
    for i in range(POOL):
        faded = 0.99 ** (STEPS - int(state.last_seen[i]))
        evidence = [faded * float(side[i]) for side in (memory["traps"].coin, memory["traps"].dead)]
        trap = traps * np.mean(np.exp(evidence))
        clean = (1 - traps) / (trap + 1 - traps) * (float(state.attempts[i]) + 1) / (float(state.rollouts[i]) + 1)
        waits.append(min(1, (STEPS - int(state.last_seen[i])) / min(2.0 ** (misses[i] - 1), POOL / QUESTIONS)))
        weights.append(mean[i] * (1 - mean[i]) ** 2 * clean * waits[-1])
    assert min(waits) < 1
    assert_close(played.worth()[0], weights)
    expected = reference.diverse(weights, features[:, :-1], QUESTIONS)
    assert {tuple(row) for row in np.asarray(played.choices(20).places).tolist()} == {tuple(expected)}
    assert expected != np.argsort(weights)[: -QUESTIONS - 1 : -1].tolist()
    proposal = jax.tree.map(lambda x: x[0], played.choices(1))
    assert proposal.samples.tolist() == [SAMPLES] * QUESTIONS


def test_cdas_rates_difficulty_and_ability_and_chooses_around_it():
    played = Played(CURRICULA["cdas"]())
    difficulty, ability = reference.cdas(record(), POOL)
    memory = played.state.memory["success"]
    assert_close(memory.difficulty, difficulty)
    assert_close(memory.ability, ability)
    exact = np.asarray(memory.difficulty, np.float64)
    allowed = reference.cdas_choice(exact, float(memory.ability), QUESTIONS)
    chosen = {tuple(sorted(exact[row])) for row in np.asarray(played.choices(50).places)}
    assert chosen == {tuple(sorted(exact[list(allowed)]))}
    # A side that is short: the ability above all difficulties.
    played.state = played.state.replace(memory={"success": memory.replace(ability=jnp.float32(5))})
    chosen = {tuple(sorted(exact[row])) for row in np.asarray(played.choices(50).places)}
    assert chosen == {tuple(sorted(exact[list(reference.cdas_choice(exact, 5.0, QUESTIONS))]))}


def test_adarft_follows_its_target():
    played = Played(CURRICULA["adarft"](pace=20.0))
    target = reference.adarft_target(record(), 0.0, 20.0, 2.0, 0.5)
    assert_close(played.state.memory["target"], target)
    distance = np.abs(100 * (1 - np.asarray(played.facts.grade)) - target)
    assert_close(played.worth(), -distance)
    best = np.sort(distance[~np.isnan(distance)])[:QUESTIONS]
    for row in np.asarray(played.choices(20).places):
        assert_close(np.sort(distance[row]), best)


def test_dps_filters_three_states():
    played = Played(CURRICULA["dps"]())
    expected = reference.dps(record(), POOL, 1.0, 0.7)
    assert_close(played.worth(), expected)
    assert np.ptp(expected) > 0.2  # there is something to tell apart


def test_mapp_keeps_counts_and_seeks_varied_advantages():
    played = Played(CURRICULA["mapp"](decay=0.8))
    a, b = map(jnp.array, reference.fading_counts(record(), POOL, 0.8, 1.0))
    expected = marginal_variance(beta(a, b), SAMPLES)
    assert_close(played.worth(), expected)
    best = np.argsort(-np.asarray(expected))[:QUESTIONS]  # the pool of candidates is the whole pool
    for row in np.asarray(played.choices(20).places):
        assert_close(np.sort(expected[row]), np.sort(expected[best]))


def test_remind_reviews_what_was_solved_longest_ago():
    played = Played(CURRICULA["remind"](enter=1.0, every=STEPS, share=0.5))
    queue = reference.review_queue(record(), POOL)
    assert played.state.memory["queue"].tolist() == queue
    waiting = sorted((step, i) for i, step in enumerate(queue) if step >= 0)
    assert len(waiting) > QUESTIONS // 2
    latest = waiting[QUESTIONS // 2 - 1][0]
    for row in np.asarray(played.choices(50).places):
        steps = sorted(queue[i] for i in row if queue[i] >= 0)
        assert steps[: QUESTIONS // 2] == [step for step, _ in waiting[: QUESTIONS // 2]]
        assert len(set(row.tolist())) == QUESTIONS
        assert steps[QUESTIONS // 2 - 1] <= latest
    fewer = Played(CURRICULA["remind"](enter=1.0, every=STEPS + 1, share=0.5))  # this step reviews nothing
    frequency = np.bincount(np.asarray(fewer.choices(2000).places).ravel(), minlength=POOL) / 2000
    np.testing.assert_allclose(frequency, QUESTIONS / POOL, atol=0.035)


def test_a_quarter_of_what_is_solved_comes_into_the_queue():
    tracker = CURRICULA["remind"]().build(pool_size=4000, questions=8, samples=5)
    everyone = np.arange(4000, dtype=np.int32)
    fives, zeros = np.full(4000, 5, np.float32), np.zeros(4000, np.int32)
    right = np.where(everyone < 2000, 5, 4).astype(np.float32)
    groups = GroupStatistics(everyone, zeros, fives, right, right, fives, fives)
    state = tracker.observe(tracker.init(facts(4000, tracker.wants)), groups, jnp.int32(3))
    queue = np.asarray(state.memory["queue"])
    assert set(queue.tolist()) == {-1, 3}
    assert np.all(queue[2000:] == -1)
    assert 440 < np.sum(queue == 3) < 560  # three standard deviations


# ---------------------------------------------------------------------------------------------------------- categories
def frequencies_of(groups, places, count):
    return np.bincount(np.asarray(groups)[np.asarray(places)].ravel(), minlength=count) / np.asarray(places).size


def test_sec_values_categories_and_draws_them_by_softmax():
    played = Played(CURRICULA["sec"](categories=5, temperature=0.2))
    values = reference.sec(updates(), 5, 0.5)
    assert_close(played.state.memory["values"], values)
    expected = reference.softmax([v / 0.2 for v in values[:3]])
    found = frequencies_of(played.facts.category, played.choices(1500).places, 3)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_dump_bounds_categories_from_above():
    played = Played(CURRICULA["dump"](categories=5, window=60, temperature=0.5))
    bounds = reference.dump(updates(), 5, 60 // SAMPLES, SAMPLES)
    assert_close(played.worth().logits, np.array(bounds) / 0.5)
    expected = reference.softmax([v / 0.5 for v in bounds[:3]])
    found = frequencies_of(played.facts.category, played.choices(1500).places, 3)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("name", ["cosine", "gaussian"])
def test_e2h_moves_from_easy_to_hard(name):
    played = Played(CURRICULA["e2h"](schedule=name, steps=20, levels=3))
    expected = getattr(reference, f"e2h_{name}")(STEPS / 20, 3)
    drawn = played.worth()
    assert_close(jnp.exp(drawn.logits), expected)
    grade, level = np.asarray(played.facts.grade), np.asarray(drawn.classes)
    assert set(level[np.isnan(grade)]) == {2}
    for easier in range(2):  # a question of a lower level is not harder
        assert np.nanmin(grade[level == easier]) >= np.nanmax(grade[level == easier + 1])
    found = frequencies_of(level, played.choices(1500).places, 3)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_rlve_raises_levels_that_are_mastered():
    spec = CURRICULA["rlve"](categories=4, levels=6, least=2, threshold=0.5, window=2)
    played = Played(spec)
    category, level = np.arange(POOL) % 3, np.arange(POOL) // 3 % 5
    height = reference.rlve(record(), category, level, 4, 0.5, 2)
    assert np.asarray(played.state.memory["heights"].level).tolist() == height
    assert max(height) > 0
    places, eligible = played.parts["source"](played.state, Simulation.empty(SLOTS), KEY)
    expected = [height[category[i]] - 2 < level[i] <= height[category[i]] for i in range(POOL)]
    assert np.asarray(eligible).tolist() == expected
    assert np.asarray(places).tolist() == list(range(POOL))
    cells = {(int(category[i]), int(level[i])) for i in np.unique(np.asarray(played.choices().places))}
    assert cells == {(int(category[i]), int(level[i])) for i in range(POOL) if expected[i]}


def test_rlve_goes_on_when_every_level_is_mastered():
    """A category ends at its highest level in the pool, wherever that is: with a window of one it is asked for ever."""
    simulation = Simulation(CURRICULA["rlve"](least=1, threshold=0.5, window=1))
    facts = simulation.state.facts
    facts = facts.replace(level=facts.level + 2 * facts.category)  # levels 0..4, 2..6 and 4..8
    simulation.state, simulation.rates[:] = simulation.state.replace(facts=facts), 1.0
    steps = []
    for step in range(40):
        (proposal,), collected, _ = simulation.step(step)
        assert proposal.mask.sum() == QUESTIONS
        steps.append([(q, SAMPLES, SAMPLES) for q in collected.place.tolist()])
    height = reference.rlve(steps, facts.category.tolist(), facts.level.tolist(), 64, 0.5, 1)
    assert height[:4] == [4, 4, 4, 0]
    assert simulation.state.memory["heights"].level.tolist() == height


def test_rlve_draws_a_category_then_a_level():
    """Categories with one, two and four open levels come alike, and so do the levels of each."""
    played = Played(CURRICULA["rlve"](categories=4, levels=6, window=4))
    heights = played.state.memory["heights"].replace(level=jnp.array([0, 1, 3, 0]))
    played.state = played.state.replace(memory={"heights": heights})
    cells = 6 * np.asarray(played.facts.category) + np.asarray(played.facts.level)
    found = frequencies_of(cells, played.choices(3000).places, 24).reshape(4, 6)
    expected = [[1 / 3, *[0] * 5], [1 / 6] * 2 + [0] * 4, [1 / 12] * 4 + [0] * 2, [0] * 6]
    np.testing.assert_allclose(found, expected, atol=0.02)


# ------------------------------------------------------------------------------------------------ rounds and admission
def test_hive_seeks_mixed_groups_and_unsure_prompts():
    played = Played(CURRICULA["hive"](pool_ratio=POOL))
    entropy, rates = np.asarray(played.facts.features)[:, 0], reference.last_rates(record(), POOL, unseen=None)
    middle = [rate is None or 0 < rate < 1 for rate in rates]
    unsure = entropy >= np.median(entropy)
    assert_close(played.worth(), [m * (2 if u else 1) for m, u in zip(middle, unsure, strict=True)])
    best = {i for i in range(POOL) if middle[i] and unsure[i]}
    assert QUESTIONS < len(best) < POOL / 2
    assert set(np.unique(np.asarray(played.choices(50).places)).tolist()) <= best


def test_lze_admits_by_energy():
    played = Played(CURRICULA["lze"](noise=0.0))
    first, average = reference.lze_history(record(), POOL, 0.1)
    memory = played.state.memory
    for name, expected in (("first", first), ("average", average)):
        assert_close(memory[name], [np.nan if x is None else x for x in expected])
    collected = Simulation.empty(SLOTS)
    collected.place[:10], collected.round[:10] = [*range(8), POOL - 2, POOL - 1], 0
    collected.attempts[:10] = collected.rollouts[:10] = 5
    collected.successes[:10] = [1, 2, 3, 4, 2, 1, 0, 5, 1, 3]
    energies = reference.lze_energies(collected.place[:10], collected.successes[:10] / 5, first, average, 0.05, 0.3)
    found = played.parts["merit"](played.state, collected, KEY)[:10]
    assert_close(found, energies)
    assert max(energies) / min(e for e in energies if e) > 3
    admission = played.curriculum.admit(played.state, collected, KEY)
    assert admission.indices[admission.mask].tolist() == np.argsort(-np.array(energies))[:QUESTIONS].tolist()
    noisy = Played(CURRICULA["lze"](noise=1.0)).parts["merit"](played.state, collected, KEY)[:10] - found
    mixed = np.array(energies) > 0
    assert 0.2 < np.std(noisy) / np.ptp(np.array(energies)[mixed]) < 3  # that of Gumbel's law is 1.28


def test_pilot_commit_completes_the_best_and_keeps_what_is_left_for_later():
    """Two steps by hand: twelve pilots of two rollouts, of which six pass; four are completed, two wait."""
    curriculum = CURRICULA["pilot_commit"]().build(**SIZES)
    state = curriculum.init(facts(POOL, curriculum.wants))
    propose, observe = jax.jit(curriculum.propose), jax.jit(curriculum.observe)
    collected = Simulation.empty(2 * 16)
    pilots = jax.device_get(propose(state, collected, KEY))
    assert pilots.mask.tolist() == [True] * 12 + [False] * 4
    assert set(pilots.samples[:12].tolist()) == {2}
    collected.place[:12], collected.round[:12] = pilots.places[:12], 0
    collected.attempts[:12] = collected.rollouts[:12] = 2
    collected.successes[:12] = [1] * 6 + [0] * 3 + [2] * 3
    commits = jax.device_get(propose(state, collected, KEY))
    assert commits.mask.tolist() == [False] * 12 + [True] * 4
    assert set(commits.samples[12:].tolist()) == {SAMPLES - 2}
    groups = commits.continues[12:]
    assert set(groups.tolist()) < set(range(6))
    assert collected.place[groups].tolist() == commits.places[12:].tolist()
    collected.attempts[groups] = collected.rollouts[groups] = SAMPLES
    assert not np.any(propose(state, collected, KEY).mask)
    admission = curriculum.admit(state, collected, KEY)
    assert sorted(admission.indices[admission.mask].tolist()) == sorted(groups.tolist())
    left = set(collected.place[:6].tolist()) - set(commits.places[12:].tolist())
    solved = set(collected.place[9:12].tolist())
    state = observe(state, collected, np.int32(0))
    for later in range(1, 7):
        collected = Simulation.empty(2 * 16)
        pilots = jax.device_get(propose(state, collected, KEY))
        asked = set(pilots.places[:12].tolist())
        assert not solved & asked
        assert not left & asked or later > 4  # what waits is not screened again, for four steps
        collected.place[:12], collected.round[:12] = pilots.places[:12], 0
        collected.attempts[:12] = collected.rollouts[:12] = 2
        commits = jax.device_get(propose(state, collected, KEY))  # no pilot passes: what waits is completed
        anew = set(commits.places[12:][commits.mask[12:]].tolist())
        assert anew == (left if later <= 4 else set())
        assert np.all(commits.continues[12:][commits.mask[12:]] == -1)
        assert np.all(commits.samples[12:][commits.mask[12:]] == SAMPLES)
        assert commits.mask[:12].all()  # and others are screened besides
        state = observe(state, collected, np.int32(later))


def test_greso_steers_and_skips():
    played = Played(CURRICULA["greso"]())
    easy, hard, p = reference.greso(record(), POOL, 1 / 12, 1 / 6)
    memory = played.state.memory["runs"]
    assert_close(memory.easy, easy)
    assert_close(memory.hard, hard)
    assert_close(memory.keep, p)
    expected = reference.skip_probability(easy, hard, p, 0.01)
    offer = jax.jit(jax.vmap(lambda key: played.parts["source"](played.state, Simulation.empty(SLOTS), key)[1]))
    skipped = 1 - np.asarray(offer(jax.random.split(KEY, 3000))).mean(axis=0)
    np.testing.assert_allclose(skipped, expected, atol=0.05)
    assert max(expected) > 0.7


def test_vcrl_replaces_dropped_groups_from_its_bank():
    spec = CURRICULA["vcrl"](threshold=0.5, momentum=0.7)
    played, largest = Played(spec), 6 / 25
    bank = reference.vcrl_bank(record(), POOL, 0.5, 0.7, largest)
    assert_close(played.state.memory["bank"], [np.nan if v is None else v for v in bank])
    collected = Simulation.empty(SLOTS)
    collected.place[:4], collected.round[:4] = [36, 37, 38, 39], 0
    collected.attempts[:4], collected.successes[:4] = 5, [0, 2, 5, 3]
    collected.rollouts[:4] = 5
    proposal = jax.device_get(played.curriculum.propose(played.state, collected, KEY))
    best = sorted((v for v in bank if v is not None), reverse=True)[:2]
    assert_close(sorted((bank[i] for i in proposal.places[proposal.mask]), reverse=True), best)
    collected.place[4:6], collected.round[4:6] = proposal.places[:2], 1
    collected.attempts[4:6] = collected.rollouts[4:6] = 5
    admission = jax.device_get(played.curriculum.admit(played.state, collected, KEY))
    assert admission.indices[admission.mask].tolist() == [1, 3, 4, 5]


def test_knapsack_spends_as_the_dynamic_programme_does():
    played = Played(CURRICULA["knapsack"](most=12))
    rates = np.clip(reference.last_rates(record(), POOL, unseen=0.5), 0.1, 0.9)
    proposals = jax.device_get(played.choices(30))
    for places, samples in zip(proposals.places, proposals.samples, strict=True):
        best, value = reference.knapsack(rates[places], QUESTIONS * SAMPLES, 2, 12)
        assert samples.sum() == QUESTIONS * SAMPLES
        assert sum(value(p, int(n)) for p, n in zip(rates[places], samples, strict=True)) == pytest.approx(
            best, abs=1e-5
        )
