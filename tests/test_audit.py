"""Audits: their measures against loops and hand-worked cases, and that a run is the same with and without one."""

import dataclasses
import math

import numpy as np
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.curriculum.estimators import beta
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.calibration import (
    AuditConfig,
    audit_measures,
    brier,
    by_visits,
    calibration_error,
    rank_correlation,
    ranks,
    reference_learnability,
    regret,
)
from lilo_jax.evaluation.held_out import exact_rates
from lilo_jax.keys import start_keys
from lilo_jax.pretrained.sources import starting_model
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.digest import digests
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import NoiseConfig
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.facts import question_facts
from lilo_jax.training.run import run
from lilo_jax.training.trainer import audit_belief
from lilo_jax.types import Estimate


# ------------------------------------------------------------------------------------------------------- the measures
def drawn(seed, questions=37, samples=6):
    rng = np.random.default_rng(seed)
    belief = np.round(rng.random(questions), 1)  # with ties, and beliefs on the edges of bins
    return belief, rng.integers(0, samples + 1, questions).astype(float), np.full(questions, float(samples))


@pytest.mark.parametrize("seed", range(5))
def test_brier_against_single_outcomes(seed):
    belief, successes, attempts = drawn(seed)
    errors = []
    for m, s, n in zip(belief, successes, attempts, strict=True):
        outcomes = [1] * int(s) + [0] * int(n - s)
        errors.append(sum((m - y) ** 2 for y in outcomes) / n)
    assert brier(belief, successes, attempts) == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_against_a_loop_over_bins(seed):
    belief, successes, attempts = drawn(seed)
    rate, total = successes / attempts, 0.0
    for b in range(10):
        inside = [i for i, m in enumerate(belief) if b <= m * 10 < b + 1 or (b == 9 and m == 1)]
        if inside:
            gap = np.mean([belief[i] for i in inside]) - np.mean([rate[i] for i in inside])
            total += len(inside) / len(belief) * abs(gap)
    assert calibration_error(belief, rate) == pytest.approx(total)


def test_calibration_error_by_hand():
    # Bin .2 to .3: beliefs .2 and .29 of rates 0 and .5, a gap of .005; the last bin: .95 and 1 of rates 1 and .5.
    found = calibration_error(np.array([0.2, 0.29, 0.95, 1.0]), np.array([0.0, 0.5, 1.0, 0.5]))
    assert found == pytest.approx((2 * 0.005 + 2 * 0.225) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_their_correlation_against_counting(seed):
    x, y, _ = drawn(seed)

    def counted(values):
        return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]

    assert ranks(x).tolist() == counted(x)
    assert rank_correlation(x, y) == pytest.approx(np.corrcoef(counted(x), counted(y))[0, 1])


def test_rank_correlation_by_hand():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 90])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([9.0, 2, 1])) == pytest.approx(-1)
    # Ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3, both about 1.5.
    assert rank_correlation(np.array([1.0, 2, 2, 3]), np.arange(4.0)) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None


def test_learnability_of_the_reference_is_unbiased():
    """Over all outcomes of n rollouts, weighted by their probability."""
    for n, p in ((2, 0.3), (5, 0.9)):
        weights = [math.comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]
        found = reference_learnability(np.arange(n + 1.0), np.full(n + 1, float(n)))
        assert np.dot(weights, found) == pytest.approx(p * (1 - p))


def test_regret_by_hand():
    scores, learnability = np.array([0.1, 0.2, 0.2, 0.0]), np.array([0.25, 0.0, 0.2, 0.1])
    assert regret(scores, learnability, 1) == pytest.approx(0.25)  # of equal scores the first is chosen
    assert regret(scores, learnability, 2) == pytest.approx((0.25 + 0.2) / 2 - (0.0 + 0.2) / 2)
    assert regret(learnability, learnability, 2) == 0
    assert regret(scores, learnability, 4) == 0


