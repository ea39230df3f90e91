"""Published data sets: rows in their real schema, splits, prompts, golds, files of every format, `lilo data check`."""

import dataclasses
import fractions
import itertools
import json
import pathlib
import re
import sys

import datasets
import numpy as np
import pytest

from lilo_jax import cli
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import PROTOCOLS
from lilo_jax.grading import GRADERS
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks import TASKS, columns, countdown, pairs
from lilo_jax.tasks.asdiv import Asdiv
from lilo_jax.tasks.asdiv_svamp import AsdivSvamp
from lilo_jax.tasks.columns import Columns
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.hendrycks_math import Math
from lilo_jax.tasks.math500 import Math500
from lilo_jax.tasks.orz57k import Orz57k
from lilo_jax.tasks.pairs import Pairs
from lilo_jax.tasks.prompts import vineppo
from lilo_jax.tasks.published import Published, a_tenth, hold_out
from lilo_jax.tasks.rows import SAMPLES, Row, read_rows
from lilo_jax.tasks.suites import suites
from lilo_jax.tasks.svamp import Svamp

PUBLISHED = {name: cls for name, cls in TASKS.items() if issubclass(cls, Published)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_task_ships_twenty_rows_and_builds_from_them(name):
    task = PUBLISHED[name](path="sample").build(seed=0)
    assert sum(map(len, task.splits.values())) >= 20
    prompts = [q.prompt for questions in task.splits.values() for q in questions]
    assert len(set(prompts)) == len(prompts)
    for questions in task.splits.values():
        assert all(q.text in q.prompt and q.answer for q in questions)
    again = PUBLISHED[name](path="sample").build(seed=1)
    assert again.splits == task.splits  # published splits are the same for every seed


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - {"countdown"}))
@pytest.mark.parametrize("grader", ["default", "paper"])
def test_every_gold_answer_is_correct_and_another_one_is_not(name, grader):
    spec = PUBLISHED[name](path="sample", grader=grader)
    form = "so it is\n#### {}" if name == "gsm8k" and grader == "paper" else "so it is \\boxed{{{}}}."
    for questions in spec.build(seed=0).splits.values():
        for question in questions:
            gold = question.answer.replace(",", "") if name == "gsm8k" else question.answer
            expected = Verdict.CORRECT
            if name == "gsm8k" and grader == "paper" and "," in question.answer:
                expected = Verdict.WRONG  # the published rule takes commas from the response, not from the gold
            assert GRADERS[grader](question, form.format(gold)) is expected, question
            assert GRADERS[grader](question, form.format("987654321.5")) is Verdict.WRONG


def test_gsm8k_has_the_papers_prompt_and_solutions_without_calculator_marks():
    task = Gsm8k(path="sample").build(seed=0)
    assert {n: len(q) for n, q in task.splits.items()} == {"train": 22, "validation": 2, "test": 20}
    (row, *_) = read_rows(SAMPLES / "gsm8k" / "test.jsonl")
    question = task.splits["test"][0]
    assert question.prompt == vineppo(row.values["question"])
    assert question.prompt.startswith("[MATH_TASK] Problem:\n")
    assert question.prompt.endswith("\n\nSolution:")
    assert "<<" in row.values["answer"]
    assert question.solution == re.sub("<<[^>]*>>", "", row.values["answer"])
    assert question.answer == row.values["answer"].split("#### ")[1]
    for prompt, response in task.demonstrations:
        assert "<<" not in response
        assert "\n#### " in response
        assert prompt.endswith("Solution:")


