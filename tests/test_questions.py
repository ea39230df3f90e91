"""Questions have an identity: ids, what makes two of them one, splits that share none, and the record of a run's."""

import dataclasses
import json
import random
import types
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.generations import Generations
from lilo_jax.questions import Question, Task, Verdict, normalised
from lilo_jax.storage.questions_file import differences, fingerprint, lines
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.identity import check_splits
from lilo_jax.tasks.noise import NoiseConfig, plant
from lilo_jax.tasks.published import hold_out
from lilo_jax.training.accounting import rollout_records
from lilo_jax.training.checks import check, questions_of


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(count, **more):
    return [{"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1), **more} for i in range(count)]


# ----------------------------------------------------------------------------------------------------------- identity
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1?", "  What\tis\n\n1? "),
        ("What is 1?", "WHAT IS 1?"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u212b", "\u00e5"),  # the sign of the unit angstrom is canonically the letter
        ("a\u00a0b\u2028c", "a b c"),
        ("\ufb01nd", "find"),  # case folding takes ligatures apart
    ],
)
def test_white_space_case_and_unicode_form_make_no_other_question(one, other):
    assert normalised(one) == normalised(other)
    assert Question(one, "1").id == Question(other, "1").id


@pytest.mark.parametrize(
    ("one", "other"),
    [("x²", "x2"), ("1 1+1", "11+1"), ("½", "1⁄2"), ("10⁵", "105"), ("a-b", "a−b"), ("", "?")],
)
def test_different_questions_never_become_one(one, other):
    assert normalised(one) != normalised(other)


@given(st.text())
def test_normalised_text_stays_as_it_is(text):
    assert normalised(normalised(text)) == normalised(text)
    assert normalised(unicodedata.normalize("NFD", text)) == normalised(unicodedata.normalize("NFC", text))


def test_an_id_is_of_the_text_and_the_answer_and_not_of_the_prompt():
    question = Question("Q: 1+1?", "2", text="1+1?")
    assert question.id == Question("other style 1+1?", "2", text="1+1?").id == Question("1+1?", "2").id
    assert len({question.id, Question("1+1?", "3").id, Question("1+2?", "2").id}) == 3
    assert Question("a", "b c").id != Question("a b", "c").id
    assert question.id == "82831a5898978c02"  # written down: it may never change
    assert len(question.id) == 16


def test_a_planted_flaw_keeps_the_id():
    questions = [Question(f"{i}?", str(i)) for i in range(20)]
    planted = plant(questions, NoiseConfig(wrong_keys=0.5, coin_flips=0.5), seed=0)
    assert [q.id for q in planted] == [q.id for q in questions]
    assert [q.content for q in planted] != [q.content for q in questions]


def test_generated_questions_have_ids_that_differ():
    task = Chain(pool=100, validation=20, test=20, longer=20, demonstrations=1).build(0)
    ids = [q.id for questions in task.splits.values() for q in questions]
    assert len(set(ids)) == len(ids) == 160
    assert {q.where for q in task.splits["train"]} == {""}
    first = task.splits["train"][0]
    assert first.name == f"question `{first.id}`"


def test_the_file_says_where_and_may_say_who(tmp_path):
    given_ids = [{"id": name, **row} for name, row in zip(("b", 7, 1.50, " x "), rows(4), strict=True)]
    (question, *others) = Dataset(path=write(tmp_path / "own.jsonl", given_ids)).test_questions()
    assert [question.id, *(q.id for q in others)] == ["b", "7", "1.5", "x"]
    assert question.where == question.name == f"{tmp_path / 'own.jsonl'}, line 1"
    (unnamed, *_) = Dataset(path=write(tmp_path / "none.jsonl", rows(4))).test_questions()
    assert unnamed.id == unnamed.content == question.content


def test_ids_are_the_same_in_a_shuffled_file(tmp_path):
    shuffled = rows(30)
    random.Random(0).shuffle(shuffled)
    found = [
        {q.text: q.id for q in Dataset(path=write(tmp_path / name, each)).test_questions()}
        for name, each in (("a.jsonl", rows(30)), ("b.jsonl", shuffled))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "line 3: 'id' must be a text or a number, and not empty"),
        (" ", "line 3: 'id' must be a text or a number"),
        (None, "line 3: 'id' is null"),
        (True, "line 3: 'id' must be a text or a number"),
        ({"a": 1}, "line 3: 'id' must be a text or a number"),
        ("q1", "line 3: the id 'q1' is that of line 2 as well"),
    ],
)
@pytest.mark.parametrize("task", [Dataset, Gsm8k])
def test_blank_and_repeated_ids_are_refused_with_their_lines(task, value, says, tmp_path):
    named = [{"id": f"q{i}", **row, "answer": f"#### {row['answer']}"} for i, row in enumerate(rows(5))]
    named[2]["id"] = value
    path = write(tmp_path / "train.jsonl", named)
    with pytest.raises(UsageError, match=says):
        task(path=path).build(0)


