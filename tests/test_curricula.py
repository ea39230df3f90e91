"""The shipped curricula through the `Curriculum` contract, with outcomes made up by the test."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from curriculum_simulation import POOL, QUESTIONS, SAMPLES, Simulation

from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.statistics import learnability
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.types import GroupSignals

SFL = SflBuffer(refresh_every=3, candidates=16, buffer_size=6, attempts=3, buffer_fraction=0.6)
FROM_BUFFER = 2  # floor(0.6 * 4)
SMALL = {
    "sfl_buffer": SFL,
    "dapo": CURRICULA["dapo"](round_ratio=2, most_rounds=3),
    "balanced": CURRICULA["balanced"](most_rounds=4),
    "greso": CURRICULA["greso"](most_rounds=3),
    "vcrl": CURRICULA["vcrl"](threshold=0.5),
    "pilot_commit": CURRICULA["pilot_commit"](most_rounds=3),
    "knapsack": CURRICULA["knapsack"](most=12),
    "bots": CURRICULA["bots"](window=32, tokens=3, pairs=2),
    "dots": CURRICULA["dots"](window=32, hidden=5),
    "pcl": CURRICULA["pcl"](window=32, hidden=5),
    "rlve": CURRICULA["rlve"](least=1, threshold=0.5),
    "e2h": CURRICULA["e2h"](steps=4),
    "frontier": CURRICULA["frontier"](pool_ratio=4, tokens=3, pairs=2, hidden=0),
}
"""Settings that fit a pool of 40; all others are the defaults."""
SPECS = {name: SMALL.get(name, spec()) for name, spec in CURRICULA.items()}
LEARN_FROM_THE_UPDATE = {"plr", "sec", "dump"}


@functools.cache
def shared(name):
    """A simulation whose compiled functions all tests of a curriculum use; `again` starts it anew."""
    return Simulation(SPECS[name])


def admissible(name, collected):
    """Bool [K], which groups the rule may train on, from its definition."""
    measured = collected.attempts > 0
    rate = collected.successes / np.maximum(collected.attempts, 1)
    mixed = (collected.successes > 0) & (collected.successes < collected.attempts)
    return measured & {
        "dapo": mixed,
        "greso": mixed,
        "balanced": (rate >= 0.2) & (rate <= 0.8),
        "speed": collected.rollouts == SAMPLES,
        "pilot_commit": collected.rollouts == SAMPLES,
        "lze": mixed,
        "vcrl": (rate * (1 - rate) >= 0.5 * 6 / 25 - 1e-6) | (collected.round == 1),
        "sfl_buffer": collected.round == collected.round.max(),
    }.get(name, measured)


def scores_of(collected):
    """Variance of each group's outcomes, rounded so that equal ones are equal; None where nothing was measured."""
    worths = []
    for successes, attempts in zip(collected.successes.astype(int), collected.attempts.astype(int), strict=True):
        worth = reference.learnability([1] * successes + [0] * (attempts - successes))
        worths.append(None if worth is None else round(worth, 6))
    return worths


def proposed_places(proposal):
    return proposal.places[proposal.mask].tolist()


# ------------------------------------------------------------------------------------------------- every curriculum
def test_every_entry_of_the_table_is_tested_here():
    assert {name: type(spec) for name, spec in SPECS.items()} == CURRICULA


@pytest.mark.parametrize("name", CURRICULA)
def test_every_curriculum_keeps_the_contract(name):
    """Distinct groups of questions of the pool, as many as may be; everything collected is remembered, nothing else."""
    simulation = shared(name).again(failing=0.1)
    steps = []
    for step in range(4):
        proposals, collected, admission = simulation.step(step)
        assert proposals[0].mask.any()
        admitted = admission.indices[admission.mask]
        allowed = np.flatnonzero(admissible(name, collected))
        assert len(set(admitted.tolist())) == len(admitted) == min(len(admission.mask), len(allowed))
        assert set(admitted.tolist()) <= set(allowed.tolist())
        assert np.all((collected.place >= -1) & (collected.place < POOL))
        simulation.update(collected, admission, step)
        names = ("place", "attempts", "successes", "length_sum", "rollouts")
        steps.append([{n: getattr(collected, n)[k].item() for n in names} for k in range(simulation.slots)])
    for field, expected in reference.remembered(POOL, steps).items():
        np.testing.assert_array_equal(getattr(simulation.state, field), expected, err_msg=field)
    assert int(simulation.state.step) == 4
    assert float(simulation.state.rollouts.sum()) == sum(group["rollouts"] for step in steps for group in step)


