"""The command that asks what predicts success: states against transformers, features by hand, the files it leaves."""

import functools
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from pretrained_models import write_llama, write_qwen2

from experiments import predict_success as experiment
from experiments import question_features
from experiments.predict_success import PredictOptions
from experiments.question_features import (
    SPANS,
    Measured,
    features,
    frontiers,
    read_states,
    read_surprise,
    spans,
)
from lilo_jax.curriculum.features import projected, standardized
from lilo_jax.errors import RunError
from lilo_jax.evaluation.generations import Generations, Response
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.models.scoring import mean_states
from lilo_jax.pretrained.inference import ROWS, generate, load, span_means
from lilo_jax.pretrained.sources import open_model
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks.chain import render, solve
from lilo_jax.types import Prompts

PROMPTS = [[5, 6, 7, 40, 41, 8], [5, 6, 7, 50, 8], [5, 6, 7, 60, 61, 62, 8]]


# ------------------------------------------------------------------------------------------------------ hidden states
@pytest.fixture(scope="module", params=[write_qwen2, write_llama])
def source(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("models") / "model", num_hidden_layers=4)


def transformers_output(source, ids):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True)


@pytest.mark.slow
def test_states_and_surprise_against_transformers(source):
    loaded = load(open_model(str(source)))
    layers, states = read_states(loaded, PROMPTS, 4)
    reading = read_surprise(loaded, PROMPTS, 0)
    assert layers == [0, 1, 2, 3, 4]
    assert states.shape == (5, 3, len(SPANS), 32)
    for row, (ids, pooled) in enumerate(zip(PROMPTS, spans(PROMPTS), strict=True)):
        out = transformers_output(source, ids)
        for i, theirs in enumerate(np.array(h[0]) for h in out.hidden_states):
            for j, (begin, end) in enumerate(pooled):
                np.testing.assert_allclose(states[i, row, j], theirs[begin:end].mean(axis=0), atol=2e-5)
        logprobs = np.array(out.logits[0].log_softmax(-1), np.float64)
        entropy = -(np.exp(logprobs) * logprobs).sum(axis=1)
        own = range(3, len(ids) - 1)
        chosen = [logprobs[t - 1, ids[t]] for t in own]
        expected = [np.mean(chosen), min(chosen), np.mean([entropy[t - 1] for t in own]), entropy[-1]]
        np.testing.assert_allclose(reading[row], expected, atol=2e-5)


@pytest.mark.slow
def test_what_frontier_reads_is_one_of_the_spans(source):
    loaded = load(open_model(str(source)))
    many = [PROMPTS[i % 3] for i in range(ROWS + 3)]
    layers, states = read_states(loaded, many, 4)
    tokens = np.zeros((3, 8), np.int32)
    for row, ids in zip(tokens, PROMPTS, strict=True):
        row[: len(ids)] = ids
    prompts = Prompts(tokens=tokens, lengths=np.array([6, 5, 7], np.int32))
    read = tuple(layers.index(layer) for layer in (0, 2, 4))
    found = jax.jit(functools.partial(mean_states, loaded.programs.model, layers=(0, 2, 4)))(loaded.params, prompts)
    for part in (slice(0, 3), slice(ROWS - 1, ROWS + 2)):
        np.testing.assert_allclose(states[read, part, SPANS.index("prompt")], found, atol=1e-5)
    nothing = span_means(loaded, PROMPTS, np.full((3, 1, 2), 2), layers=[2])
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.slow
def test_completions_can_begin_at_any_place(source):
    loaded = load(open_model(str(source)), tokenizer=open_model(str(source)).tokenizer())
    protocol = Protocol(2, 1.0, 1.0, 5, seed=3)
    whole = list(generate(loaded, PROMPTS, protocol, rows=2))
    for first in (1, 2, 3):
        rest = list(generate(loaded, PROMPTS, protocol, rows=2, first=first))
        assert [one.tokens.tolist() for one in rest] == [one.tokens.tolist() for one in whole[first:]]


# ----------------------------------------------------------------------------------------------------------- features
def test_spans_by_hand():
    found = dict(zip(SPANS, np.moveaxis(spans(PROMPTS), 1, 0).tolist(), strict=True))
    assert found["prompt"] == [[0, 6], [0, 5], [0, 7]]
    assert found["question"] == [[3, 5], [3, 4], [3, 6]]  # between what all prompts share
    assert found["last 16"] == found["last 8"] == found["prompt"]
    assert found["last"] == [[5, 6], [4, 5], [6, 7]]
    assert spans([list(range(30)), list(range(40))])[:, SPANS.index("last 16")].tolist() == [[14, 30], [24, 40]]


