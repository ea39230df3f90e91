"""The generated tasks for language models: `sums` and `stories`, against a plain reading of their texts."""

import collections
import re
import string

import numpy as np
import pytest

from lilo_jax.errors import UsageError
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks import stories, sums
from lilo_jax.tasks.stories import Stories
from lilo_jax.tasks.sums import Sums

TASKS = {"sums": Sums(), "stories": Stories()}
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return TASKS[request.param].build(seed=0)


def computed(first: int, operation: str, second: int) -> float:
    return {"+": first + second, "-": first - second, "*": first * second, "/": first / second}[operation]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_sums_are_what_python_makes_of_them():
    for questions in Sums().build(seed=0).splits.values():
        for question in questions:
            first, operation, second = question.text.split()
            assert computed(int(first), operation, int(second)) == int(question.answer) > 0
            assert question.category == operation
            assert max(int(first), int(second)) <= (30, 60, 120, 240)[int(question.difficulty)]


def test_stories_are_solved_with_their_own_numbers_step_by_step():
    for questions in Stories().build(seed=0).splits.values():
        for question in questions:
            steps = question.solution.split(", ")
            assert len(steps) == len(question.category) == 1 + (question.difficulty >= 4)
            used, before = [], None
            for step, operation in zip(steps, question.category, strict=True):
                first, sign, second, result = EQUATION.fullmatch(step).groups()
                assert sign == operation
                assert computed(int(first), sign, int(second)) == int(result) > 0
                assert before in (None, int(first))
                used += [int(second)] if before is not None else [int(first), int(second)]
                before = int(result)
            assert before == int(question.answer)
            assert sorted(used) == sorted(numbers_in(question.text))


@pytest.mark.parametrize("operations", stories.STORIES)
def test_every_story_asks_for_all_of_its_numbers_and_nothing_else(operations):
    for text in stories.STORIES[operations]:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field]
        assert set(fields) - {"name", "other", "things"} == set("abc"[: len(operations) + 1])
        assert text.endswith("?")
    assert all(sign in sums.OPERATIONS for sign in operations)


def test_a_story_by_hand():
    rng = np.random.default_rng(0)
    numbers, results = sums.draw_numbers(rng, "*-", 9)
    assert results == [numbers[0] * numbers[1], numbers[0] * numbers[1] - numbers[2]]
    assert stories.worked("*-", [5, 6, 10], [30, 20]) == "5 * 6 = 30, 30 - 10 = 20"
    assert stories.worked("/", [12, 3], [4]) == "12 / 3 = 4"


def test_splits_have_their_sizes_share_no_question_and_are_alike(task):
    assert {name: len(questions) for name, questions in task.splits.items()} == {
        "test": 500, "validation": 200, "train": 1000,
    }  # fmt: skip
    asked = [question.asked for questions in task.splits.values() for question in questions]
    assert len(set(asked)) == len(asked)
    shares = {
        name: np.array(list(dict(sorted(collections.Counter(q.difficulty for q in questions).items())).values()))
        / len(questions)
        for name, questions in task.splits.items()
    }
    assert np.abs(shares["test"] - shares["train"]).max() < 0.065  # three standard errors


def test_held_out_splits_are_equal_for_all_seeds_and_the_pool_is_not():
    for spec in (Sums(pool=50, validation=20, test=30), Stories(pool=50, validation=20, test=30)):
        one, other = spec.build(0).splits, spec.build(1).splits
        assert one["test"] == other["test"]
        assert one["validation"] == other["validation"]
        assert one["train"] != other["train"]
        assert not {q.asked for q in other["train"]} & {q.asked for q in one["test"]}


def test_what_is_demonstrated_is_graded_as_right(task):
    for question, (prompt, response) in zip(task.splits["train"][:300], task.demonstrations, strict=False):
        assert prompt == question.prompt
        assert response.endswith("\n")
        assert task.grade(question, response.strip()) is Verdict.CORRECT


def test_a_copy_of_the_question_earns_nothing():
    task = Sums().build(0)
    for question in task.splits["train"][:300]:
        assert task.grade(question, question.text) is not Verdict.CORRECT


def test_worked_examples_are_right_and_no_questions_of_the_task():
    for spec in TASKS.values():
        examples = spec.template.partition("{question}")[0]
        found = EQUATION.findall(examples)
        assert len(found) >= 3
        assert all(computed(int(a), sign, int(b)) == int(result) for a, sign, b, result in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (" 5 * 6 = 30, 30 - 10 = 20", Verdict.CORRECT),
        (" 5 * 6 = 30; 30 - 10 = 20.", Verdict.CORRECT),
        (" 20", Verdict.CORRECT),
        (" 5 * 6 = 31, 31 - 11 = 20", Verdict.WRONG),  # a step does not hold
        (" 5 * 6 = 30", Verdict.WRONG),
        (" 5 * 6 - 10", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_a_chain_of_steps_answers_with_its_last(response, verdict):
    assert Stories().build(0).grade(Question("", "20", text="How many?"), response) is verdict


def test_an_unknown_grader_or_style_is_refused():
    with pytest.raises(UsageError, match="grader"):
        Sums(grader="nobody").build(0)
    with pytest.raises(UsageError, match="style"):
        Stories(template="nothing").build(0)