@pytest.mark.parametrize("name", CURRICULA)
def test_proposals_depend_on_the_key_alone_and_vary_with_it(name):
    simulation = shared(name).again()
    nothing = simulation.empty(simulation.slots)
    first, again, other = (simulation.propose(simulation.state, nothing, jax.random.key(k)).places for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(np.asarray(first) != np.asarray(other))


@pytest.mark.parametrize("name", CURRICULA)
def test_no_key_is_used_twice(name):
    """Draws by the same key are copies of each other, not draws of their own."""
    simulation = shared(name).again()
    curriculum, nothing = simulation.curriculum, simulation.empty(simulation.slots)
    with jax.debug_key_reuse(True):
        jax.jit(curriculum.propose)(simulation.state, nothing, jax.random.key(0))
        jax.jit(curriculum.admit)(simulation.state, nothing, jax.random.key(1))


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_outcomes_that_are_all_alike_and_broken_graders_do_no_harm(name, rate):
    """Nothing solved or everything, then no verdict at all: full proposals go on, and no belief leaves [0, 1]."""
    simulation = shared(name).again()
    simulation.rates[:] = rate
    counts = []
    for step in range(4):
        simulation.failing = float(step == 2)
        proposals, collected, admission = simulation.step(step)
        counts.append(proposals[0].mask.sum())
        simulation.update(collected, admission, step)
    assert min(counts) >= QUESTIONS
    if simulation.curriculum.estimate is not None:
        belief, variance = map(
            np.asarray, simulation.curriculum.estimate(simulation.state, np.arange(POOL), jax.random.key(0))
        )
        seen = np.asarray(simulation.state.attempts) > 0
        assert belief.shape == (POOL,)
        assert np.all((belief[seen] >= 0) & (belief[seen] <= 1))
        assert np.all((variance[seen] >= 0) & (variance[seen] <= belief[seen] * (1 - belief[seen]) + 1e-6))
        assert abs(belief[seen].mean() - rate) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", CURRICULA)
def test_a_state_survives_a_checkpoint(name, tmp_path):
    """Restored into the shapes of a fresh state it proposes the same; shapes and dtypes never change."""
    simulation = shared(name).again()
    fresh = simulation.state
    for step in range(2):
        _, collected, admission = simulation.step(step)
        simulation.update(collected, admission, step)
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), state) for state in (fresh, simulation.state)]
    assert kinds[0] == kinds[1]
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, simulation.state, {})
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored = checkpoints.restore(2, fresh)
    jax.tree.map(np.testing.assert_array_equal, restored, simulation.state)
    nothing = simulation.empty(simulation.slots)
    found, expected = (simulation.propose(state, nothing, jax.random.key(5)) for state in (restored, simulation.state))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", CURRICULA)
def test_seeds_side_by_side_are_single_runs(name):
    simulation, states, collected = shared(name), [], []
    for seed in range(2):
        run = simulation.again(seed=seed)
        states.append(run.step(0) and run.state)
        collected.append(run.rounds(jax.random.key(seed))[1])
    together = [jax.tree.map(lambda *x: np.stack(x), *trees) for trees in (states, collected)]
    keys = jax.random.split(jax.random.key(1), 2)
    curriculum = simulation.curriculum

    def step(state, groups, key):
        return curriculum.propose(state, groups, key), curriculum.observe(state, groups, jnp.int32(1))

    found = jax.jit(jax.vmap(step))(*together, keys)
    for i in range(2):
        single = (
            simulation.propose(states[i], collected[i], keys[i]),
            simulation.observe(states[i], collected[i], np.int32(1)),
        )
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), found, single)


@pytest.mark.parametrize("name", CURRICULA)
def test_a_pool_of_a_million_has_proposals_of_a_batch(name):
    """Shapes only: no proposal grows with the pool, and no memory with its square."""
    pool_size = 1_000_000
    curriculum = CURRICULA[name]().build(pool_size=pool_size, questions=64, samples=8)
    state = jax.eval_shape(lambda: curriculum.init(no_facts(pool_size, curriculum.wants)))
    proposal = jax.eval_shape(curriculum.propose, state, Simulation.empty(1), jax.random.key(0))
    assert proposal.places.shape[0] <= 20 * 64
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.memory)) <= 16 * pool_size


@pytest.mark.parametrize("name", CURRICULA)
def test_the_update_changes_the_memory_of_those_alone_that_learn_from_it(name):
    simulation = shared(name).again()
    signals = GroupSignals(advantage_abs=jnp.ones(QUESTIONS), value_loss=jnp.ones(QUESTIONS))
    arguments = jnp.arange(QUESTIONS), jnp.ones(QUESTIONS, bool), signals, jnp.int32(0)
    after = simulation.curriculum.feedback(simulation.state, *arguments)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b, equal_nan=True)), after, simulation.state)
    assert all(jax.tree.leaves(same)) == (name not in LEARN_FROM_THE_UPDATE)
    ignored = simulation.curriculum.feedback(simulation.state, arguments[0], ~arguments[1], *arguments[2:])
    jax.tree.map(np.testing.assert_array_equal, ignored, simulation.state)


