"""Serves the proposals of a curriculum as a step does, with outcomes made up by chance."""

import copy

import jax
import jax.numpy as jnp
import numpy as np

from lilo_jax.curriculum import CURRICULA
from lilo_jax.types import Facts, GroupSignals, GroupStatistics

POOL, QUESTIONS, SAMPLES = 40, 4, 5


def facts(pool, wants, seed=0):
    """Made-up facts: features, grades of which some are missing, three categories, five levels in each."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(pool, max(wants.features, 1))) / np.sqrt(max(wants.features, 1))
    grade = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0, np.nan], pool).astype(np.float32)
    return Facts(
        features=jnp.asarray(features, jnp.float32) if wants.features else None,
        grade=jnp.asarray(grade),
        category=jnp.asarray(np.arange(pool) % 3, jnp.int32),
        level=jnp.asarray(np.arange(pool) // 3 % 5, jnp.int32),
    )


def proposed(name, groups, put=lambda tree: tree):
    """(places, mask) of what a rule asks first, and then on seeing some groups, which it has learnt from, again.

    Args:
        name: of the rule, whose batch is 16 questions of a pool of 64.
        groups: of the pool, GroupStatistics.
        put: places arrays on devices.
    """
    curriculum = CURRICULA[name]().build(pool_size=64, questions=16, samples=4)
    state, groups = curriculum.init(put(facts(64, curriculum.wants))), put(groups)
    rate = groups.successes / jnp.maximum(groups.attempts, 1)
    signals = GroupSignals(advantage_abs=2 * rate * (1 - rate), value_loss=rate)
    state = jax.jit(curriculum.observe)(state, groups, jnp.int32(0))
    state = jax.jit(curriculum.feedback)(state, groups.place, groups.attempts > 0, signals, jnp.int32(0))
    found = []
    for collected in (put(Simulation.empty(len(groups.place))), groups):
        proposal = jax.jit(curriculum.propose)(state, collected, jax.random.key(3))
        found.append([proposal.places.tolist(), proposal.mask.tolist()])
    return found


class Simulation:
    """Opens groups, or goes on with them, lets every rollout succeed by chance, sums up."""

    def __init__(self, spec, *, pool=POOL, samples=SAMPLES, seed=0, failing=0.0):
        self.curriculum = spec.build(pool_size=pool, questions=QUESTIONS, samples=samples)
        self.pool = pool
        self.propose, self.admit = jax.jit(self.curriculum.propose), jax.jit(self.curriculum.admit)
        self.observe, self.feedback = jax.jit(self.curriculum.observe), jax.jit(self.curriculum.feedback)
        self._start(seed, failing)
        shape = jax.eval_shape(self.curriculum.propose, self.state, self.empty(1), jax.random.key(0))
        self.slots = shape.places.shape[0] * self.curriculum.max_rounds

    def _start(self, seed, failing):
        self.rng = np.random.default_rng(seed)
        self.rates = self.rng.choice([0.0, 0.3, 0.5, 0.9, 1.0], self.pool)
        self.failing = failing
        self.state = self.curriculum.init(facts(self.pool, self.curriculum.wants))

    def again(self, *, seed=0, failing=0.0):
        """The same compiled functions, from the first step on."""
        other = copy.copy(self)
        other._start(seed, failing)
        return other

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
            self._serve(proposal, collected, round_index)
        return proposals, collected

    def _serve(self, proposal, collected, round_index):
        meant = proposal.mask
        joined = proposal.continues[meant][proposal.continues[meant] >= 0]
        assert len(set(joined.tolist())) == len(joined)
        for question, samples, continues in zip(
            proposal.places[meant], proposal.samples[meant], proposal.continues[meant], strict=True
        ):
            assert 0 <= question < self.pool
            slot = int(continues) if continues >= 0 else int(np.sum(collected.place >= 0))
            assert continues < 0 or collected.place[slot] == question
            graded = int(self.rng.binomial(samples, 1 - self.failing))
            successes = int(self.rng.binomial(graded, self.rates[question]))
            collected.place[slot] = question
            collected.round[slot] = collected.round[slot] if continues >= 0 else round_index
            collected.attempts[slot] += graded
            collected.successes[slot] += successes
            collected.reward_sum[slot] += successes
            collected.rollouts[slot] += samples
            collected.length_sum[slot] += samples * (1 + question)
            assert 0 < collected.rollouts[slot] <= self.curriculum.max_samples

    def step(self, step):
        """(proposals, collected, admission) of one step, which is remembered."""
        key = jax.random.fold_in(jax.random.key(7), step)
        proposals, collected = self.rounds(key)
        admission = jax.device_get(self.admit(self.state, collected, jax.random.fold_in(key, 99)))
        assert len(admission.indices) >= QUESTIONS
        rollouts = collected.rollouts[admission.indices[admission.mask]].sum()
        assert rollouts <= self.curriculum.train_rows
        self.state = self.observe(self.state, collected, np.int32(step))
        return proposals, collected, admission

    def update(self, collected, admission, step):
        """Feeds back what an update with the group's mean as baseline would have seen."""
        question = np.where(admission.mask, collected.place[admission.indices], -1).astype(np.int32)
        rate = (collected.successes / np.maximum(collected.attempts, 1))[admission.indices]
        size = np.where(admission.mask, 2 * rate * (1 - rate), 0).astype(np.float32)
        signals = GroupSignals(advantage_abs=size, value_loss=np.zeros_like(size))
        self.state = self.feedback(self.state, question, admission.mask, signals, np.int32(step))