def test_a_belief_is_judged_where_it_is_held_and_measured():
    belief = np.array([0.5, np.nan, 0.0, 0.9, 0.3])
    successes, attempts = np.array([2.0, 4, 0, 1, 1]), np.array([4.0, 4, 4, 1, 3])
    found = audit_measures(belief, successes, attempts, 2 * successes)
    kept = [0, 2, 4]  # of the fourth there is one rollout only
    assert found["success_mean"] == pytest.approx(np.mean([0.5, 1, 0, 1 / 3]))
    assert found["reward_mean"] == pytest.approx(2 * found["success_mean"])
    assert found["learnability_mean"] == pytest.approx(np.mean([1 / 3, 0, 0, 1 / 3]))
    assert found["brier"] == brier(belief[kept], successes[kept], attempts[kept])
    assert found["regret"] == 0
    assert set(audit_measures(None, successes, attempts, successes)) == {
        "success_mean",
        "reward_mean",
        "learnability_mean",
        "mixed_fraction",
    }
    assert found["mixed_fraction"] == pytest.approx(2 / 4)
    nothing = audit_measures(belief, successes, np.zeros(5), successes)
    assert set(nothing) == set(found)
    assert set(nothing.values()) == {None}


def test_a_belief_is_judged_by_how_often_its_questions_were_rolled_out():
    belief, successes, attempts = np.array([0.1, 0.8, 0.4, 0.9, 0.5]), np.array([0.0, 4, 1, 3, 4]), np.full(5, 4.0)
    found = by_visits(belief, successes, attempts, successes, np.array([0, 7, 0, 2, 7]))
    for name, kept in (("never", [0, 2]), ("often", [1, 3, 4])):
        part = audit_measures(belief[kept], successes[kept], attempts[kept], successes[kept])
        assert {measure: found[f"{measure}_{name}"] for measure in part} == part
    # Never: (0.01 + (0.6 ** 2 + 3 * 0.4 ** 2) / 4) / 2; none of them is solved more often than not.
    assert found["brier_never"] == pytest.approx((0.01 + 0.21) / 2)
    assert found["auroc_never"] is None
    assert {found[f"{measure}_once"] for measure in part} == {None}


@pytest.mark.parametrize("settings", [{"questions": -1}, {"questions": 65}, {"every": 0}, {"samples": 1}])
def test_impossible_audits_are_refused(settings, tiny_config):
    config = dataclasses.replace(tiny_config, audit=AuditConfig(**settings))
    with pytest.raises(UsageError, match=f"--audit.{next(iter(settings))}"):
        check(config)


# ---------------------------------------------------------------------------------------------------- audits of a run
@dataclasses.dataclass(frozen=True)
class Believing(Lilo):
    """LILO with the belief of a Beta posterior, which it does not use."""

    def build(self, *, pool_size, questions, samples):
        def estimate(state, places, key):
            return beta(state.successes[places] + 1, state.attempts[places] - state.successes[places] + 1)

        return super().build(pool_size=pool_size, questions=questions, samples=samples)._replace(estimate=estimate)