@pytest.mark.parametrize("name", CURRICULA)
def test_a_question_with_two_groups_is_remembered_for_both(name):
    simulation = shared(name).again()
    collected = simulation.empty(simulation.slots)
    for slot, (question, attempts, successes) in enumerate([(7, 3, 1), (2, 3, 3), (7, 2, 2)]):
        collected.place[slot], collected.round[slot] = question, slot // 2
        collected.attempts[slot] = collected.rollouts[slot] = attempts
        collected.successes[slot] = successes
    state = simulation.observe(simulation.state, collected, np.int32(0))
    assert [float(x[7]) for x in (state.attempts, state.successes, state.visits)] == [5, 3, 2]
    assert [float(x[2]) for x in (state.attempts, state.successes, state.visits)] == [3, 3, 1]
    assert float(state.attempts.sum()) == 8
    assert np.flatnonzero(np.asarray(state.last_seen) == 0).tolist() == [2, 7]


# ------------------------------------------------------------------------------------------------------------ uniform
def test_uniform_proposes_distinct_questions_and_admits_all():
    simulation = shared("uniform").again()
    seen = []
    for step in range(12):
        (proposal,), collected, admission = simulation.step(step)
        places = proposed_places(proposal)
        assert len(places) == len(set(places)) == QUESTIONS
        assert set(proposal.samples.tolist()) == {SAMPLES}
        assert admission.indices.tolist() == list(range(QUESTIONS))
        assert admission.mask.all()
        assert collected.place[admission.indices].tolist() == places
        seen += places
    assert len(set(seen)) > POOL / 2  # another draw every step


def test_uniform_leaves_out_groups_without_a_verdict():
    simulation = shared("uniform").again()
    _, collected = simulation.rounds(jax.random.key(0))
    collected.attempts[2] = 0
    admission = simulation.admit(simulation.state, collected, jax.random.key(1))
    assert admission.indices[admission.mask].tolist() == [0, 1, 3]


# --------------------------------------------------------------------------------------------------------------- lilo
def test_lilo_proposes_four_times_the_batch_and_admits_the_most_learnable():
    simulation = shared("lilo").again(failing=0.15)
    sets_of_scores = set()
    for step in range(8):
        (proposal,), collected, admission = simulation.step(step)
        places = proposed_places(proposal)
        assert len(places) == len(set(places)) == 4 * QUESTIONS
        assert set(proposal.samples.tolist()) == {SAMPLES}
        worths = scores_of(collected)
        allowed = reference.best_sets(worths, QUESTIONS)
        assert frozenset(admission.indices.tolist()) in allowed
        assert len(allowed) < math.comb(16, 4) / 2  # ties leave some choice, not all
        sets_of_scores.add(frozenset(worths[i] for i in admission.indices))
    assert len(sets_of_scores) > 1


def test_lilo_admits_unmixed_groups_before_unmeasured_ones():
    """Two mixed groups, one unmixed, the rest never measured: three groups are admitted."""
    simulation = shared("lilo").again()
    _, collected = simulation.rounds(jax.random.key(0))
    collected.attempts[:], collected.successes[:] = 0, 0
    collected.attempts[[3, 9, 12]] = 4
    collected.successes[[3, 9, 12]] = [1, 2, 4]
    admission = simulation.admit(simulation.state, collected, jax.random.key(1))
    assert admission.indices[:3].tolist() == [9, 3, 12]
    assert admission.mask.tolist() == [True, True, True, False]


def test_lilo_with_pool_ratio_one_trains_on_all_it_rolls_out():
    simulation = Simulation(Lilo(pool_ratio=1))
    (proposal,), _, admission = simulation.step(0)
    assert len(proposed_places(proposal)) == QUESTIONS
    assert sorted(admission.indices.tolist()) == list(range(QUESTIONS))


# --------------------------------------------------------------------------------------------------------- sfl buffer
def allowed_buffers(collected):
    """Sets of questions that may be the buffer after the screening round, from the definition."""
    worths = scores_of(collected)
    screened = [k for k in range(len(collected.place)) if collected.round[k] == 0]
    chosen = reference.best_sets([worths[k] for k in screened], SFL.buffer_size)
    return {frozenset(int(collected.place[screened[i]]) for i in indices) for indices in chosen}


