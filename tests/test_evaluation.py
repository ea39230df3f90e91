"""pass@k, votes, intervals; stored responses; `lilo eval` alone and during training."""

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.evaluation.generations import (
    Generations,
    Response,
    by_difficulty,
    grade_again,
    read_generations,
    success_rates,
    summarize,
)
from lilo_jax.evaluation.measures import bootstrap, maj_at_k, majority, pass_at_k, wilson
from lilo_jax.evaluation.protocols import PROTOCOLS
from lilo_jax.grading import GRADERS
from lilo_jax.grading.workers import GradingWorkers
from lilo_jax.questions import Question, Verdict
from lilo_jax.training.run import run

C, W, N, T, E = Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.TIMEOUT, Verdict.ERROR


# -------------------------------------------------------------------------------------------------------- measures
@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        samples = [True] * c + [False] * (n - c)
        subsets = list(itertools.combinations(samples, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k(np.array([n]), np.array([c]), k=k)[0] == pytest.approx(expected)


def test_pass_at_k_is_unbiased_on_simulated_outcomes():
    """Its mean is 1 - (1 - p)^k, the closed form, within 4 standard errors."""
    rng, n = np.random.default_rng(0), 16
    for p, k in itertools.product((0.02, 0.2, 0.7), (1, 4, 16)):
        correct = rng.binomial(n, p, size=20_000)
        values = pass_at_k(np.full(len(correct), n), correct, k=k)
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - (1 - (1 - p) ** k)) < 4 * error + 1e-6


def test_pass_at_k_needs_k_samples():
    assert np.isnan(pass_at_k(np.array([3, 0]), np.array([3, 0]), k=4)).all()
    assert pass_at_k(np.array([3]), np.array([1]), k=1)[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="at least 1"):
        pass_at_k(np.array([3]), np.array([1]), k=0)


@pytest.mark.parametrize(
    ("answers", "elected"),
    [
        (["a"], 0),
        (["a", "b", "b"], 1),
        (["b", "a", "a", "b"], 0),  # a tie goes to the answer that occurs first
        ([None, "a", None], 1),
        ([None, None], None),
        ([], None),
    ],
)
def test_majority(answers, elected):
    assert majority(answers) == elected


def test_maj_at_k_votes_in_blocks():
    answers, correct = ["1", "1", "2", "2", "2", "1", "9"], [True, True, False, False, False, True, False]
    assert maj_at_k(answers, correct, k=1) == pytest.approx(3 / 7)
    assert maj_at_k(answers, correct, k=3) == pytest.approx(1 / 2)  # 1 1 2, then 2 2 1; 9 is left over
    assert maj_at_k(answers, correct, k=7) == 1.0  # three each, and 1 occurs first
    assert math.isnan(maj_at_k(answers, correct, k=8))
    assert maj_at_k([None, None], [False, False], k=2) == 0.0
    assert maj_at_k(["1", "1", "2"], [None, None, False], k=3) == 0.0  # failed graders do not vote


@given(st.integers(1, 500), st.data())
@settings(deadline=None, max_examples=50)
def test_wilson_is_scipys(trials, data):
    successes = data.draw(st.integers(0, trials))
    found = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(successes, trials), (found.low, found.high), atol=1e-12)


def test_intervals_of_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert all(map(math.isnan, bootstrap(np.array([np.nan]))))


@pytest.mark.slow
def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for i in range(200):
        low, high = bootstrap(rng.binomial(4, 0.3, size=100) / 4, seed=i)
        covered += low <= 0.3 <= high
    assert scipy.stats.binomtest(covered, 200, 0.95).pvalue > 1e-3


# ------------------------------------------------------------------------------------------------------ generations
def generations_of(*verdicts: list[Verdict], difficulty=None) -> list[Generations]:
    found = []
    for i, row in enumerate(verdicts):
        question = Question(f"{i}?", str(i), difficulty)
        responses = (
            Response(
                f"\\boxed{{{i if v is C else 99}" + "}" * (v is not N), 3, v is not N, v, str(i) if v is C else "99"
            )
            for v in row
        )
        found.append(Generations(question, tuple(responses)))
    return found


def test_a_summary_by_hand():
    found = summarize(generations_of([C, W, C, C], [W, W, N, W], [C, T, E, W]))
    assert found["accuracy"] == pytest.approx((3 / 4 + 0 + 1 / 2) / 3)
    assert (found["questions"], found["samples"]) == (3, 4)
    assert found["pass@k"]["1"] == found["accuracy"]
    assert found["pass@k"]["2"] == pytest.approx((1 + 0 + 1) / 3)  # two graded samples are left of the third
    assert found["pass@k"]["4"] == pytest.approx((1 + 0) / 2)
    assert found["maj@k"]["4"] == pytest.approx((1 + 0 + 1) / 3)  # the tie of the third goes to its first answer
    assert found["no_answer_fraction"] == found["timeout_fraction"] == found["truncated_fraction"] == 1 / 12
    assert found["correct_fraction"] == 4 / 12
    assert found["tokens_mean"] == 3.0
    assert found["low"] <= found["accuracy"] <= found["high"]
    json.dumps(found)


