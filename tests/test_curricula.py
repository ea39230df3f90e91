"""The shipped curricula through the `Curriculum` contract, with outcomes made up by the test."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.curriculum.statistics import learnability
from lilo_jax.types import GroupSignals, GroupStatistics

POOL, QUESTIONS, SAMPLES = 40, 4, 5
SFL = SflBuffer(refresh_every=3, candidates=16, buffer_size=6, attempts=3, buffer_fraction=0.6)
FROM_BUFFER = 2  # floor(0.6 * 4)
SPECS = {"uniform": Uniform(), "lilo": Lilo(), "sfl_buffer": SFL}


class Simulation:
    """Serves proposals as a step does: opens groups, lets every rollout succeed by chance, sums up."""

    def __init__(self, spec, *, pool=POOL, seed=0, failing=0.0):
        self.curriculum = spec.build(pool_size=pool, questions=QUESTIONS, samples=SAMPLES)
        self.rng = np.random.default_rng(seed)
        self.rates = self.rng.choice([0.0, 0.3, 0.5, 0.9, 1.0], pool)
        self.failing = failing
        self.state = self.curriculum.init(no_facts(pool, self.curriculum.wants))
        self.propose, self.admit = jax.jit(self.curriculum.propose), jax.jit(self.curriculum.admit)
        self.observe = jax.jit(self.curriculum.observe)
        shape = jax.eval_shape(self.curriculum.propose, self.state, self.empty(1), jax.random.key(0))
        self.slots = shape.ids.shape[0] * self.curriculum.max_rounds

    @staticmethod
    def empty(slots):
        nothing, zeros = np.full(slots, -1, np.int32), np.zeros(slots, np.float32)
        return GroupStatistics(nothing, nothing.copy(), *(zeros.copy() for _ in range(5)))

    def rounds(self, key):
        """(proposals, collected) of one step."""
        collected, proposals = self.empty(self.slots), []
        for round_index in range(self.curriculum.max_rounds):
            proposal = jax.device_get(self.propose(self.state, collected, jax.random.fold_in(key, round_index)))
            if not proposal.mask.any():
                break
            proposals.append(proposal)
            assert np.all(proposal.continues == -1)
            for question, samples in zip(proposal.ids[proposal.mask], proposal.samples[proposal.mask], strict=True):
                assert samples <= self.curriculum.max_samples
                slot = int(np.sum(collected.question >= 0))
                graded = int(self.rng.binomial(samples, 1 - self.failing))
                successes = int(self.rng.binomial(graded, self.rates[question]))
                collected.question[slot], collected.round[slot] = question, round_index
                collected.attempts[slot], collected.successes[slot] = graded, successes
                collected.reward_sum[slot] = successes
                collected.rollouts[slot], collected.length_sum[slot] = samples, samples * (1 + question)
        return proposals, collected

    def step(self, step):
        """(proposals, collected, admission) of one step, which is remembered."""
        key = jax.random.fold_in(jax.random.key(7), step)
        proposals, collected = self.rounds(key)
        admission = jax.device_get(self.admit(self.state, collected, jax.random.fold_in(key, 99)))
        assert len(admission.indices) == QUESTIONS
        rollouts = collected.rollouts[admission.indices[admission.mask]].sum()
        assert rollouts <= self.curriculum.train_rows
        self.state = self.observe(self.state, collected, np.int32(step))
        return proposals, collected, admission


def scores_of(collected):
    """Variance of each group's outcomes, rounded so that equal ones are equal; None where nothing was measured."""
    scores = []
    for successes, attempts in zip(collected.successes.astype(int), collected.attempts.astype(int), strict=True):
        score = reference.learnability([1] * successes + [0] * (attempts - successes))
        scores.append(None if score is None else round(score, 6))
    return scores


def proposed_ids(proposal):
    return proposal.ids[proposal.mask].tolist()


# ------------------------------------------------------------------------------------------------- every curriculum
def test_every_entry_of_the_table_is_tested_here():
    assert {name: type(spec) for name, spec in SPECS.items()} == CURRICULA