@pytest.mark.parametrize("prompts", [[[1, 2, 3]] * 2, [[1, 2], [1, 2, 3]], [[1, 1, 2], [1, 2]], [[4], [5]]])
def test_a_question_has_at_least_one_token(prompts):
    own = spans(prompts)[:, SPANS.index("question")]
    for (begin, end), ids in zip(own, prompts, strict=True):
        assert 0 <= begin < end <= len(ids)


def measured_by_hand():
    """Two responses of an earlier visit, two to be predicted."""
    texts = ["Tom has 12 pens + 3.5 pens", "None", "7 * 100"]
    verdicts = [["correct", "wrong", "wrong", "error"], ["wrong", "error", "correct", "correct"], ["correct"] * 4]
    generations = [
        Generations(
            Question(prompt=text, answer="1", text=text),
            tuple(Response("", 2 + i, True, Verdict(v)) for i, v in enumerate(row)),
        )
        for text, row in zip(texts, verdicts, strict=True)
    ]
    rng = np.random.default_rng(0)
    states = rng.standard_normal((3, 3, len(SPANS), 80)).astype(np.float32)
    return Measured(generations, np.arange(12.0).reshape(3, 4), [0, 1, 2], states, rng.random((3, 4), np.float32), 2)


def test_features_by_hand():
    measured = measured_by_hand()
    found = dict(features(measured))
    np.testing.assert_array_equal(measured.correct[1], [0, np.nan, 1, 1])
    visit = np.array([[0.5, 2.5, 0.5], [0, 2.5, 4.5], [1, 2.5, 8.5]])
    np.testing.assert_allclose(found["last visit"], standardized([visit])[:, :-1], atol=1e-6)
    largest_and_smallest = np.log1p([[12, 3.5], [0, 0], [100, 7]])
    np.testing.assert_allclose(question_features._counts(measured)[:, -2:], largest_and_smallest)
    read = [np.asarray(projected(of_layer, 64)) for of_layer in measured.states[:, :, 0]]
    np.testing.assert_allclose(found[frontiers(measured)], standardized(read)[:, :-1], atol=1e-6)
    for name, columns in found.items():
        parts = 1 + name.count("last visit,") + name.count("counts, ")
        parts += 2 * (name == frontiers(measured) or name.endswith("frontier's"))
        if name != "constant":
            assert columns.var(axis=0).sum() == pytest.approx(parts, rel=1e-4), name


def test_no_feature_reads_what_is_predicted():
    measured = measured_by_hand()
    turned = [
        Generations(one.question, (*one.responses[:2], *(Response("other", 99, False, Verdict.NO_ANSWER),) * 2))
        for one in measured.generations
    ]
    surprise = np.concatenate([measured.surprise[:, :2], np.full((3, 2), 7.0)], axis=1)
    other = dict(features(measured._replace(generations=turned, surprise=surprise)))
    for name, columns in features(measured):
        np.testing.assert_array_equal(columns, other[name])


def test_principal_axes_leave_distances_as_they_are():
    columns = np.random.default_rng(0).standard_normal((6, 9))
    rotated = question_features._rotated(columns)
    np.testing.assert_allclose(rotated @ rotated.T, columns @ columns.T, atol=1e-9)
    assert (np.diff(rotated.var(axis=0)) <= 1e-9).all()


# -------------------------------------------------------------------------------------------------------- the command
def command(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["predict_success", *map(str, args)])
    exit_with_message(experiment.main)


def easy_and_hard(path):
    """Questions of the chain task with one verb, whose answer is a digit, and with ten: a file."""
    questions = [(start, [verb] * count) for start in range(10) for verb in (0, 1, 2) for count in (1, 10)]
    lines = [json.dumps({"question": render(*each), "answer": solve(*each)}) + "\n" for each in questions]
    (path / "questions.jsonl").write_text("".join(lines))
    return path / "questions.jsonl"