def test_where_is_no_part_of_a_question_and_survives_a_record():
    question = Question("1?", "1", id="a", where="q.jsonl, line 3")
    assert question == dataclasses.replace(question, where="moved.jsonl, line 9")
    record = json.loads(json.dumps(Generations(question, ()).record()))
    assert (record["question"]["id"], record["question"]["where"]) == ("a", "q.jsonl, line 3")
    assert Generations.of(record).question.where == "q.jsonl, line 3"
    del record["question"]["id"], record["question"]["where"]  # as older runs have it
    assert Generations.of(record).question.id == question.content


def test_rollouts_say_which_question_they_answer():
    questions = [Question("1?", "1", id="a", where="q.jsonl, line 1"), Question("2?", "2")]
    rollout = types.SimpleNamespace(
        group=0, response="", verdict=Verdict.WRONG, reward=0.0, completion_ids=[1], prompt_ids=[1]
    )
    collected = types.SimpleNamespace(rollouts=[rollout], place=[0], round=[0])
    pool = types.SimpleNamespace(questions=questions)
    nothing = types.SimpleNamespace(indices=np.zeros(0, int), mask=np.zeros(0, bool))
    (record,) = rollout_records(pool, collected, nothing)
    assert (record["question"], record["id"], record["where"]) == (0, "a", "q.jsonl, line 1")


# ------------------------------------------------------------------------------------------------------------- splits
def test_what_is_held_out_is_the_same_as_it_ever_was():
    """The choice goes by the SHA-256 of the text as it is written; runs that exist depend on it."""
    questions = [Question("", "", text=f"What is {i} plus {i + 1}?") for i in range(20)]
    assert [q.text for q in hold_out(questions, 3)[1]] == [
        "What is 6 plus 7?", "What is 11 plus 12?", "What is 18 plus 19?",
    ]  # fmt: skip


def test_a_held_out_question_takes_its_other_spellings_along():
    questions = [Question("", "", text=text) for text in ("a?", "b?", "c?", " A? ", "d?")]
    for count in range(1, 5):
        rest, held = hold_out(questions, count)
        assert not {q.asked for q in rest} & {q.asked for q in held}


@pytest.mark.parametrize("other", ["What is 3 plus 4?  ", "what is 3 PLUS 4?", "What is 3 \u2003 plus 4?"])
def test_a_repeated_question_is_refused_however_it_is_spelt(other, tmp_path):
    path = write(tmp_path / "q.jsonl", [*rows(20), {"question": other, "answer": "7"}])
    with pytest.raises(UsageError, match="line 21: same question as line 4; remove one"):
        Dataset(path=path).build(0)


def test_named_splits_share_no_question(tmp_path):
    write(tmp_path / "train.jsonl", rows(20))
    write(tmp_path / "test.jsonl", [{"question": "WHAT IS 5 PLUS 6?", "answer": "11"}])
    with pytest.raises(UsageError, match=r"test\.jsonl, line 1: same question as .*train\.jsonl, line 6"):
        Dataset(path=str(tmp_path)).build(0)
    for name in ("train", "test"):
        each = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        write(tmp_path / f"{name}.jsonl", [{**row, "answer": f"#### {row['answer']}"} for row in each])
    splits = Gsm8k(path=str(tmp_path)).build(0).splits  # published copies repeat a few: they are left out
    asked = [q.asked for questions in splits.values() for q in questions]
    assert len(asked) == len(set(asked)) == 20
    assert [q.text for q in splits["test"]] == ["WHAT IS 5 PLUS 6?"]


@dataclasses.dataclass(frozen=True)
class Mine:
    """A task of a user's own, whose splits share a question."""

    shared: str = " 3? "

    def build(self, seed):
        splits = {
            "train": [Question(f"{i}?", str(i)) for i in range(20)],
            "test": [Question("20?", "20"), Question(self.shared, "3")],
        }
        return Task(splits, [("1", "1")], lambda question, response: Verdict.WRONG, unique_answers=False)


def test_a_task_of_ones_own_is_checked_too():
    config = dataclasses.replace(Config(num_steps=0), task=Mine())
    with pytest.raises(UsageError, match="test, question 2: same question as train, question 4; no question of 'test'"):
        check(config)
    assert len(check(dataclasses.replace(config, task=Mine("21?"))).splits["test"]) == 2
    with pytest.raises(UsageError, match=r"--task\.shared must be text without NUL or half a surrogate"):
        check(dataclasses.replace(config, task=Mine("\ud83d?")))


