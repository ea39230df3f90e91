"""Rules that ask in rounds: when they stop, how much they ask for, and what they train on."""

import jax
import numpy as np
import pytest
from curriculum_simulation import QUESTIONS, SAMPLES, Simulation

from lilo_jax.curriculum import CURRICULA

KEY = jax.random.key(0)


def test_greso_sizes_later_rounds_by_what_passed():
    simulation = Simulation(CURRICULA["greso"]())
    _, collected = simulation.rounds(KEY)
    for passed, expected in [(1, 6), (2, 6), (3, 3), (4, 0)]:  # ceil(1.25 x missing x 6 / passed), at most 6
        collected = simulation.empty(simulation.slots)
        collected.place[:6], collected.round[:6] = np.arange(6), 0
        collected.attempts[:6], collected.successes[:passed] = 5, 2
        proposal = simulation.propose(simulation.state, collected, KEY)
        assert int(proposal.mask.sum()) == expected
        assert not set(range(6)) & set(proposal.places[proposal.mask].tolist())


@pytest.mark.parametrize(
    ("name", "settings", "passes"),
    [
        ("dapo", {"round_ratio": 1, "most_rounds": 5}, lambda s, n: 0 < s < n),
        ("balanced", {"most_rounds": 5}, lambda s, n: 0.2 <= s / n <= 0.8),
    ],
)
def test_refilling_goes_on_until_enough_groups_pass(name, settings, passes):
    simulation = Simulation(CURRICULA[name](**settings), seed=2)
    rounds = set()
    for step in range(6):
        proposals, collected, admission = simulation.step(step)
        passed, expected_rounds = [], 0
        for index, proposal in enumerate(proposals):
            assert len(passed) < QUESTIONS
            assert proposal.mask.sum() == QUESTIONS
            slots = np.flatnonzero(collected.round == index)
            passed += [k for k in slots if passes(collected.successes[k], collected.attempts[k])]
            expected_rounds = index + 1
        assert len(passed) >= QUESTIONS or expected_rounds == 5
        assert admission.indices[admission.mask].tolist() == passed[:QUESTIONS]
        assert len(set(collected.place[collected.place >= 0].tolist())) == QUESTIONS * expected_rounds
        rounds.add(expected_rounds)
    assert len(rounds) > 1


def test_prime_prefers_its_band_and_fills_up():
    simulation = Simulation(CURRICULA["prime"](oversample=2), seed=1)
    shares = set()
    for step in range(6):
        (proposal,), collected, admission = simulation.step(step)
        assert proposal.mask.sum() == 2 * QUESTIONS
        rate = collected.successes / np.maximum(collected.attempts, 1)
        inside = [k for k in range(8) if 0.2 <= rate[k] <= 0.8]
        outside = [k for k in range(8) if k not in inside]
        assert admission.mask.all()
        assert admission.indices.tolist() == (inside + outside)[:QUESTIONS]
        shares.add(len(inside))
    assert min(shares) < QUESTIONS


def test_speed_completes_groups_whose_screening_was_mixed():
    simulation = Simulation(CURRICULA["speed"](screen=0.4), seed=1)  # 2 of 5 screen
    for step in range(4):
        key = jax.random.fold_in(jax.random.key(7), step)
        screening = jax.device_get(simulation.propose(simulation.state, simulation.empty(simulation.slots), key))
        assert screening.mask.sum() == 16
        assert set(screening.samples.tolist()) == {2}
        collected = simulation.empty(simulation.slots)
        simulation._serve(screening, collected, 0)
        mixed = [k for k in range(16) if collected.successes[k] == 1 and collected.attempts[k] == 2]
        rest = jax.device_get(simulation.propose(simulation.state, collected, key))
        assert rest.continues[rest.mask].tolist() == mixed[:QUESTIONS]
        assert set(rest.samples[rest.mask].tolist()) <= {3}
        simulation._serve(rest, collected, 1)
        admission = simulation.admit(simulation.state, collected, key)
        assert admission.indices[admission.mask].tolist() == mixed[:QUESTIONS]
        assert set(collected.rollouts[mixed[:QUESTIONS]].tolist()) <= {5.0}