def math_rows(tmp_path, train=60, test=40, chosen=10):
    """A MATH-like directory and a MATH-500-like file with some of its test questions, spelt with other spaces."""
    rows = [
        {"problem": f"What is ${i} + 1$?", "level": f"Level {1 + i % 5}", "solution": f"\\boxed{{{i + 1}}}"}
        for i in range(train + test)
    ]  # fmt: skip
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (tmp_path / "math").mkdir(exist_ok=True)
        datasets.Dataset.from_list(part).to_parquet(tmp_path / "math" / f"{name}-00000-of-00001.parquet")
    kept = [
        {"problem": row["problem"].replace(" + ", "+"), "solution": row["solution"], "answer": "", "level": 3}
        for row in rows[train : train + chosen]
    ]
    for row in kept:
        row["answer"] = row["solution"][7:-1]
    (tmp_path / "test500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return str(tmp_path / "math"), str(tmp_path / "test500.jsonl")


def test_math_12k_moves_what_is_not_kept_for_the_test_into_training(tmp_path):
    where, test = math_rows(tmp_path)
    task = Math(path=where, test_path=test, validation=5).build(seed=0)
    assert {n: len(q) for n, q in task.splits.items()} == {"train": 85, "validation": 5, "test": 10}
    spelt = {n: {re.sub(r"\s", "", q.text) for q in questions} for n, questions in task.splits.items()}
    assert not spelt["train"] & spelt["test"]
    assert not spelt["validation"] & (spelt["test"] | spelt["train"])
    full = Math(path=where, split_name="full", validation=5).build(seed=0)
    assert {n: len(q) for n, q in full.splits.items()} == {"train": 55, "validation": 5, "test": 40}
    assert full.splits["test"][0].difficulty == 1 + 60 % 5
    assert {q.difficulty for q in task.splits["test"]} == {3.0}


def test_the_sample_of_math500_is_the_test_of_the_sample_of_math():
    assert [q.text for q in Math500(path="sample").build(0).splits["test"]] == [
        q.text for q in Math(path="sample", split_name="full").build(0).splits["test"]
    ]


def test_orz_is_read_as_it_is_published_and_as_oat_has_it(tmp_path):
    turns = [
        [{"from": "human", "value": f"{i}?"}, {"from": "assistant", "ground_truth": {"value": str(i)}}]
        for i in range(20)
    ]
    (tmp_path / "orz.json").write_text(json.dumps(turns))
    rows = [{"0": a, "1": b} for a, b in turns]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = [{"problem": f"{i}?", "answer": str(i)} for i in range(20)]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    found = [Orz57k(path=str(tmp_path / f)).build(0).splits for f in ("orz.json", "rows.jsonl", "plain.jsonl")]
    assert found[0] == found[1] == found[2]
    assert {n: len(q) for n, q in found[0].items()} == {"train": 18, "validation": 2}
    (tmp_path / "bad.json").write_text(json.dumps([*turns, [{"value": "?"}]]))
    with pytest.raises(UsageError, match=r"bad\.json, row 21: not a question with its ground truth"):
        Orz57k(path=str(tmp_path / "bad.json")).build(0)


def test_olympiad_answers_carry_their_unit_and_their_list():
    questions = TASKS["olympiadbench"](path="sample").build(0).splits["test"]
    rows = [row.values for row in read_rows(SAMPLES / "olympiadbench" / "test.jsonl")]
    for question, row in zip(questions, rows, strict=True):
        assert question.answer == row["final_answer"][0] + (f" {row['unit']}" if row["unit"] else "")
    assert any(row["unit"] for row in rows)
    several = next(i for i, row in enumerate(rows) if row["is_multiple_answer"])
    values = rows[several]["final_answer"][0].split(",")
    reordered = ", ".join(reversed(values))
    assert GRADERS["default"](questions[several], f"\\boxed{{{reordered}}}") is Verdict.CORRECT


# ------------------------------------------------------------------------------------------------------------- splits
def test_what_is_held_out_does_not_depend_on_the_order_of_rows():
    questions = [Question(f"{i}", "", text=f"{i}") for i in range(100)]
    rest, held = hold_out(questions, 7)
    assert len(held) == 7
    assert sorted(rest + held, key=lambda q: int(q.text)) == questions
    again = hold_out(questions[::-1], 7)[1]
    assert set(map(lambda q: q.text, again)) == {q.text for q in held}  # noqa: C417
    assert [a_tenth(questions, 50), a_tenth(questions, 7), a_tenth(questions[:3], 50)] == [10, 7, 1]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_files_of_every_format_give_the_same_questions(suffix, tmp_path):
    rows = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(30)]
    table = datasets.Dataset.from_list(rows)
    path = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        getattr(table, f"to_{suffix}")(path)
    task = Dataset(path=str(path)).build(seed=0)
    found = {(q.text, q.answer) for questions in task.splits.values() for q in questions}
    assert found == {(row["question"], row["answer"]) for row in rows}