def test_repeats_within_a_split_of_ones_own_are_its_own_business():
    check_splits({"train": [Question("1?", "1"), Question("1?", "1")], "test": [Question("2?", "2")]})


# --------------------------------------------------------------------------------------------------- a run's questions
def splits_of(count=20, *, first=0):
    questions = [
        Question(f"What is {i} plus 1?", str(i + 1), where=f"q.jsonl, line {i + 1}") for i in range(first, count)
    ]
    return {"train": questions[4:], "test": questions[:4]}


@pytest.fixture
def stored():
    return lines(splits_of())


def test_the_same_questions_are_the_same_wherever_they_stand(stored):
    moved = {
        name: [dataclasses.replace(q, where=f"moved.csv, line {i}", prompt=f"Q: {q.prompt}", text=q.prompt)
               for i, q in enumerate(questions)]
        for name, questions in reversed(splits_of().items())
    }  # fmt: skip
    assert differences(stored, splits_of()) == differences(stored, moved) == ""
    assert fingerprint(splits_of()) == fingerprint(moved)
    assert len(fingerprint(moved)) == 64
    records = [json.loads(line) for line in stored.splitlines()]
    assert len(records) == 20
    assert {name: records[0][name] for name in ("split", "where")} == {"split": "train", "where": "q.jsonl, line 5"}


def test_what_is_different_is_said_by_name(stored):
    base = splits_of()
    train, test = base["train"], base["test"]
    new = [Question(f"New {i}? " + "x" * 100, "1", where=f"q.jsonl, line {30 + i}") for i in range(3)]
    shuffled = [*train[:4], train[5], train[4], *train[6:]]
    one, first, gone = new[0].id, train[0].id, train[1].id
    asked = "'New 0? " + "x" * 53 + "'..."
    cases = [
        ({"train": train + new, "test": test},
         f"3 questions were added, first `{one}` of train, q.jsonl, line 30: {asked}"),
        ({"train": train[2:], "test": test}, f"2 questions are missing, first `{first}` of train, q.jsonl, line 5"),
        ({"train": [train[0], *train[2:], new[0]], "test": test},
         f"1 question was added, `{one}` of train, q.jsonl, line 30: {asked}; "
         f"1 question is missing, `{gone}` of train, q.jsonl, line 6"),
        ({"train": shuffled, "test": test},
         f"the order of train differs from question 5 on: `{train[5].id}` stands for `{train[4].id}`"),
        ({"train": train[:-1], "test": [*test, train[-1]]},
         f"`{train[-1].id}` was in train, and is in another split now"),
        ({"train": [*train, test[0]], "test": test[1:]}, f"`{test[0].id}` was in test, and is in train now"),
    ]  # fmt: skip
    for splits, says in cases:
        assert differences(stored, splits) == says
        assert fingerprint(splits) != fingerprint(base)


def test_an_id_of_ones_own_cannot_come_to_name_another_question():
    before = {"train": [Question("1?", "1", id="a"), Question("2?", "2", id="b")]}
    after = {"train": [Question("1?", "1", id="a"), Question("3?", "2", id="b", where="q.csv, line 3")]}
    says = "1 question asks something else, `b` of train, q.csv, line 3: '3?'"
    assert differences(lines(before), after) == says
    assert fingerprint(before) != fingerprint(after)


def test_a_changed_answer_is_another_question(stored):
    changed = splits_of()
    changed["train"][0] = dataclasses.replace(changed["train"][0], answer="9", id="")
    assert "1 question was added" in differences(stored, changed)


def test_questions_that_stand_twice_are_counted():
    one, two = Question("1?", "1"), Question("2?", "2")
    stored = lines({"train": [one, one, two]})
    assert differences(stored, {"train": [one, one, two]}) == ""
    assert differences(stored, {"train": [one, two]}).startswith("1 question is missing")
    assert "order of train differs from question 2" in differences(stored, {"train": [one, two, one]})


def test_a_run_depends_on_its_splits_and_its_suites(tmp_path):
    write(tmp_path / "suite.jsonl", [{"question": f"{i}!", "answer": f"#### {i}"} for i in range(5)])
    config = Config(num_steps=0, task=Dataset(path=write(tmp_path / "q.jsonl", rows(20))))
    suites = (f"gsm8k={tmp_path / 'suite.jsonl'}",)
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, suites=suites))
    found = questions_of(config, check(config))
    assert {name: len(questions) for name, questions in found.items()} == {
        "validation": 2, "test": 2, "train": 16, "gsm8k": 5,
    }  # fmt: skip
    row = {"question": "What  is 0 plus 1? ", "answer": "#### 1"}
    write(tmp_path / "suite.jsonl", [row])
    with pytest.raises(
        UsageError, match=r"1 questions of .* are trained on: .*suite.jsonl, line 1, which is .*line 1 "
    ):
        check(config)
