"""Shaped rewards and planted flaws; the outcome that learnability is computed from stays apart."""

import dataclasses
import functools
import json
import time
import types

import numpy as np
import pytest
import scipy.stats

from lilo_jax import bounds
from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import UsageError
from lilo_jax.grading.rewards import FORMATS, RewardConfig, correctness
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks.noise import COIN_FLIP, WRONG_KEY, NoiseConfig, disturbed, plant
from lilo_jax.training import accounting
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.collection import Collected
from lilo_jax.training.run import run
from lilo_jax.types import Admission, Estimate, GroupStatistics

R1 = " I add them.</think> <answer>5</answer>"


@pytest.mark.parametrize(
    ("form", "response", "has_it"),
    [
        ("boxed", r"so \boxed{5}", True),
        ("boxed", r"so \boxed{\frac{1}{2}} it is", True),
        ("boxed", r"so \boxed{}", False),
        ("boxed", "so 5", False),
        ("hashes", "2 + 3 = 5\n#### 5", True),
        ("hashes", "#### 5\n", True),
        ("hashes", "#### 5\nso five", False),
        ("hashes", "2 + 3 = 5\n####", False),
        ("r1", R1, True),
        ("r1", R1.removesuffix("</answer>"), True),
        ("r1", R1.replace("> <", "><"), False),
        ("r1", R1.replace("</think>", ""), False),
        ("r1", R1 + " <answer>6</answer>", False),
        ("r1", "</think> <answer>5</answer>", False),
    ],
)
def test_formats(form, response, has_it):
    assert FORMATS[form](response) is has_it


@pytest.mark.parametrize("form", FORMATS)
def test_a_form_is_told_at_once_of_anything(form):
    for piece in ("#", "</think>", "\\boxed{", " "):
        started = time.thread_time()
        FORMATS[form](piece * 50_000 + "\nx")
        assert time.thread_time() - started < 2


def test_the_reward_is_correctness_unless_it_is_shaped():
    reward = RewardConfig().build(max_new_tokens=10)
    assert reward is correctness
    assert [reward("", verdict, 3) for verdict in Verdict] == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_format_and_length_add_up():
    reward = RewardConfig(format="boxed", format_weight=0.25, length_penalty=1.0, length_free=6).build(
        max_new_tokens=10
    )
    assert reward(r"\boxed{5}", Verdict.CORRECT, 6) == 1.25
    assert reward(r"\boxed{5}", Verdict.WRONG, 8) == 0.25 - 0.5
    assert reward("5", Verdict.CORRECT, 10) == 0.0
    assert reward("5", Verdict.NO_ANSWER, 1) == 0.0


def test_the_length_penalty_is_dapos():
    """Yu et al. 2025, equation 13, with L_max = 20 and L_cache = 5."""
    reward = RewardConfig(length_penalty=1.0, length_free=15).build(max_new_tokens=20)
    for length in range(21):
        dapo = 0.0 if length <= 15 else (15 - length) / 5
        assert reward("", Verdict.WRONG, length) == pytest.approx(dapo)


# ----------------------------------------------------------------------------------------------------------- noise
POOL = [Question(prompt=f"{i}?", answer=str(i % 7), solution=f"#### {i % 7}") for i in range(200)]


def test_flaws_are_planted_at_their_shares_and_named():
    noise = NoiseConfig(wrong_keys=0.05, coin_flips=0.1)
    planted = plant(POOL, noise, seed=3)
    assert [q.prompt for q in planted] == [q.prompt for q in POOL]
    traps = [q.trap for q in planted]
    assert (traps.count(WRONG_KEY), traps.count(COIN_FLIP)) == (10, 20)
    for before, after in zip(POOL, planted, strict=True):
        if after.trap == WRONG_KEY:
            assert after.answer != before.answer
            assert after.solution == f"#### {after.answer}"
        else:
            assert dataclasses.replace(after, trap="") == before
    assert planted == plant(POOL, noise, seed=3) != plant(POOL, noise, seed=4)
    assert plant(POOL, NoiseConfig(), seed=3) == POOL


@pytest.mark.parametrize(
    ("noise", "says"),
    [
        (NoiseConfig(wrong_keys=-0.1), "--wrong-keys must be at least 0 and at most 1"),
        (NoiseConfig(label_noise=1.1), "--label-noise must be at least 0 and at most 1"),
        (NoiseConfig(wrong_keys=0.6, coin_flips=0.6), "together must be at most 1"),
    ],
)
def test_impossible_shares_are_refused(noise, says):
    with pytest.raises(UsageError, match=says):  # noqa: PT012
        bounds.check(noise)
        plant(POOL, noise, seed=0)


def test_a_wrong_key_needs_another_answer():
    with pytest.raises(UsageError, match="different answers"):
        plant([Question("a", "1"), Question("b", "1")], NoiseConfig(wrong_keys=1.0), seed=0)