@pytest.mark.slow
def test_a_run_is_the_same_with_and_without_audits(tiny_config, tiny_start, tmp_path):
    runs = {}
    for name, questions in (("plain", 0), ("audited", 9)):
        config = configuration.replace(
            tiny_config, num_steps=4, model__path=tiny_start, sft__steps=0, curriculum=Believing(), algorithm=Rloo(),
            audit=AuditConfig(questions, every=2, samples=5), noise=NoiseConfig(coin_flips=0.3),
        )  # fmt: skip
        runs[name] = run(config, Launch(output_dir=str(tmp_path / name))).directory
    plain, audited = (runs[name].read("metrics") for name in runs)
    measures = {"brier", "ece", "auroc", "spearman", "regret", "success_mean", "reward_mean", "learnability_mean"}
    measures |= {"mixed_fraction"}
    measures |= {f"{name}_{visits}" for name in measures for visits in ("never", "once", "often")}
    for step, (without, with_audit) in enumerate(zip(plain, audited, strict=True)):
        found = {name: with_audit.pop(name) for name in list(with_audit) if name.startswith("audit/")}
        assert with_audit == without
        assert set(found) == ({f"audit/{name}" for name in measures} if step % 2 == 0 else set())
    for without, with_audit in zip(runs["plain"].read("ledger"), runs["audited"].read("ledger"), strict=True):
        changed = {name for name in without if without[name] != with_audit[name]}
        assert changed == {"audit/prefilled", "audit/generated", "audit/flops"}
    assert runs["plain"].read("eval") == runs["audited"].read("eval")
    assert runs["plain"].read("groups") == runs["audited"].read("groups")
    told = {}
    for groups, without in zip(runs["plain"].read("groups"), plain, strict=True):
        asked = list(zip(*(groups[name] for name in ("question", "correct", "graded", "belief")), strict=True))
        counts = [told.get(question, (0, 0)) for question, *_ in asked]  # of the belief, before it hears of the step
        means = [(right + 1) / (graded + 2) for right, graded in counts]
        assert groups["belief"] == pytest.approx(means, abs=1e-4)
        assert len(asked) == without["curriculum/groups_collected"]
        assert sum(groups["admitted"]) == without["curriculum/groups_admitted"]
        for question, right, graded, _ in asked:
            before = told.get(question, (0, 0))
            told[question] = (before[0] + right, before[1] + graded)
    plain_state, audited_state = (digests(directory) for directory in runs.values())
    assert {n for n in plain_state if plain_state[n] != audited_state[n]} == {"record"}
    answers = [[r["answers"] for r in directory.read("grading")] for directory in runs.values()]
    assert answers[0] == answers[1]
    spent = [directory.read("timings") for directory in runs.values()]
    assert [["audit" in r for r in records] for records in spent] == [[False] * 4, [True, False, True, False]]


@pytest.mark.slow
def test_an_audit_of_the_whole_pool_against_exact_success_rates(tiny_config, tiny_start, tmp_path):
    """The task's success rates are known exactly: a belief in them is calibrated, and one in their opposite is not."""
    config = configuration.replace(tiny_config, model__path=tiny_start, sft__steps=0, audit=AuditConfig(64, samples=32))
    start = starting_model(config, tmp_path)
    assembly = assemble(config, check(config), tokenizer=start.tokenizer())
    params = start.weights(assembly.programs.model, assembly.mesh)
    ledger = Ledger()
    rates = exact_rates(assembly.evaluator, params, assembly.pool_answers, ledger)
    facts = question_facts(assembly, params, ledger)
    state = assembly.programs.start(params, None, start_keys(0), facts)

    def audited(belief):
        estimate = belief is not None and (lambda _, places, key: Estimate(belief[places], 0 * belief[places]))
        believing = dataclasses.replace(assembly, programs=assembly.programs._replace(estimate=estimate or None))
        return audit_belief(believing, state, 0, ledger, PhaseClock())

    found, opposite, none = audited(rates), audited(1 - rates), audited(None)
    error = 4 * math.sqrt(np.sum(rates * (1 - rates)) / 32) / 64
    assert error < 0.05
    assert found["audit/success_mean"] == pytest.approx(rates.mean(), abs=error)
    assert found["audit/reward_mean"] == found["audit/success_mean"]
    assert found["audit/learnability_mean"] == pytest.approx(np.mean(rates * (1 - rates)), abs=error)
    assert found["audit/brier"] == pytest.approx(found["audit/learnability_mean"], abs=0.01)
    assert found["audit/ece"] < 0.05 < opposite["audit/ece"]
    assert opposite["audit/brier"] > found["audit/brier"] + 0.05
    assert found["audit/spearman"] > 0.5
    assert 0 <= found["audit/regret"] < 0.05
    assert none == {name: found[name] for name in none}
    counts = ledger.to_dict()
    assert counts["audit/prefilled"] == 3 * assembly.pool.lengths.sum()
    assert counts["audit/generated"] > 3 * 64 * 32