def test_a_question_whose_grader_always_failed_is_left_out():
    rates = success_rates(generations_of([C, W], [T, E]))
    assert rates[0] == 0.5
    assert math.isnan(rates[1])
    assert summarize(generations_of([C, W], [T, E]))["questions"] == 1
    assert summarize(generations_of([T, E]))["accuracy"] is None


def test_the_same_answer_spelt_differently_is_one_vote():
    spellings = ["1/2", "0.5", r"\frac{1}{2}", "3", "3"]
    responses = tuple(Response("", 1, True, C if s != "3" else W, s) for s in spellings)
    assert summarize([Generations(Question("", "0.5"), responses)])["maj@k"]["4"] == 1.0


def test_a_vote_of_a_grader_that_names_no_answer_is_what_the_rules_find():
    texts = ["I think so, 5", "Well it is 5", "4", "7"]
    responses = tuple(Response(text, 1, True, C if "5" in text else W) for text in texts)
    assert summarize([Generations(Question("", "5"), responses)])["maj@k"]["4"] == 1.0


def test_a_level_that_could_not_be_graded_is_null():
    questions = [Question("", "", 1.0), Question("", "", 2.0)]
    assert by_difficulty(questions, np.array([0.5, np.nan]))["by_difficulty"] == {"1.0": 0.5, "2.0": None}


def test_responses_are_stored_and_graded_again_without_sampling(tmp_path):
    before = generations_of([C, W, N], [C, C, W])
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps(one.record()) + "\n" for one in before))
    assert read_generations(path) == before
    with GradingWorkers() as grading:
        again = grade_again(grading, GRADERS["exact"], before)
    assert [[r.verdict for r in one.responses] for one in again] == [[C, W, N], [C, C, W]]
    assert [r.rule for r in again[0].responses] == ["boxed", "boxed", ""]  # the last was cut off: no answer to find


def test_a_complete_answer_counts_although_the_response_was_cut_off(tmp_path):
    texts = {r"\boxed{5}. To check": C, r"\boxed{4}. To check": W, "The sum is 5": N, r"\boxed{5": N}
    responses = tuple(Response(text, 3, False, N) for text in texts)
    with GradingWorkers() as grading:
        (again,) = grade_again(grading, GRADERS["default"], [Generations(Question("", "5"), responses)])
    assert [r.verdict for r in again.responses] == list(texts.values())
    assert [r.ended for r in again.responses] == [False] * 4


# ------------------------------------------------------------------------------------------------ alone and in a run
def lilo(monkeypatch, capsys, *args) -> str:
    monkeypatch.setattr(sys, "argv", ["lilo", *map(str, args)])
    cli.main()
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def sampled_run(tiny_config, tiny_start, tmp_path_factory):
    """A finished run whose accuracy is sampled, on its own test set and on a suite."""
    task = dataclasses.replace(configuration.settings_class("task", "dataset")(), path=_sums(tmp_path_factory))
    config = configuration.replace(
        tiny_config,
        task=task,
        num_steps=2,
        sft__steps=60,
        evaluation__every=1,
        evaluation__splits=("test",),
        evaluation__suites=("amc23=sample",),
        evaluation__max_questions=12,
        model__vocab_size=0,
        storage__generations="all",
    )
    result = run(config, Launch(output_dir=str(tmp_path_factory.mktemp("sampled") / "run")))
    return config, result.directory


def _sums(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"question": f"{a}+{b}=", "answer": a + b} for a in range(10) for b in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.slow
def test_a_run_evaluates_its_own_test_and_suites_and_keeps_the_responses(sampled_run):
    config, directory = sampled_run
    records = directory.read("eval")
    assert [(r["step"], r["split"]) for r in records] == [(s, n) for s in range(3) for n in ("test", "amc23")]
    for record in records:
        stored = read_generations(directory.path / "generations" / f"step_{record['step']:06d}_{record['split']}.jsonl")
        assert len(stored) == record["questions"] == (10 if record["split"] == "test" else 12)
        assert {len(one.responses) for one in stored} == {config.evaluation.samples}
        found = summarize(stored)
        assert {k: record[k] for k in found} == found  # during training and alone: the same numbers
    assert records[0]["accuracy"] > 0  # the sums are learnt a little


@pytest.mark.slow
def test_lilo_eval_on_stored_responses_gives_the_runs_numbers(sampled_run, monkeypatch, capsys, tmp_path):
    _, directory = sampled_run
    record = directory.read("eval")[-2]
    stored = directory.path / "generations" / "step_000002_test.jsonl"
    printed = lilo(monkeypatch, capsys, "eval", "--generations", stored, "--output", tmp_path / "again")
    found = json.loads((tmp_path / "again" / "results.json").read_text())["suites"]["step_000002_test"]
    assert {k: record[k] for k in found} == found
    assert f"{100 * record['accuracy']:.1f}%" in printed
    lilo(
        monkeypatch, capsys,
        "eval", "--generations", stored, "--grader", "default", "--output", tmp_path / "graded",
    )  # fmt: skip
    graded = json.loads((tmp_path / "graded" / "results.json").read_text())["suites"]["step_000002_test"]
    assert graded == found
    assert read_generations(tmp_path / "graded" / "step_000002_test.jsonl") == read_generations(stored)