def test_lilo_sequential_spends_its_budget_where_success_varied():
    simulation = Simulation(CURRICULA["lilo_sequential"](rounds=2), seed=4)
    later = []
    for step in range(8):
        proposals, collected, admission = simulation.step(step)
        assert collected.rollouts.sum() == QUESTIONS * SAMPLES
        assert proposals[0].mask.sum() == 2 * QUESTIONS
        assert set(proposals[0].samples.tolist()) == {2}
        assert admission.mask.sum() == 2 * QUESTIONS  # all are trained on
        later += [(collected.rollouts[k], 0 < collected.successes[k] < collected.attempts[k]) for k in range(8)]
    more, less = ([mixed for rollouts, mixed in later if (rollouts > 2) == drawn] for drawn in (True, False))
    assert np.mean(more) > np.mean(less) + 0.3
    # In proportion to p(1 - p): of two mixed groups and a third without variance, the two are drawn.
    collected = simulation.empty(simulation.slots)
    collected.place[:8], collected.round[:8] = np.arange(8), 0
    collected.attempts[:8] = collected.rollouts[:8] = 2
    collected.successes[[2, 5]] = 1
    simulation = Simulation(CURRICULA["lilo_sequential"](rounds=1))
    proposal = jax.device_get(simulation.propose(simulation.state, collected, KEY))
    assert sorted(proposal.continues[proposal.mask].tolist()) == [2, 5]


def test_a_prior_lets_lilo_sequential_return_to_groups_that_agreed():
    """Two rollouts alike, with half a right and half a wrong one besides, are worth 5/6 x 1/6; mixed ones 1/4."""
    collected = Simulation.empty(Simulation(CURRICULA["lilo_sequential"]()).slots)
    collected.place[:8], collected.round[:8] = np.arange(8), 0
    collected.attempts[:8] = collected.rollouts[:8] = 2
    collected.successes[[2, 5]] = 1
    drawn = {}
    for prior in (0.0, 0.5):
        simulation = Simulation(CURRICULA["lilo_sequential"](rounds=4, prior=prior))
        proposals = [simulation.propose(simulation.state, collected, key) for key in jax.random.split(KEY, 60)]
        continued = np.concatenate([np.asarray(p.continues)[np.asarray(p.mask)] for p in proposals])
        drawn[prior] = np.mean(np.isin(continued, [2, 5], invert=True))
    assert drawn[0.0] == 0
    agreed, mixed = 6 * 5 / 36, 2 / 4
    assert abs(drawn[0.5] - agreed / (agreed + mixed)) < 0.12  # one of 8 a draw


@pytest.mark.parametrize("samples", [8, 16, 32])
def test_lilo_sequential_spends_the_whole_budget_by_what_was_shown(samples):
    """With its defaults; no round asks for more than half of the candidates, or nothing would be left to choose."""
    simulation = Simulation(CURRICULA["lilo_sequential"](), samples=samples)
    for step in range(3):
        proposals, collected, admission = simulation.step(step)
        assert collected.rollouts.sum() == QUESTIONS * samples
        assert max(proposal.mask.sum() for proposal in proposals[1:]) <= QUESTIONS
        assert admission.mask.sum() == 2 * QUESTIONS
        assert len(set(collected.rollouts[:8].tolist())) > 1


@pytest.mark.parametrize(("more", "spent"), [(1, 20), (3, 19), (4, 20)])
def test_lilo_sequential_leaves_less_than_a_draw(more, spent):
    simulation = Simulation(CURRICULA["lilo_sequential"](more=more))
    assert simulation.step(0)[1].rollouts.sum() == spent


@pytest.mark.parametrize(("wrong", "ends"), [(1, lambda s, n: 0 < s < n), (0, lambda s, n: s > 0)])
def test_reinforce_ada_stops_when_enough_was_shown(wrong, ends):
    simulation = Simulation(CURRICULA["reinforce_ada"](rounds=4, wrong=wrong), seed=3)
    sizes = set()
    for step in range(5):
        proposals, collected, _ = simulation.step(step)
        assert set(proposals[0].samples.tolist()) == {2}
        assert all(set(p.samples[p.mask].tolist()) == {1} for p in proposals[1:])
        for k in range(QUESTIONS):
            done = ends(collected.successes[k], collected.attempts[k])
            assert done or collected.rollouts[k] == SAMPLES
            sizes.add(int(collected.rollouts[k]))
    assert {2, SAMPLES} <= sizes
