"""A protocol means the same during training and in `lilo eval`; suites are not trained on; splits keep their names."""

import dataclasses
import json

import pytest

from lilo_jax import config as configuration
from lilo_jax.cli.measuring import _suites
from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import PROTOCOLS, EvaluationConfig
from lilo_jax.grading import GRADERS
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.prompts import qwen_math, vineppo
from lilo_jax.training.checks import check, held_out_sets

CONFIG = configuration.replace(
    Config(), task=Gsm8k(path="sample", template="qwen_math"), curriculum__pool_ratio=2, rollout__stop=("END",)
)


def with_evaluation(**changes) -> Config:
    return configuration.replace(CONFIG, evaluation=EvaluationConfig(**changes))


def test_a_named_protocol_brings_its_numbers_stops_style_and_grader():
    config = with_evaluation(protocol="vineppo", suites=("amc23=sample",))
    protocol = config.protocol
    assert dataclasses.replace(protocol, stop=()) == dataclasses.replace(PROTOCOLS["vineppo"], stop=())
    assert protocol.stop == ("END", "\n\n\nProblem:")
    sets = held_out_sets(config, check(config))
    assert list(sets) == ["validation", "test", "amc23"]
    for questions, grade, _ in sets.values():
        assert grade == GRADERS["paper"]
        assert all(q.prompt == vineppo(q.text) for q in questions)


def test_what_is_given_beside_a_protocol_counts():
    protocol = with_evaluation(protocol="vineppo", samples=2, max_new_tokens=32).protocol
    assert (protocol.samples, protocol.max_new_tokens, protocol.temperature) == (2, 32, 0.35)


def test_without_a_protocol_suites_are_asked_and_graded_as_the_task_is():
    config = configuration.replace(with_evaluation(suites=("gsm8k=sample", "amc23=sample")), task__grader="exact")
    config = configuration.replace(config, task__template="vineppo")
    for questions, grade, _ in held_out_sets(config, check(config)).values():
        assert grade == GRADERS["exact"]
        assert all(q.prompt == vineppo(q.text) for q in questions)


@pytest.mark.parametrize("name", ["vineppo", "oat", "greedy"])
def test_lilo_eval_asks_and_grades_a_runs_own_test_as_training_does(name):
    config = with_evaluation(protocol=name, suites=("amc23=sample",))
    during = held_out_sets(config, check(config))
    alone = _suites(config, "task,amc23=sample", PROTOCOLS[name], shots=0, chat=False)
    for split, suite in (("test", "task"), ("amc23", "amc23")):
        questions, grade, _ = during[split]
        assert alone[suite].splits["test"] == questions
        assert alone[suite].grade == grade
    style = vineppo if name == "vineppo" else qwen_math
    assert all(q.prompt == style(q.text) for q in alone["task"].splits["test"])


def test_a_suite_that_is_trained_on_is_refused(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}?", "answer": i}) + "\n" for i in range(40)))
    config = configuration.replace(with_evaluation(suites=(f"dataset={path}",)), task=Dataset(path=str(path)))
    with pytest.raises(UsageError, match="32 questions of --evaluation"):
        check(config)


def test_the_last_responses_of_a_split_leave_those_of_another_alone(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in (1, 2):
        for split in ("ood_test", "test"):
            directory.write_generations(step, split, [{"step": step}], only=True)
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == [
        "step_000002_ood_test.jsonl",
        "step_000002_test.jsonl",
    ]