def test_a_directory_saved_by_datasets_and_one_with_named_splits(tmp_path):
    rows = [{"question": f"{i}?", "answer": i} for i in range(40)]
    parts = {"train": rows[:30], "test": rows[30:]}
    datasets.DatasetDict({n: datasets.Dataset.from_list(p) for n, p in parts.items()}).save_to_disk(tmp_path / "saved")
    for name, part in parts.items():
        (tmp_path / "named").mkdir(exist_ok=True)
        (tmp_path / "named" / f"my_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    for directory in ("saved", "named"):
        task = Dataset(path=str(tmp_path / directory)).build(seed=0)
        assert {q.text for q in task.splits["test"]} == {row["question"] for row in parts["test"]}
        assert {n: len(q) for n, q in task.splits.items()} == {"validation": 3, "test": 10, "train": 27}


def test_columns_solutions_and_difficulty_are_named(tmp_path):
    rows = [{"q": f"{i}?", "a": f"It is \\boxed{{{i}}}", "level": i} for i in range(20)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = Dataset(path=str(tmp_path / "d.jsonl"), question="q", answer="a", difficulty="level", template="none")
    task = spec.build(seed=0)
    for questions in task.splits.values():
        for question in questions:
            number = question.text[:-1]
            assert (question.answer, question.difficulty) == (number, float(number))
            assert question.solution == f"It is \\boxed{{{number}}}"
    assert all(response.startswith("It is") for _, response in task.demonstrations)


def test_data_that_cannot_be_had_is_one_sentence_with_the_cure(tmp_path):
    for spec, says in (
        (Gsm8k(), r"openai/gsm8k is neither .* the path 'sample' takes rows of our own"),
        (Gsm8k(path="some/hub-id"), "hub cannot be reached"),
        (Gsm8k(path=str(tmp_path)), "holds no data file"),
        (Gsm8k(path=str(tmp_path / "none")), "no data file or directory"),
        (Gsm8k(path="sample", grader="minerva"), "unknown grader 'minerva'"),
        (Gsm8k(path="sample", template="vinepp"), "did you mean 'vineppo'"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            spec.build(0)
        assert "\n" not in str(caught.value)
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match=r"broken\.parquet cannot be read as parquet"):
        Dataset(path=str(tmp_path / "broken.parquet")).build(0)
    (tmp_path / "train.jsonl").write_text('{"problem": "?", "solution": "no box"}\n')
    with pytest.raises(UsageError, match=r"train\.jsonl, line 1: no gold answer was found"):
        Math(path=str(tmp_path / "train.jsonl")).build(0)


def test_suites_give_test_sets_in_a_style_and_with_a_grader():
    found = suites(["gsm8k=sample", "orz57k=sample", "chain"], template="r1", grader="exact")
    assert [list(task.splits) for task in found.values()] == [["test"]] * 3
    assert len(found["gsm8k"].splits["test"]) == 20
    assert found["gsm8k"].splits["test"][0].prompt.endswith("Assistant: <think>")
    assert found["gsm8k"].grade == GRADERS["exact"]
    assert len(found["orz57k"].splits["test"]) == 2  # it has no test set: the validation questions


def test_what_is_tested_is_not_trained_on(tmp_path):
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(40)]
    for name, part in (("train", rows[:30]), ("test", rows[28:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    splits = {name: {q.text for q in part} for name, part in Gsm8k(path=str(tmp_path)).build(0).splits.items()}
    assert len(splits["test"]) == 12
    assert len(splits["train"]) + len(splits["validation"]) == 28
    assert len(set.union(*splits.values())) == 40
    with pytest.raises(UsageError, match="files are named after their split"):
        Gsm8k(path=str(tmp_path / "train.jsonl")).build(0)


def test_the_docs_list_every_task_with_its_repository_and_every_protocol():
    text = (pathlib.Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for name, cls in TASKS.items():
        (row,) = [r for r in rows if f"`{name}`" in r.split("|")[1]]
        if name in PUBLISHED:
            assert f"`{cls.SOURCE.repository}`" in row
    for name, protocol in PROTOCOLS.items():
        (row,) = [r for r in rows if f"`{name}`" in r.split("|")[1]]
        assert f"| {protocol.samples} |" in row
        assert f"{protocol.max_new_tokens:,}" in row


def test_a_file_as_a_suite_is_all_of_it(tmp_path):
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(30)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in (f"gsm8k={tmp_path / 'test.jsonl'}", f"gsm8k={tmp_path}", f"dataset={tmp_path / 'test.jsonl'}"):
        (task,) = suites([name]).values()
        assert {q.text for q in task.splits["test"]} == {row["question"] for row in rows}


def test_only_the_files_of_the_data_set_are_read_from_a_copy_of_its_repository(tmp_path):
    for folder, question in (("OE_TO_maths_en_COMP", "maths?"), ("OE_TO_physics_en_COMP", "physics?")):
        (tmp_path / folder).mkdir()
        table = datasets.Dataset.from_list([{"question": question, "final_answer": ["1"], "solution": ["so 1"]}])
        table.to_parquet(tmp_path / folder / f"{folder}.parquet")
    assert [q.text for q in TASKS["olympiadbench"](path=str(tmp_path)).build(0).splits["test"]] == ["maths?"]


def test_countdown_reads_the_test_that_is_there_and_has_one_grader(tmp_path):
    for name, first in (("train", 1), ("test", 50)):
        rows = [{"target": first + i, "nums": [first + i, 1, 1]} for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(TASKS["countdown"](path=str(tmp_path)).build(0).splits["test"]) == 20
    with pytest.raises(UsageError, match="no other grader"):
        TASKS["countdown"](path="sample", grader="exact").build(0)


def test_math500_must_be_among_math(tmp_path):
    where, _ = math_rows(tmp_path)
    (tmp_path / "other.jsonl").write_text(json.dumps({"problem": "Another?", "solution": "", "answer": "1"}) + "\n")
    with pytest.raises(UsageError, match="1 of the 1 questions of MATH-500 are not among"):
        Math(path=where, test_path=str(tmp_path / "other.jsonl")).build(0)


@pytest.mark.parametrize("path", ["q.txt", "~nosuchuser/x"])
def test_what_is_no_data_file_is_one_sentence(path, tmp_path):
    (tmp_path / "q.txt").write_text("{}")
    with pytest.raises(UsageError):
        Dataset(path=path if path.startswith("~") else str(tmp_path / path)).build(0)


# ---------------------------------------------------------------------------------------------------------- countdown
@pytest.mark.parametrize(
    ("expression", "value", "numbers"),
    [
        ("1+2*3", 7, [1, 2, 3]),
        ("(1 + 2) * 3", 9, [1, 2, 3]),
        ("8/3/2", fractions.Fraction(4, 3), [8, 3, 2]),
        ("2-3-4", -5, [2, 3, 4]),
        ("-(2-5)", 3, [2, 5]),
        ("10", 10, [10]),
    ],
)
def test_countdown_computes_expressions(expression, value, numbers):
    assert countdown.evaluate(expression) == (value, numbers)


@pytest.mark.parametrize(
    "expression",
    ["", "1+", "(1+2", "1+2)", "1//2", "1/0", "2**3", "__import__('os')", "a+1", "1 2", "(" * 150, "9" * 300],
)  # fmt: skip
def test_countdown_reads_nothing_else(expression):
    assert countdown.evaluate(expression) is None


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"\boxed{(25 - 5) * 3}", Verdict.CORRECT),
        (r"\boxed{3 \times (25 - 5) = 60}", Verdict.CORRECT),
        ("<answer>(25-5)*3</answer>", Verdict.CORRECT),
        (r"\boxed{25*3 - 5*3}", Verdict.WRONG),  # 3 twice
        (r"\boxed{(25 - 5) * 2}", Verdict.WRONG),
        (r"\boxed{25 + 5 + 3}", Verdict.WRONG),
        (r"\boxed{60}", Verdict.WRONG),
        ("I give up", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_countdown_grades_the_expression(response, verdict):
    assert countdown.grade(Question("", "60 = 25, 5, 3"), response) is verdict


def test_every_countdown_sample_has_a_solution_that_is_graded_correct():
    def solutions(values):
        if len(values) == 1:
            yield values[0]
        for i in range(len(values)):
            for j in range(len(values)):
                if i != j:
                    rest = [v for k, v in enumerate(values) if k not in (i, j)]
                    for operation in "+-*/":
                        yield from solutions([*rest, f"({values[i]}{operation}{values[j]})"])

    for question in TASKS["countdown"](path="sample").build(0).splits["test"][:5]:
        numbers = question.answer.split(" = ")[1].split(", ")
        right = (s for s in solutions(numbers) if countdown.grade(question, f"\\boxed{{{s}}}") is Verdict.CORRECT)
        assert next(right, None) is not None


# -------------------------------------------------------------------------------------------------------------- pairs
def test_pairs_answers_and_levels_equal_a_plain_re_implementation():
    task = Pairs(pool=300, validation=100, test=200, demonstrations=50).build(seed=0)
    for questions in task.splits.values():
        for question in questions:
            letters = ["abcdefghij".index(c) for c in question.prompt[:-1]]
            assert question.prompt[-1] == "="
            assert (len(letters), len(question.answer)) == (7, 6)
            neighbours = list(itertools.pairwise(letters))
            assert question.answer == "".join(str(pairs.TABLE[a][b]) for a, b in neighbours)
            assert question.difficulty == max(3, *((3 * a + b) % 10 for a, b in neighbours))
    prompts = [q.prompt for questions in task.splits.values() for q in questions]
    assert len(set(prompts)) == 600
    assert Pairs(pool=300, validation=100, test=200).build(seed=1).splits["test"] == task.splits["test"]
    assert Pairs(pool=300, validation=100, test=200).build(seed=1).splits["train"] != task.splits["train"]


def test_neither_length_nor_a_letter_of_pairs_tells_the_difficulty():
    """Every letter occurs in each level's pairs once per side; lengths are constant; correlations are noise."""
    for letter in range(10):
        assert sorted(pairs.level(letter, other) for other in range(10)) == list(range(10))
        assert sorted(pairs.level(other, letter) for other in range(10)) == list(range(10))
    questions = Pairs(pool=4000).build(seed=0).splits["train"]
    hard = np.array([q.difficulty for q in questions])
    assert {len(q.prompt) for q in questions} == {8}
    for letter in "abcdefghij":
        counts = np.array([q.prompt.count(letter) for q in questions])
        assert abs(np.corrcoef(counts, hard)[0, 1]) < 0.1


def test_pairs_demonstrations_err_at_the_stated_rates():
    right, shown = np.zeros(10), np.zeros(10)
    for prompt, response in Pairs(demonstrations=20_000).build(seed=0).demonstrations:
        letters = ["abcdefghij".index(c) for c in prompt[:-1]]
        for a, b, digit in zip(letters, letters[1:], response, strict=False):
            shown[pairs.level(a, b)] += 1
            right[pairs.level(a, b)] += int(digit) == pairs.TABLE[a][b]
    rates = right / shown
    np.testing.assert_array_equal(rates[:4], 1)
    np.testing.assert_allclose(rates[4:], [0.60, 0.42, 0.30, 0.20, 0.12, 0.06], atol=0.02)


# ------------------------------------------------------------------------------------------------------------ columns
def test_columns_answers_and_levels_equal_a_plain_re_implementation():
    task = Columns(pool=300, validation=100, test=200, demonstrations=50).build(seed=0)
    for questions in task.splits.values():
        for question in questions:
            letters = ["abcdefghij".index(c) for c in question.prompt[:-1]]
            assert question.prompt[-1] == "="
            assert (len(letters), len(question.answer)) == (6, 6)
            assert question.answer == "".join(str(columns.TABLE[c][x]) for c, x in enumerate(letters))
            assert question.difficulty == max(3, *((3 * x + c) % 10 for c, x in enumerate(letters)))
    prompts = [q.prompt for questions in task.splits.values() for q in questions]
    assert len(set(prompts)) == 600
    assert Columns(pool=300, validation=100, test=200).build(seed=1).splits["test"] == task.splits["test"]
    assert Columns(pool=300, validation=100, test=200).build(seed=1).splits["train"] != task.splits["train"]


def test_every_column_has_one_letter_of_each_level():
    for column in range(6):
        assert sorted(columns.level(column, letter) for letter in range(10)) == list(range(10))
        for wanted in range(10):
            letters = columns.letters_of([wanted] * 6)
            assert columns.level(column, letters[column]) == wanted
    hard = np.array([q.difficulty for q in Columns(pool=4000).build(seed=0).splits["train"]])
    assert 0.3 < np.mean(hard == 3) < 0.5
    assert np.bincount(hard)[4:].min() > 250


def test_columns_demonstrations_err_at_the_stated_rates():
    right, shown = np.zeros(10), np.zeros(10)
    for prompt, response in Columns(demonstrations=20_000).build(seed=0).demonstrations:
        for column, (letter, digit) in enumerate(zip(prompt, response, strict=False)):
            x = "abcdefghij".index(letter)
            shown[columns.level(column, x)] += 1
            right[columns.level(column, x)] += int(digit) == columns.TABLE[column][x]
    rates = right / shown
    np.testing.assert_array_equal(rates[:4], 1)
    np.testing.assert_allclose(rates[4:], [0.60, 0.42, 0.30, 0.20, 0.12, 0.06], atol=0.02)


# ------------------------------------------------------------------------------------------------------ reasoning-gym
def test_reasoning_gym_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UsageError, match=r"pip install 'lilo-jax\[tasks\]'"):
        TASKS["reasoning_gym"](name="leg_counting", pool=11).build(0)


def test_reasoning_gym_generates_and_scores():
    pytest.importorskip("reasoning_gym")
    spec = TASKS["reasoning_gym"](options='{"min_terms": 3, "min_digits": 3}', pool=40, validation=10, test=10)
    task = spec.build(seed=0)
    assert {n: len(q) for n, q in task.splits.items()} == {"test": 10, "validation": 10, "train": 40}
    prompts = [q.prompt for questions in task.splits.values() for q in questions]
    assert len(set(prompts)) == 60
    assert task.grade(task.splits["test"][0], task.splits["test"][1].answer) is Verdict.WRONG
    question = task.splits["train"][0]
    assert task.grade(question, f"\\boxed{{{question.answer}}}") is Verdict.CORRECT
    assert task.grade(question, "\\boxed{no}") is Verdict.WRONG
    assert task.grade(question, "") is Verdict.NO_ANSWER
    assert spec.build(seed=1).splits["test"] == task.splits["test"]
    with pytest.raises(UsageError, match="did you mean 'chain_sum'"):
        dataclasses.replace(spec, name="chain_sums").build(0)
    with pytest.raises(UsageError, match="do not fit"):
        dataclasses.replace(spec, options='{"no_such": 1}').build(0)


# --------------------------------------------------------------------------------------------------------- data check
def check(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `lilo data check`."""
    monkeypatch.setattr(sys, "argv", ["lilo", "data", "check", *map(str, arguments)])
    try:
        cli.main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_data_check_shows_three_prompts_and_finds_nothing_in_the_samples(monkeypatch, capsys):
    code, out, err = check(monkeypatch, capsys, "gsm8k=sample")
    assert (code, err) == (0, "")
    assert "24 train, 20 test" in out
    assert out.count("[MATH_TASK] Problem:") == out.count("--- gold:") == 3
    assert out.endswith("nothing wrong was found\n")
    assert check(monkeypatch, capsys, "pairs")[0] == 0


def test_data_check_lists_what_is_wrong_with_its_lines(monkeypatch, capsys, tmp_path):
    train = [
        '{"question": "1+1?", "answer": 2}',
        '{"question": "1+1?", "answer": 2}',
        '{"question": "broken',
        '{"question": "half?", "reply": 0.5}',
        '{"question": "sum?", "answer": "$\\\\oplus_{k} (((x$"}',
        '{"question": "shared?", "answer": 3}',
        '["a list"]',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(train) + "\n")
    (tmp_path / "test.jsonl").write_bytes(b'{"question": "shared?", "answer": 3}\n{"question": "\xff"}\n')
    code, out, err = check(monkeypatch, capsys, tmp_path)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "7 flaws" in err
    assert "broken rows: 4" in out
    for line in ("train.jsonl, line 3", "train.jsonl, line 4", "train.jsonl, line 7", "test.jsonl, line 2"):
        assert line in out
    assert "repeated questions: 1" in out
    assert "train.jsonl, line 2: same question as" in out
    assert "questions of test that are also in train: 1" in out
    assert "golds that no algebra reads: 1" in out


@pytest.mark.parametrize(
    ("source", "says"), [("gsm8kk", "did you mean 'gsm8k'"), ("gsm8k=/nowhere", "no data file or directory at")]
)
def test_data_check_of_nothing(source, says, monkeypatch, capsys):
    code, _, err = check(monkeypatch, capsys, source)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_task_of_ones_own_is_checked_and_is_a_suite(monkeypatch, capsys, tmp_path):
    text = pathlib.Path("docs/extending.md").read_text().partition("# mine/sums.py")[2].partition("```")[0]
    (tmp_path / "own_tasks").mkdir()
    (tmp_path / "own_tasks" / "sums.py").write_text(text.partition("\n")[2])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    code, out, err = check(monkeypatch, capsys, "own_tasks.sums:Sums")
    assert (code, err) == (0, "")
    assert "64 validation, 64 test, 1472 train" in out
    (task,) = suites(["own_tasks.sums:Sums"]).values()
    assert len(task.splits["test"]) == 64
    code, _, err = check(monkeypatch, capsys, "own_tasks.sums:Products")
    assert code == 2
    assert "cannot load task" in err


# ------------------------------------------------------------------------------------------------- SVAMP and ASDiv
SVAMP_ROW = {
    "ID": "chal-9", "Body": "Dan had $ 3 left. If he had $ 4 at the start", "Question": "What did it cost?",
    "Equation": "( 4.0 - 3.0 )", "Answer": 1.0, "Type": "Subtraction",
}  # fmt: skip


def test_svamp_is_read_from_the_repositorys_list_and_from_the_hubs_splits(tmp_path):
    rows = [SVAMP_ROW | {"ID": f"chal-{i}", "Body": f"Dan had {i} pens."} for i in range(40)]
    (tmp_path / "SVAMP.json").write_text(json.dumps(rows))
    task = Svamp(path=str(tmp_path / "SVAMP.json"), test=10).build(0)
    assert {name: len(questions) for name, questions in task.splits.items()} == {
        "train": 27,
        "validation": 3,
        "test": 10,
    }
    assert task.splits["train"][0].answer == "1"
    hub = tmp_path / "hub"
    hub.mkdir()
    for name, part in (("train", rows[:30]), ("test", rows[30:])):
        lines = "".join(json.dumps(row | {"Answer": "1.0"}) + "\n" for row in part)
        (hub / f"{name}-00000.jsonl").write_text(lines)
    task = Svamp(path=str(hub)).build(0)
    assert [q.id for q in task.splits["test"]] == [f"chal-{i}" for i in range(30, 40)]
    assert len(task.splits["validation"]) == 3


def test_a_row_of_svamp():
    question = Svamp().parse(Row("here", SVAMP_ROW))
    assert question.text == "Dan had $ 3 left. If he had $ 4 at the start, What did it cost?"
    assert (question.answer, question.solution, question.category) == ("1", "4 - 3 = 1", "Subtraction")
    longer = SVAMP_ROW | {"Equation": "( ( 6.0 * 7.0 ) - 15.0 )", "Answer": "27.0"}
    assert Svamp().parse(Row("here", longer)).solution == "( ( 6 * 7 ) - 15 ) = 27"


def test_both_sets_together_keep_a_question_in_one_split(tmp_path):
    shared = SVAMP_ROW | {"ID": "chal-0", "Body": "Dan had 3 pens.", "Question": "How many?"}
    rows = [SVAMP_ROW | {"ID": f"chal-{i}", "Body": f"Dan had {i} pens."} for i in range(10, 50)]
    for name, held in (("train", rows[:30]), ("test", [*rows[30:], shared])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    asdiv = tmp_path / "asdiv.jsonl"
    problems = [{"Body": f"A hall has {i} rows.", "Question": "How many seats?", "Answer": f"{i}"} for i in range(40)]
    problems.append({"Body": "Dan had 3 pens.", "Question": "How many?", "Answer": "3"})
    problems = [row | {"Formula": "1+1=2", "Solution-Type": "Addition", "Grade": 1} for row in problems]
    asdiv.write_text("".join(json.dumps(row) + "\n" for row in problems))
    task = AsdivSvamp(asdiv=str(asdiv), svamp=str(tmp_path)).build(0)
    asked = {name: [question.asked for question in questions] for name, questions in task.splits.items()}
    everything = [text for texts in asked.values() for text in texts]
    assert len(everything) == len(set(everything)) == 40 + 40 + 1
    assert "dan had 3 pens. how many?" in asked["test"]
    samples = [q.id for split in AsdivSvamp("sample", "sample").build(0).splits.values() for q in split]
    assert len(samples) == len(set(samples)) > 40
    assert {len(texts) > 3 for texts in asked.values()} == {True}
    assert all(q.prompt.endswith(f"Q: {q.text}\nA:") for q in task.splits["train"])


def test_asdiv_leaves_out_questions_of_several_answers_and_units():
    task = Asdiv(path="sample").build(0)
    answers = {q.id: q.answer for questions in task.splits.values() for q in questions}
    assert len(answers) == 23
    assert "own-18" not in answers  # "12; 8"
    assert answers["own-01"] == "5"
    assert answers["own-16"] == "81"  # (square metres)
    assert answers["own-13"] == "2:3"
    hub = Row(
        "here", {"body": "A cat.", "question": "Legs?", "answer": "4 (legs)", "formula": "4=4", "solution_type": "Sum"}
    )
    assert Asdiv().parse(hub).text == "A cat. Legs?"
    assert Asdiv().parse(hub).difficulty is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<a><b>", "line 1: not XML"),
        ("<a><b><c>1</c><c>2</c></b></a>", "row 1: 'c' stands there twice"),
        ("<a></a>", "there are no rows"),
        ("", "not XML"),
    ],
)
def test_xml_that_holds_no_rows_is_refused(tmp_path, text, says):
    (tmp_path / "q.xml").write_text(text)
    with pytest.raises(UsageError, match=says):
        Asdiv(path=str(tmp_path / "q.xml")).build(0)