@pytest.mark.parametrize("name", CURRICULA)
def test_every_curriculum_keeps_the_contract(name):
    """Distinct, unmasked groups of questions of the pool; everything collected is remembered, nothing else."""
    simulation = Simulation(SPECS[name], failing=0.1)
    steps = []
    for step in range(4):
        _, collected, admission = simulation.step(step)
        admitted = admission.indices[admission.mask]
        assert len(set(admitted.tolist())) == len(admitted) > 0
        assert np.all(collected.attempts[admitted] > 0)
        assert np.all((collected.question >= -1) & (collected.question < POOL))
        steps.append(
            [
                {
                    n: getattr(collected, n)[k].item()
                    for n in ("question", "attempts", "successes", "length_sum", "rollouts")
                }
                for k in range(simulation.slots)
            ]
        )
    for field, expected in reference.remembered(POOL, steps).items():
        np.testing.assert_array_equal(getattr(simulation.state, field), expected, err_msg=field)
    assert int(simulation.state.step) == 4
    assert float(simulation.state.rollouts.sum()) == sum(group["rollouts"] for step in steps for group in step)


@pytest.mark.parametrize("name", CURRICULA)
def test_proposals_depend_on_the_key_alone_and_vary_with_it(name):
    simulation = Simulation(SPECS[name])
    nothing = simulation.empty(simulation.slots)
    first, again, other = (simulation.propose(simulation.state, nothing, jax.random.key(k)).ids for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(np.asarray(first) != np.asarray(other))


@pytest.mark.parametrize("name", CURRICULA)
def test_shipped_curricula_ignore_the_update(name):
    curriculum = SPECS[name].build(pool_size=POOL, questions=QUESTIONS, samples=SAMPLES)
    state = curriculum.init(no_facts(POOL))
    signals = GroupSignals(advantage_abs=jnp.ones(QUESTIONS), value_loss=jnp.ones(QUESTIONS))
    after = curriculum.feedback(state, jnp.arange(QUESTIONS), jnp.ones(QUESTIONS, bool), signals, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize("name", CURRICULA)
def test_a_question_with_two_groups_is_remembered_for_both(name):
    simulation = Simulation(SPECS[name])
    collected = simulation.empty(simulation.slots)
    for slot, (question, attempts, successes) in enumerate([(7, 3, 1), (2, 3, 3), (7, 2, 2)]):
        collected.question[slot], collected.round[slot] = question, slot // 2
        collected.attempts[slot] = collected.rollouts[slot] = attempts
        collected.successes[slot] = successes
    state = simulation.observe(simulation.state, collected, np.int32(0))
    assert [float(x[7]) for x in (state.attempts, state.successes, state.visits)] == [5, 3, 2]
    assert [float(x[2]) for x in (state.attempts, state.successes, state.visits)] == [3, 3, 1]
    assert float(state.attempts.sum()) == 8
    assert np.flatnonzero(np.asarray(state.last_seen) == 0).tolist() == [2, 7]


# ------------------------------------------------------------------------------------------------------------ uniform
def test_uniform_proposes_distinct_questions_and_admits_all():
    simulation = Simulation(Uniform())
    seen = []
    for step in range(12):
        (proposal,), collected, admission = simulation.step(step)
        ids = proposed_ids(proposal)
        assert len(ids) == len(set(ids)) == QUESTIONS
        assert set(proposal.samples.tolist()) == {SAMPLES}
        assert admission.indices.tolist() == list(range(QUESTIONS))
        assert admission.mask.all()
        assert collected.question[admission.indices].tolist() == ids
        seen += ids
    assert len(set(seen)) > POOL / 2  # another draw every step


def test_uniform_leaves_out_groups_without_a_verdict():
    simulation = Simulation(Uniform())
    _, collected = simulation.rounds(jax.random.key(0))
    collected.attempts[2] = 0
    admission = simulation.admit(simulation.state, collected, jax.random.key(1))
    assert admission.indices[admission.mask].tolist() == [0, 1, 3]


# --------------------------------------------------------------------------------------------------------------- lilo
def test_lilo_proposes_four_times_the_batch_and_admits_the_most_learnable():
    simulation = Simulation(Lilo(), failing=0.15)
    sets_of_scores = set()
    for step in range(8):
        (proposal,), collected, admission = simulation.step(step)
        ids = proposed_ids(proposal)
        assert len(ids) == len(set(ids)) == 4 * QUESTIONS
        assert set(proposal.samples.tolist()) == {SAMPLES}
        scores = scores_of(collected)
        allowed = reference.best_sets(scores, QUESTIONS)
        assert frozenset(admission.indices.tolist()) in allowed
        assert len(allowed) < math.comb(16, 4) / 2  # ties leave some choice, not all
        sets_of_scores.add(frozenset(scores[i] for i in admission.indices))
    assert len(sets_of_scores) > 1


def test_lilo_admits_unmixed_groups_before_unmeasured_ones():
    """Two mixed groups, one unmixed, the rest never measured: three groups are admitted."""
    simulation = Simulation(Lilo())
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
    assert len(proposed_ids(proposal)) == QUESTIONS
    assert sorted(admission.indices.tolist()) == list(range(QUESTIONS))


# --------------------------------------------------------------------------------------------------------- sfl buffer
def allowed_buffers(collected):
    """Sets of questions that may be the buffer after the screening round, from the definition."""
    scores = scores_of(collected)
    screened = [k for k in range(len(collected.question)) if collected.round[k] == 0]
    chosen = reference.best_sets([scores[k] for k in screened], SFL.buffer_size)
    return {frozenset(int(collected.question[screened[i]]) for i in indices) for indices in chosen}


def test_sfl_buffer_refreshes_screens_and_draws():
    simulation = Simulation(SFL, seed=3)
    buffer, drawn = None, []
    for step in range(7):
        proposals, collected, admission = simulation.step(step)
        training = proposals[-1]
        assert len(proposals) == (2 if step % SFL.refresh_every == 0 else 1)
        if len(proposals) == 2:
            screening = proposed_ids(proposals[0])
            assert len(screening) == len(set(screening)) == SFL.candidates
            assert set(proposals[0].samples.tolist()) == {SFL.attempts}
            previous, buffer = buffer, frozenset(simulation.state.memory.ids.tolist())
            assert buffer in allowed_buffers(collected)
            assert buffer != previous
        assert frozenset(simulation.state.memory.ids.tolist()) == buffer  # it stays between refreshes
        assert simulation.state.memory.mask.all()
        ids = proposed_ids(training)
        assert len(ids) == QUESTIONS
        assert set(training.samples.tolist()) == {SAMPLES}
        assert len(set(ids[:FROM_BUFFER])) == FROM_BUFFER
        assert set(ids[:FROM_BUFFER]) <= buffer
        assert len(set(ids[FROM_BUFFER:])) == QUESTIONS - FROM_BUFFER
        # Only the training round is trained on, all of it.
        assert admission.mask.all()
        assert set(collected.round[admission.indices].tolist()) == {len(proposals) - 1}
        assert sorted(collected.question[admission.indices].tolist()) == sorted(ids)
        drawn += ids[FROM_BUFFER:]
    assert set(drawn) - buffer  # the other part comes from the whole pool


def test_sfl_buffer_draws_uniformly_from_the_buffer():
    simulation = Simulation(SFL)
    simulation.step(0)
    nothing = jax.tree.map(jnp.asarray, simulation.empty(simulation.slots))
    keys = jax.random.split(jax.random.key(0), 1800)
    ids = jax.jit(jax.vmap(lambda key: simulation.curriculum.propose(simulation.state, nothing, key).ids))(keys)
    buffer = simulation.state.memory.ids.tolist()
    counts = np.array([np.sum(np.asarray(ids[:, :FROM_BUFFER]) == question) for question in buffer])
    assert counts.sum() == 1800 * FROM_BUFFER
    assert np.sum((counts - 600) ** 2) / 600 < 25.7  # upper 1e-4 quantile of chi-square with 5 degrees of freedom


def test_sfl_buffer_fills_up_from_the_pool_when_too_few_candidates_were_measured():
    """One candidate with a verdict, five without: the buffer holds one question, and no place stays empty."""
    simulation = Simulation(SFL)
    for key in range(5):
        proposal = simulation.propose(simulation.state, simulation.empty(simulation.slots), jax.random.key(key))
        collected = simulation.empty(simulation.slots)
        collected.question[: SFL.candidates] = proposal.ids[: SFL.candidates]
        collected.round[: SFL.candidates] = 0
        collected.attempts[3], collected.successes[3] = 3, 1
        batch = jax.device_get(simulation.propose(simulation.state, collected, jax.random.key(50 + key)))
        ids = proposed_ids(batch)
        assert len(ids) == QUESTIONS
        assert ids[0] == collected.question[3]
        assert min(ids) >= 0
        assert len(set(ids[1:])) == QUESTIONS - 1
        state = simulation.observe(simulation.state, collected, np.int32(0))
        assert int(state.memory.mask.sum()) == 1


def test_sfl_buffer_can_take_all_or_none_of_the_batch_from_the_buffer():
    for fraction, count in ((0.0, 0), (1.0, QUESTIONS)):
        spec = SflBuffer(refresh_every=2, candidates=12, buffer_size=4, attempts=2, buffer_fraction=fraction)
        simulation = Simulation(spec, seed=1)
        proposals, _, admission = simulation.step(0)
        buffer = set(simulation.state.memory.ids.tolist())
        ids = proposed_ids(proposals[-1])
        assert len(ids) == QUESTIONS
        assert admission.mask.all()
        if count:
            assert set(ids) == buffer
    assert len(buffer) == 4


def test_sfl_buffer_keeps_the_best_of_the_screening_round_even_if_training_rollouts_score_higher():
    """The training round must not enter the buffer: its questions were chosen, not screened."""
    simulation = Simulation(SFL)
    _, collected = simulation.rounds(jax.random.key(0))
    training = collected.round == 1
    assert training.sum() == QUESTIONS
    collected.attempts[training], collected.successes[training] = 4, 2
    screened = collected.round == 0
    collected.attempts[screened], collected.successes[screened] = 3, 3
    best = np.flatnonzero(screened)[:6]
    collected.successes[best] = 1
    assert float(learnability(1.0, 3.0)) < 0.25
    state = simulation.observe(simulation.state, collected, np.int32(0))
    assert set(state.memory.ids.tolist()) == set(collected.question[best].tolist())


# ------------------------------------------------------------------------------------------------------- bad settings
@pytest.mark.parametrize(
    ("spec", "questions", "option"),
    [
        (Lilo(pool_ratio=0), 4, "--curriculum.pool-ratio"),
        (Lilo(pool_ratio=-1), 4, "--curriculum.pool-ratio"),
        (Lilo(), 11, "--curriculum.pool-ratio"),
        (SflBuffer(), 4, "--curriculum.candidates"),
        (SflBuffer(candidates=20, buffer_size=21), 4, "--curriculum.buffer-size"),
        (SflBuffer(candidates=20, buffer_size=1), 4, "--curriculum.buffer-size"),
        (SflBuffer(candidates=20, buffer_size=8, refresh_every=0), 4, "--curriculum.refresh-every"),
        (SflBuffer(candidates=20, buffer_size=8, attempts=0), 4, "--curriculum.attempts"),
        (SflBuffer(candidates=20, buffer_size=8, buffer_fraction=1.5), 4, "--curriculum.buffer-fraction"),
        (SflBuffer(candidates=20, buffer_size=8, buffer_fraction=-0.1), 4, "--curriculum.buffer-fraction"),
        (SflBuffer(candidates=40, buffer_size=40), 41, "--rollout.questions"),
    ],
)
def test_bad_settings_name_the_option(spec, questions, option):
    with pytest.raises(ValueError, match=option):
        spec.build(pool_size=POOL, questions=questions, samples=SAMPLES)


def test_settings_at_the_limits_build():
    Lilo(pool_ratio=1).build(pool_size=POOL, questions=POOL, samples=1)
    Lilo().build(pool_size=POOL, questions=POOL // 4, samples=1)
    limits = SflBuffer(candidates=POOL, buffer_size=POOL, refresh_every=1, attempts=1, buffer_fraction=1.0)
    built = limits.build(pool_size=POOL, questions=POOL, samples=2)
    assert (built.max_rounds, built.max_samples, built.train_rows) == (2, 2, 2 * POOL)