def test_sfl_buffer_refreshes_screens_and_draws():
    simulation = shared("sfl_buffer").again(seed=3)
    buffer, drawn = None, []
    for step in range(7):
        proposals, collected, admission = simulation.step(step)
        training = proposals[-1]
        assert len(proposals) == (2 if step % SFL.refresh_every == 0 else 1)
        if len(proposals) == 2:
            screening = proposed_places(proposals[0])
            assert len(screening) == len(set(screening)) == SFL.candidates
            assert set(proposals[0].samples.tolist()) == {SFL.attempts}
            previous, buffer = buffer, frozenset(simulation.state.memory["buffer"].places.tolist())
            assert buffer in allowed_buffers(collected)
            assert buffer != previous
        assert frozenset(simulation.state.memory["buffer"].places.tolist()) == buffer  # it stays between refreshes
        assert simulation.state.memory["buffer"].mask.all()
        places = proposed_places(training)
        assert len(places) == QUESTIONS
        assert set(training.samples.tolist()) == {SAMPLES}
        assert len(set(places[:FROM_BUFFER])) == FROM_BUFFER
        assert set(places[:FROM_BUFFER]) <= buffer
        assert len(set(places[FROM_BUFFER:])) == QUESTIONS - FROM_BUFFER
        # Only the training round is trained on, all of it.
        assert admission.mask.all()
        assert set(collected.round[admission.indices].tolist()) == {len(proposals) - 1}
        assert sorted(collected.place[admission.indices].tolist()) == sorted(places)
        drawn += places[FROM_BUFFER:]
    assert set(drawn) - buffer  # the other part comes from the whole pool


def test_sfl_buffer_draws_uniformly_from_the_buffer():
    simulation = shared("sfl_buffer").again()
    simulation.step(0)
    nothing = jax.tree.map(jnp.asarray, simulation.empty(simulation.slots))
    keys = jax.random.split(jax.random.key(0), 1800)
    places = jax.jit(jax.vmap(lambda key: simulation.curriculum.propose(simulation.state, nothing, key).places))(keys)
    buffer = simulation.state.memory["buffer"].places.tolist()
    counts = np.array([np.sum(np.asarray(places[:, :FROM_BUFFER]) == question) for question in buffer])
    assert counts.sum() == 1800 * FROM_BUFFER
    assert np.sum((counts - 600) ** 2) / 600 < 25.7  # upper 1e-4 quantile of chi-square with 5 degrees of freedom


def test_sfl_buffer_fills_up_from_the_pool_when_too_few_candidates_were_measured():
    """One candidate with a verdict, five without: the buffer holds one question, and no place stays empty."""
    simulation = shared("sfl_buffer").again()
    for key in range(5):
        proposal = simulation.propose(simulation.state, simulation.empty(simulation.slots), jax.random.key(key))
        collected = simulation.empty(simulation.slots)
        collected.place[: SFL.candidates] = proposal.places[: SFL.candidates]
        collected.round[: SFL.candidates] = 0
        collected.attempts[3], collected.successes[3] = 3, 1
        batch = jax.device_get(simulation.propose(simulation.state, collected, jax.random.key(50 + key)))
        places = proposed_places(batch)
        assert len(places) == QUESTIONS
        assert places[0] == collected.place[3]
        assert min(places) >= 0
        assert len(set(places[1:])) == QUESTIONS - 1
        state = simulation.observe(simulation.state, collected, np.int32(0))
        assert int(state.memory["buffer"].mask.sum()) == 1


def test_sfl_buffer_can_take_all_or_none_of_the_batch_from_the_buffer():
    for fraction, count in ((0.0, 0), (1.0, QUESTIONS)):
        spec = SflBuffer(refresh_every=2, candidates=12, buffer_size=4, attempts=2, buffer_fraction=fraction)
        simulation = Simulation(spec, seed=1)
        proposals, _, admission = simulation.step(0)
        buffer = set(simulation.state.memory["buffer"].places.tolist())
        places = proposed_places(proposals[-1])
        assert len(places) == QUESTIONS
        assert admission.mask.all()
        if count:
            assert set(places) == buffer
    assert len(buffer) == 4


def test_sfl_buffer_keeps_the_best_of_the_screening_round_even_if_training_rollouts_score_higher():
    """The training round must not enter the buffer: its questions were chosen, not screened."""
    simulation = shared("sfl_buffer").again()
    _, collected = simulation.rounds(jax.random.key(0))
    training = collected.round == 1
    assert training.sum() == QUESTIONS
    collected.attempts[training], collected.successes[training] = 4, 2
    screened = collected.round == 0
    collected.attempts[screened], collected.successes[screened] = 3, 3
    best = np.flatnonzero(screened)[:6]
    collected.successes[best] = 1
    assert float(learnability(jnp.float32(1), jnp.float32(3))) < 0.25
    state = simulation.observe(simulation.state, collected, np.int32(0))
    assert set(state.memory["buffer"].places.tolist()) == set(collected.place[best].tolist())