def test_coins_are_fair_and_noise_has_its_rate():
    coin, plain = Question("", "1", trap=COIN_FLIP), Question("", "1")
    draws = [(0, step, 0, i) for step in range(20) for i in range(200)]
    heads = sum(disturbed(Verdict.WRONG, coin, NoiseConfig(coin_flips=0.1), d) is Verdict.CORRECT for d in draws)
    assert scipy.stats.binomtest(heads, len(draws), 0.5).pvalue > 1e-4
    noise = NoiseConfig(label_noise=0.2)
    for verdict, turned in ((Verdict.CORRECT, Verdict.WRONG), (Verdict.NO_ANSWER, Verdict.CORRECT)):
        found = [disturbed(verdict, plain, noise, d) for d in draws]
        assert set(found) == {verdict, turned}
        assert scipy.stats.binomtest(found.count(turned), len(draws), 0.2).pvalue > 1e-4
    assert disturbed(Verdict.CORRECT, plain, noise, draws[0]) is disturbed(Verdict.CORRECT, plain, noise, draws[0])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_without_noise_and_where_the_grader_failed_nothing_is_disturbed(verdict):
    coin = Question("", "1", trap=COIN_FLIP)
    assert disturbed(verdict, coin, NoiseConfig(), (0, 0, 0, 0)) is verdict
    if verdict in (Verdict.TIMEOUT, Verdict.ERROR):
        noise = NoiseConfig(coin_flips=1.0, label_noise=1.0)
        assert all(disturbed(verdict, coin, noise, (0, 0, 0, i)) is verdict for i in range(50))


@pytest.mark.slow
def test_shaping_changes_rewards_but_not_what_success_is(tiny_config, tiny_start, tmp_path):
    """A penalty on every token makes rewards fractions; successes and their histogram stay whole."""
    config = configuration.replace(
        tiny_config,
        model__path=tiny_start,
        sft__steps=0,
        num_steps=2,
        reward=RewardConfig(length_penalty=0.5),
        noise=NoiseConfig(coin_flips=0.5),
    )
    result = run(config, Launch(output_dir=str(tmp_path / "run")))
    for record in result.directory.read("metrics"):
        histogram = record["curriculum/collected_histogram"]
        rates = np.repeat(np.arange(5) / 4, histogram)
        assert record["curriculum/collected_success_mean"] == pytest.approx(rates.mean())
        assert record["curriculum/collected_learnability_mean"] == pytest.approx(np.mean(rates * (1 - rates)))
        assert 0 < record["curriculum/collected_trap_fraction"] < 1
        assert record["curriculum/collected_reward_mean"] < record["curriculum/collected_success_mean"]
    rows = [row for rows in result.directory.rollouts().values() for row in rows]
    for row in rows:
        shaped = (row["verdict"] == "correct") - 0.5 * row["tokens"] / config.rollout.max_new_tokens
        assert row["reward"] == pytest.approx(shaped)


def test_groups_of_one_rollout_have_no_variance_to_speak_of():
    """Of a group of one nothing varies, whatever the question: such groups are left out, and None says that all are."""
    questions = [types.SimpleNamespace(difficulty=None)] * 4
    collector = types.SimpleNamespace(
        rollout=types.SimpleNamespace(samples=2),
        judge=types.SimpleNamespace(noise=False),
        pool=types.SimpleNamespace(questions=questions),
    )
    numbers = np.array([[1, 1], [2, 1], [2, 2], [0, 0]], np.float32).T
    statistics = GroupStatistics(np.arange(4), np.zeros(4, int), *numbers, numbers[1], 3 * numbers[0], numbers[0])
    of = functools.partial(accounting._describe_groups, collector, statistics, name="collected")
    found = of(np.arange(4))
    assert found["curriculum/collected_success_mean"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["curriculum/collected_zero_variance_fraction"] == 0.5
    assert found["curriculum/collected_learnability_mean"] == pytest.approx((0.25 + 0) / 2)
    assert found["curriculum/collected_histogram"] == [0, 1, 1]
    alone = of(np.array([0]))
    assert alone["curriculum/collected_success_mean"] == 1
    assert alone["curriculum/collected_zero_variance_fraction"] is None
    assert alone["curriculum/collected_learnability_mean"] is None


def test_the_groups_of_a_step_are_recorded_with_what_was_believed_of_them():
    """The second of four entries is empty, the last has no verdict, and of the third nothing was believed."""
    place, right, graded = np.array([7, -1, 3, 5]), np.array([2.0, 0, 0, 0]), np.array([4.0, 0, 4, 0])
    statistics = GroupStatistics(place, np.zeros(4, int), graded, right, right, 3 * graded, graded)
    collected = Collected(statistics, place, np.zeros(4, int), [], np.zeros(4, int))
    admission = Admission(np.array([2, 0]), np.array([True, False]))
    record = {
        "question": [7, 3, 5],
        "correct": [2, 0, 0],
        "graded": [4, 4, 0],
        "admitted": [False, True, False],
    }
    assert accounting.group_record(collected, admission, None) == record
    believed = Estimate(np.array([0.123456, 0.5, np.nan, 1.0], np.float32), np.zeros(4))
    record["belief"] = [0.1235, None, 1.0]
    assert accounting.group_record(collected, admission, believed) == record
    assert json.loads(json.dumps(record)) == record


def test_held_out_questions_stay_clean(tiny_config):
    config = configuration.replace(tiny_config, noise=NoiseConfig(coin_flips=1.0))
    task = check(config)
    assembly = assemble(config, task)
    assert {q.trap for q in assembly.pool.questions} == {COIN_FLIP}
    for held in assembly.held_out.values():
        assert {q.trap for q in held.encoded.questions} == {""}