@pytest.mark.slow
def test_lilo_eval_samples_grades_and_writes(sampled_run, monkeypatch, capsys, tmp_path):
    config, directory = sampled_run
    arguments = ["eval", directory.path, "--suite", "task,aime24=sample", "--protocol", "vineppo", "--samples", 4]
    arguments += ["--max-new-tokens", 12, "--max-questions", 5]
    printed = lilo(monkeypatch, capsys, *arguments, "--output", tmp_path / "a")
    found = json.loads((tmp_path / "a" / "results.json").read_text())
    assert list(found["suites"]) == ["task", "aime24"]
    assert (found["protocol"], found["samples"], found["temperature"], found["seed"]) == ("vineppo", 4, 0.35, 42)
    for name, one in found["suites"].items():
        stored = read_generations(tmp_path / "a" / f"{name}.jsonl")
        assert len(stored) == one["questions"] == 5
        assert {k: one[k] for k in summarize(stored)} == summarize(stored)
        assert name in printed
    aime = read_generations(tmp_path / "a" / "aime24.jsonl")
    own = read_generations(tmp_path / "a" / "task.jsonl")
    assert all(one.question.prompt.startswith("[MATH_TASK] Problem:\n") for one in [*aime, *own])
    assert {one.question.text for one in own} <= {q.text for q in config.task.build(0).splits["test"]}
    assert found["mean_accuracy"] == pytest.approx(np.mean([s["accuracy"] for s in found["suites"].values()]))
    lilo(monkeypatch, capsys, *arguments, "--output", tmp_path / "b")
    assert (tmp_path / "b" / "task.jsonl").read_text() == (tmp_path / "a" / "task.jsonl").read_text()


@pytest.mark.slow
def test_greedy_draws_the_same_for_every_seed(sampled_run, monkeypatch, capsys, tmp_path):
    _, directory = sampled_run
    for seed in (1, 2):
        lilo(
            monkeypatch, capsys,
            "eval", directory.path, "--max-new-tokens", 8, "--seed", seed, "--output", tmp_path / str(seed),
        )  # fmt: skip
    assert (tmp_path / "1" / "task.jsonl").read_text() == (tmp_path / "2" / "task.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "gsm8"], "did you mean 'gsm8k'"),
        (["--suite", "gsm8k=sample,gsm8k=sample"], "given twice"),
        (["--suite", "gsm8k=/nowhere"], "no data file or directory"),
        (["--suite", "chain=sample"], "generated and has no path"),
        (["--suite", ","], "needs one or more names"),
        (["--protocol", "vineppp"], "did you mean 'vineppo'"),
        (["--grader", "exacd", "--suite", "gsm8k=sample"], "did you mean 'exact'"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--temperature", "nan"], "--temperature must be a finite number"),
        (["--suite", "task,task"], "given twice"),
        (["--suite", "task", "--grader", "nonsense"], "unknown grader 'nonsense'"),
        (["--suite", "gsm8k"], "hub cannot be reached"),
    ],
)
def test_mistakes_of_eval_are_one_line_and_write_nothing(arguments, says, sampled_run, monkeypatch, capsys, tmp_path):
    _, directory = sampled_run
    monkeypatch.setattr(sys, "argv", ["lilo", "eval", str(directory.path), *arguments, "--output", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either a MODEL, or --generations"),
        (["--generations", "/nowhere", "--suite", "gsm8k"], "samples nothing"),
        (["--generations", "/nowhere"], "no generations at /nowhere"),
        (["/nowhere/model"], "no model directory"),
    ],
)
def test_eval_needs_a_model_or_responses(arguments, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lilo", "eval", *arguments, "--output", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_an_output_that_holds_something_is_kept(sampled_run, monkeypatch, capsys, tmp_path):
    _, directory = sampled_run
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["lilo", "eval", str(directory.path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_protocols_are_the_papers():
    vineppo, oat = PROTOCOLS["vineppo"], PROTOCOLS["oat"]
    assert (vineppo.samples, vineppo.temperature, vineppo.top_p, vineppo.max_new_tokens) == (16, 0.35, 0.9, 1024)
    assert (vineppo.seed, vineppo.grader, vineppo.template, vineppo.stop) == (
        42,
        "paper",
        "vineppo",
        ("\n\n\nProblem:",),
    )
    assert (oat.samples, oat.temperature, oat.top_p, oat.max_new_tokens) == (1, 0.0, 1.0, 3000)
    assert oat.template == "qwen_math"