@pytest.mark.slow
def test_the_command_measures_once_and_reads_again(tiny_start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RESAMPLES", 4)
    monkeypatch.setattr(question_features, "SHARES", (0, 1))
    output = tmp_path / "out"
    asked = [
        "--model.path", tiny_start, "--task.path", easy_and_hard(tmp_path), "--task.template", "none", "--task.grader",
        "exact", "--questions", 20, "--rollout.samples", 6, "--visit", 2, "--folds", 3, "--partitions", 2,
        "--output-dir", output,
    ]  # fmt: skip
    command(monkeypatch, *asked)
    printed = capsys.readouterr().out
    results = json.loads((output / "results.json").read_text())
    assert (output / "table.md").read_text() in printed
    assert results["graded_questions"] == sum(results["histogram"]) == 20
    assert results["visit"] == 2
    assert results["command"].startswith("python -m experiments.predict_success --model.path")
    assert results["config"]["rollout"]["samples"] == 6
    assert "layer 1, question, PCA 32" in results["features"]
    assert results["frontier"] in results["features"]
    assert results["features"]["constant"]["auroc"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert results["features"]["counts"]["spearman"]["low"] <= results["features"]["counts"]["spearman"]["high"]
    assert f"| **{results['frontier']} (frontier's)** |" in printed
    records = [json.loads(line) for f in sorted((output / "rollouts").iterdir()) for line in f.open()]
    assert [len(record["responses"]) for record in records] == [8] * 20
    assert results["tokens"]["generated"] == sum(r["tokens"] for record in records for r in record["responses"])
    rates = [np.mean([r["verdict"] == "correct" for r in record["responses"][2:]]) for record in records]
    assert results["success_mean"] == pytest.approx(np.mean(rates))
    assert results["success_mean"] > 0

    block = (output / "rollouts" / "000016.jsonl").read_text()
    (output / "rollouts" / "000016.jsonl").unlink()  # as if the command had been killed
    monkeypatch.setattr(experiment, "read_states", None)
    command(monkeypatch, *asked)
    assert (output / "rollouts" / "000016.jsonl").read_text() == block
    again = json.loads((output / "results.json").read_text())
    assert again == results

    monkeypatch.setattr(experiment, "generate", None)
    rest = ["--folds", 3, "--partitions", 2, "--output-dir", tmp_path / "again"]
    shutil.copytree(output, tmp_path / "moved")
    command(monkeypatch, "--from-dir", tmp_path / "moved", *rest)
    assert json.loads((tmp_path / "again" / "results.json").read_text())["features"] == results["features"]
    for args, says in (
        ([*asked, "--visit", 3], "other settings"),
        (["--from-dir", tmp_path], "no finished measurements"),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, *args)
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "pass --model.path"),
        (["--model.path", "x", "--optimizer.learning-rate", "1"], "--optimizer.learning-rate would be ignored"),
        (["--model.path", "x", "--curriculum", "uniform"], "--curriculum would be ignored"),
        (["--model.path", "x", "--resume", "never"], "--resume would be ignored"),
        (["--from-dir", "x", "--visit", "2"], "--visit would be ignored"),
        (["--from-dir", "x", "--model.path", "y"], "--model.path would be ignored"),
        (["--model.path", "x", "--folds", "2"], "--folds at least 3"),
        (["--model.path", "x", "--questions", "19"], "four times as many"),
        (["--model.path", "x", "--rollout.samples", "2"], "--rollout.samples must be at least 4"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(args, says, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *args)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_what_could_not_be_graded_is_left_out_and_equal_rates_are_refused(tmp_path):
    measured = measured_by_hand()
    kept = experiment.graded(measured._replace(visit=1))
    assert [one.question.text for one in kept.generations] == ["Tom has 12 pens + 3.5 pens", "None", "7 * 100"]
    assert [x.tolist() for x in experiment.counted(kept)] == [[0, 2, 3], [2, 2, 3]]
    kept = experiment.graded(measured)
    assert [one.question.text for one in kept.generations] == ["None", "7 * 100"]
    assert kept.states.shape[1] == len(kept.surprise) == len(kept.reading) == 2
    many = measured.of(np.array([2] * 20))
    with pytest.raises(RunError, match=r"same rate, 1\.00"):
        experiment.report(tmp_path, {}, many, PredictOptions())
    with pytest.raises(RunError, match="only 2 questions"):
        experiment.report(tmp_path, {}, measured, PredictOptions())


@pytest.mark.slow
def test_questions_that_are_not_there_are_refused(tiny_start, tmp_path, monkeypatch, capsys):
    asked = ["--model.path", tiny_start, "--task", "chain", "--task.pool", 64, "--output-dir", tmp_path / "out"]
    for args, says in ((["--split", "tset"], "did you mean 'test'"), ([], "has 64 questions: lower --questions")):
        with pytest.raises(SystemExit):
            command(monkeypatch, *asked, *args)
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(SystemExit):
        command(monkeypatch, *asked, "--questions", 20)
    assert "is not empty" in capsys.readouterr().err
