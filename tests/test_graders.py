"""Grading in worker processes and in this one: same verdicts, same order, failures kept apart."""

import dataclasses

import pytest

from lilo_jax.tasks.graders import Answer, Graders, Reader
from lilo_jax.tokenizers import SentencePiece
from lilo_jax.types import Question, Task, Verdict

TEXTS = ["12 34 . END", "56 78 90 a b c"]


def grade(question, response):
    if response == "a":
        raise RuntimeError("the grader broke")
    return Verdict.CORRECT if response == question.answer else Verdict.WRONG


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A task that a worker process can build."""

    def build(self, seed: int) -> Task:
        return Task({}, [], lambda question, response: grade(question, response), unique_answers=False)


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePiece.train(TEXTS, kind="char", vocab_size=64)


def answers_of(tokenizer) -> tuple[list[Answer], list[tuple[str, Verdict]]]:
    """Answers with what is expected of each."""
    end = tokenizer.end_ids[0]
    question = Question(prompt="", answer="12")
    cases = [
        ("12", True, True, ("12", Verdict.CORRECT)),
        ("34", True, True, ("34", Verdict.WRONG)),
        ("12", False, False, ("12", Verdict.NO_ANSWER)),
        ("a", True, True, ("a", Verdict.ERROR)),
        ("12 . 3", True, True, ("12", Verdict.CORRECT)),
        ("12 . ", False, True, ("12", Verdict.CORRECT)),  # ended by the stop string: no end token to take off
    ] * 3
    answers = [
        Answer(question, [*tokenizer.encode(text), *([end] if with_end else [])], ended)
        for text, with_end, ended, _ in cases
    ]
    return answers, [expected for *_, expected in cases]


@pytest.mark.parametrize("workers", [0, 2])
def test_verdicts_are_the_same_with_and_without_workers(workers, tokenizer):
    answers, expected = answers_of(tokenizer)
    reader = Reader(grade, tokenizer, stop=(" .",))
    with Graders(reader, task=Numbers(), seed=0, workers=workers) as graders:
        futures = [*graders.submit(answers), *graders.submit(answers[:1]), *graders.submit([])]
        found = [pair for future in futures for pair in future.result(timeout=240)]
    assert found == [*expected, expected[0]]


def test_a_tokenizer_travels_to_another_process(tokenizer):
    import pickle

    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("12 34") == tokenizer.encode("12 34")
    assert again.end_ids == tokenizer.end_ids
