"""Files of questions: text stays text, and what is broken is refused with its place, by the check as by training."""

import csv
import dataclasses
import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lilo_jax.cli.verbs import data, grade
from lilo_jax.config import Config, Launch, replace
from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.json_lines import read_records
from lilo_jax.tasks.check import look
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.math500 import Math500
from lilo_jax.tasks.orz57k import Orz57k
from lilo_jax.tasks.rows import read_rows
from lilo_jax.tokenizers.lengths import UNBOUNDED
from lilo_jax.training.checks import check as check_config
from lilo_jax.training.run import run

GOOD = "".join(json.dumps({"question": f"What is {i} plus 1?", "answer": str(i + 1)}) + "\n" for i in range(24))
CSV = "question,answer\r\n" + "".join(f"What is {i} plus 1?,{i + 1}\r\n" for i in range(24))
BOM = b"\xef\xbb\xbf"


def golds(path):
    return [q.answer for q in Dataset(path=str(path)).test_questions()]


def looked_at(path, **given):
    options = {"question": "", "answer": "", "template": "", "model": None} | given
    data("check", str(path), **options)


# ---------------------------------------------------------------------------------------------------------------- CSV
@pytest.mark.parametrize(
    "words",
    [
        ["12345678901234567", "3", "2.5"],  # as floats the first would be another number
        ["NA", "None", "null", "nan", "NaN", "N/A", "n/a", "-", "inf"],
        ["True", "False", "true", "TRUE"],
        ["0.10", "007", "1e5", "1_000", "+5", "1,000", "2024-01-01", "1/2", "5%", "$5"],
        ["9" * 5000, "0." + "1" * 40],
    ],
)
def test_csv_golds_are_what_is_written(words, tmp_path):
    with open(tmp_path / "q.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *([f"{i}?", word] for i, word in enumerate(words))])
    assert golds(tmp_path / "q.csv") == words
    assert "broken rows" not in {finding.kind for finding in look(Dataset(path=str(tmp_path / "q.csv"))).findings}


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_keeps_every_text(tmp_path, cells, end, quoted):
    quoting = csv.QUOTE_ALL if quoted or end == "\n" else csv.QUOTE_MINIMAL  # minimal leaves a lone \r bare before 3.13
    with open(tmp_path / "q.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end, quoting=quoting).writerows([("question", "answer"), *cells])
    found = [(row.values["question"], row.values["answer"]) for row in read_rows(tmp_path / "q.csv")]
    assert found == cells


def test_csv_places_count_lines_and_not_rows(tmp_path):
    (tmp_path / "q.csv").write_bytes(BOM + b'question,answer\r\n"a ""b""\r\n, c",1\r\n\r\n"d",2\r\n')
    found = [(row.where.rpartition(", ")[2], row.values) for row in read_rows(tmp_path / "q.csv")]
    assert found == [
        ("line 2", {"question": 'a "b"\r\n, c', "answer": "1"}),
        ("line 5", {"question": "d", "answer": "2"}),
    ]


def test_csv_numbers_are_numbers_where_they_are_used(tmp_path):
    (tmp_path / "q.csv").write_text("question,answer,level\n" + "".join(f"{i}?,{i},{i % 5}.0\n" for i in range(5)))
    spec = Dataset(path=str(tmp_path / "q.csv"), difficulty="level")
    assert [q.difficulty for q in spec.test_questions()] == [0, 1, 2, 3, 4]
    (tmp_path / "test.csv").write_text("problem,answer,level\n1?,1,3\n2?,2,\n")
    assert [q.difficulty for q in Math500(path=str(tmp_path / "test.csv")).build(0).splits["test"]] == [3.0, None]
    (tmp_path / "q.csv").write_text("question,answer,level\n1?,1,hard\n")
    with pytest.raises(UsageError, match="line 2: 'level' must be a number"):
        spec.test_questions()


# ------------------------------------------------------------------------------------------------------------ parquet
def table(tmp_path, column, name="q.parquet"):
    questions = pa.array([f"{i}?" for i in range(len(column))])
    pyarrow.parquet.write_table(pa.table({"question": questions, "answer": column}), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([0.1, 2.5, 1e10], pa.float32()), ["0.1", "2.5", "1e+10"]),
        (pa.array([0.1, 1 / 3], pa.float64()), ["0.1", "0.3333333333333333"]),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal("0.0000001"), decimal.Decimal("1" * 20)]),
         ["1.5000000", "0.0000001", "1" * 20 + ".0000000"]),
        (pa.array([decimal.Decimal("1.50")], pa.decimal128(5, 2)), ["1.50"]),
        (pa.array([2**63 - 1, -(2**63)], pa.int64()), ["9223372036854775807", "-9223372036854775808"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array(["NA", "0.10", " True"], pa.large_string()), ["NA", "0.10", "True"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    ],
)  # fmt: skip
def test_parquet_golds_have_the_digits_of_their_type(column, expected, tmp_path):
    assert golds(table(tmp_path, column)) == expected


def test_arrow_streams_and_files_are_read(tmp_path):
    stored = pa.table({"question": ["1?", "2?"], "answer": pa.array([0.1, 0.2], pa.float32())})
    with pa.ipc.new_stream(tmp_path / "stream.arrow", stored.schema) as stream:
        stream.write_table(stored)
    with pa.ipc.new_file(tmp_path / "file.arrow", stored.schema) as file:
        file.write_table(stored)
    assert golds(tmp_path / "stream.arrow") == golds(tmp_path / "file.arrow") == ["0.1", "0.2"]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1.5, float("nan")]), "row 2: 'answer' is nan"),
        (pa.array([1.5, float("inf")], pa.float32()), "row 2: 'answer' is inf"),
        (pa.array(["a", None]), "row 2: 'answer' is null"),
        (pa.array([datetime.datetime(2024, 1, 1)] * 2, pa.timestamp("ns")), "row 1: .*'answer' a string or a number"),
        (pa.array([datetime.date(2024, 1, 1)] * 2), "row 1: .*'answer' a string or a number"),
        (pa.array([b"1", b"2"]), "row 1: .*'answer' a string or a number"),
        (pa.array([True, False]), "row 1: .*'answer' a string or a number"),
        (pa.array([["1"], ["2"]]), "row 1: .*'answer' a string or a number"),
        (pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers()), "row 2: not UTF-8 text"),
    ],
)  # fmt: skip
def test_parquet_values_that_are_no_answers_are_refused_with_their_row(column, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        golds(table(tmp_path, column))


def test_what_nobody_reads_may_be_of_any_type(tmp_path):
    columns = {"question": ["1?", "2?"], "answer": ["1", "2"], "score": [1.0, float("nan")], "image": [b"\xff", b""]}
    columns["made"] = pa.array([1, 2], pa.timestamp("ns"))
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "q.parquet")
    assert golds(tmp_path / "q.parquet") == ["1", "2"]


# --------------------------------------------------------------------------------------------------------------- JSON
def test_json_numbers_keep_their_digits(tmp_path):
    numbers = ["1.50", "0.10", "12345678901234567", "1e22", "-0.0", "0.1000000000000000055", "3"]
    lines = "".join(f'{{"question": "{i}?", "answer": {number}}}\n' for i, number in enumerate(numbers))
    (tmp_path / "q.jsonl").write_text(lines)
    (tmp_path / "q.json").write_text("[" + ",\n".join(lines.splitlines()) + "]\n")
    assert golds(tmp_path / "q.jsonl") == golds(tmp_path / "q.json") == numbers


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "list.json", "q.csv"])
def test_a_byte_order_mark_is_no_text(name, tmp_path):
    listed = json.dumps([json.loads(line) for line in GOOD.splitlines()])
    text = {"q.csv": CSV, "list.json": listed}.get(name, GOOD)
    (tmp_path / name).write_bytes(BOM + text.encode())
    assert golds(tmp_path / name) == [str(i + 1) for i in range(24)]
    looked_at(tmp_path / name)


def test_a_byte_order_mark_is_no_text_in_the_inputs_of_verbs(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(BOM + b'{"gold": 1.50, "response": "1.50"}\r\n')
    assert [record for _, record in read_records(tmp_path / "in.jsonl")] == [{"gold": 1.5, "response": "1.50"}]
    grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "exact", False, 1, 3.0)
    assert json.loads((tmp_path / "out.jsonl").read_text())["verdict"] == "correct"


def test_rows_of_a_json_list_have_numbers_and_go_on_behind_a_broken_one(tmp_path):
    (tmp_path / "q.json").write_text(
        '[{"question": "1?", "answer": 1},\n {"question": "2?", "answer": NaN},\n'
        ' {"question": "3?", "answer": ' + "7" * 5000 + '}, {"question": "4?", "answer": 4}]'
    )
    errors = []
    assert [row.values["answer"] for row in read_rows(tmp_path / "q.json", errors.append)] == [1, 4]
    assert [str(error).partition(", ")[2].partition(":")[0] for error in errors] == ["row 2", "row 3"]


def test_conversations_hold_texts(tmp_path):
    def turns(question, answer):
        return [{"from": "human", "value": question}, {"from": "assistant", "ground_truth": {"value": answer}}]

    for value in (None, True, "", ["a", None], {"a": 1}):
        (tmp_path / "train.json").write_text(json.dumps([turns("1?", "1"), turns("2?", value)]))
        with pytest.raises(UsageError, match="row 2: 'ground truth' "):
            Orz57k(path=str(tmp_path / "train.json")).build(0)


# ------------------------------------------------------------------------------------------- the check and training
def nested(depth):
    return '{"question": "deep?", "answer": ' + "[" * depth + "]" * depth + "}"


BROKEN = {
    # name of the file: its bytes, and what both say of it
    "nan.jsonl": (GOOD + '{"question": "?", "answer": NaN}\n', "line 25: NaN is no JSON"),
    "infinity.jsonl": (GOOD + '{"question": "?", "answer": -Infinity}\n', "line 25: -Infinity is no JSON"),
    "unused_nan.jsonl": ('{"score": NaN, "question": "?", "answer": 1}\n' + GOOD, "line 1: NaN is no JSON"),
    "surrogate.jsonl": (GOOD + '{"question": "\\ud83d?", "answer": 1}\n', "line 25: half of a surrogate pair"),
    "surrogate_key.jsonl": (GOOD + '{"question": "?", "answer": 1, "\\uDE00": 2}\n', "line 25: half of a surrogate"),
    "twice.jsonl": (GOOD + '{"question": "?", "answer": 1, "answer": 2}\n', "line 25: the key 'answer' stands twice"),
    "digits.jsonl": (GOOD + '{"question": "?", "answer": ' + "7" * 5000 + "}\n", "line 25: a whole number with too"),
    "exponent.jsonl": (GOOD + '{"question": "?", "answer": 1e999}\n', "line 25: 1e999 is beyond any number"),
    "nested.jsonl": (GOOD + nested(20_000) + "\n", "line 25: brackets are nested too deeply"),
    "nested_less.jsonl": (GOOD + nested(500) + "\n", "line 25: .* a string or a number"),
    "empty_gold.jsonl": (GOOD + '{"question": "?", "answer": " "}\n', "line 25: empty 'question' or 'answer'"),
    "null_gold.jsonl": (GOOD + '{"question": "?", "answer": null}\n', "line 25: 'answer' is null"),
    "half_line.jsonl": (GOOD + '{"question": "?", ', "line 25: not valid JSON"),
    "list_line.jsonl": (GOOD + '["?", 1]\n', "line 25: expected a JSON object"),
    "utf8.jsonl": (GOOD.encode() + b'{"question": "\xff", "answer": 1}\n', "line 25: not UTF-8 text"),
    "utf16.jsonl": (GOOD.encode("utf-16"), "line 1: not UTF-8 text"),
    "spaces.jsonl": (GOOD + '{"question": "WHAT is  3 plus 1?\\n", "answer": 4}\n', "line 25: same question as line 4"),
    "no_rows.jsonl": ("\n  \n", "no_rows.jsonl: there are no rows"),
    "no_bytes.jsonl": ("", "no_bytes.jsonl: there are no rows"),
    "blank_id.jsonl": (GOOD + '{"question": "?", "answer": 1, "id": ""}\n', "line 25: 'id' must be a text"),
    "one_id.jsonl": (GOOD.replace("}", ', "id": 5}'), "line 2: the id '5' is that of line 1 as well"),
    "no_list.json": ("[]", "no_list.json: there are no rows"),
    "cut_list.json": ('[{"question": "?",\n "answer": 1}', "line 2: not valid JSON"),
    "two_lists.json": ('[{"question": "?", "answer": 1}]\n[]', "line 1: not valid JSON"),
    "comma.json": ('[{"question": "?", "answer": 1},\n]', "line 2: not valid JSON"),
    "deep.json": ('[{"question": "?", "answer": 1},' + nested(20_000) + "]", "row 2: brackets are nested too deeply"),
    "nan.json": ('[{"question": "?", "answer": NaN}]', "row 1: NaN is no JSON"),
    "short.csv": (CSV + "What is it?\r\n", "line 26: 1 cells under 2 column names"),
    "long.csv": (CSV + "Is 1,000 it?,yes\r\n", "line 26: 3 cells under 2 column names"),
    "empty_gold.csv": (CSV + "What is it?,\r\n", "line 26: empty 'question' or 'answer'"),
    "quote.csv": (CSV + '"What is it?,1\r\n', "line 26: not CSV"),
    "quotes.csv": (CSV + '"What" is it?,1\r\n', "line 26: not CSV"),
    "utf8.csv": (CSV.encode() + b"What is \xe9?,1\r\n", "line 26: not UTF-8 text"),
    "columns.csv": ("question,answer,answer\n1?,1,1\n", "line 1: two columns are called 'answer'"),
    "header.csv": ("question,answer\r\n", "header.csv: there are no rows"),
    "no_bytes.csv": ("", "no_bytes.csv: there are no rows"),
    "other.csv": (CSV.replace("answer", "reply"), "line 2: no column 'answer'"),
    "cut.parquet": (b"PAR1....", "cut.parquet cannot be read as parquet"),
    "cut.arrow": (b"ARROW1", "cut.arrow cannot be read as arrow"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_the_check_refuses_what_training_refuses(name, tmp_path, capsys):
    content, says = BROKEN[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    spec = Dataset(path=str(tmp_path / name))
    with pytest.raises(UsageError, match=says) as trained:
        spec.build(0)
    assert "\n" not in str(trained.value)
    with pytest.raises((RunError, UsageError)) as looked:  # exit 1 with the flaws, or 2 where nothing can be read
        looked_at(tmp_path / name)
    shown = capsys.readouterr().out + str(looked.value)
    assert str(trained.value).partition("; ")[0] in shown


def test_every_broken_row_is_listed(tmp_path):
    lines = [
        '{"question": "?", "answer": NaN}',
        "{",
        '{"question": "a", "answer": ""}',
        '{"question": "b", "answer": 1}',
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    findings = look(Dataset(path=str(tmp_path / "q.jsonl"))).findings
    assert [finding.message.partition(": ")[0][-6:] for finding in findings] == ["line 1", "line 2", "line 3"]


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(UsageError, match="holds no data file"):
        Dataset(path=str(tmp_path)).build(0)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        list(read_rows(tmp_path / "train.jsonl"))


# ------------------------------------------------------------------------------------------------------- long prompts
def long_questions(tmp_path, characters=200, name="q.jsonl"):
    row = json.dumps({"question": "y" * characters, "answer": "1"})
    (tmp_path / name).write_text(GOOD + row + "\n")
    return str(tmp_path / name)


def config_for(path, **changes):
    changes = {"model__context_length": 64, "rollout__max_new_tokens": 8, "curriculum__pool_ratio": 1} | changes
    longest = changes.pop("longest", 0)
    return replace(Config(), task=Dataset(path=path, longest=longest), **changes)


def test_the_longest_prompts_are_shown_with_what_they_cost(tmp_path, capsys):
    looked_at(long_questions(tmp_path))
    out = capsys.readouterr().out
    assert f"longest prompts (--model MODEL counts their tokens):\n  {tmp_path / 'q.jsonl'}, line 25: 201 char" in out
    assert "201 characters, about 67 tokens" in out
    assert out.count(" characters, ") == 3


def test_a_prompt_without_room_is_refused_by_its_row_before_anything_is_trained(tmp_path):
    """The characters of y make one token each or fewer; the tokenizer has merges of them."""
    path = long_questions(tmp_path, 50_000)
    with pytest.raises(
        UsageError, match=r"q\.jsonl, line 25: its prompt, .* set --task.longest 56, which leaves"
    ) as error:
        run(config_for(path), Launch(output_dir=str(tmp_path / "run")))
    assert "by itself more than the 64" in str(error.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        UsageError, match=r"with 60 new ones more than the 64 .*: lower --rollout.max-new-tokens, or set"
    ):
        check_config(config_for(long_questions(tmp_path, 1, "short.jsonl"), rollout__max_new_tokens=60))
    with pytest.raises(
        UsageError, match=r"with 70 new ones more than the 64 of the model's context: lower --rollout.max-n"
    ):
        check_config(config_for(path, rollout__max_new_tokens=70))


def test_longer_prompts_are_left_out_with_their_demonstrations_and_counted(tmp_path, capsys):
    path = long_questions(tmp_path, 50_000)
    task = check_config(config_for(path, longest=40))
    assert [q.where for q in task.left_out] == [f"{path}, line 25"]
    assert sum(map(len, task.splits.values())) == 24
    assert max(len(prompt) for prompt, _ in task.demonstrations) < 40
    assert "left out: 1 questions, first" in capsys.readouterr().err
    with pytest.raises(UsageError, match="longest leaves no question of"):
        check_config(config_for(path, longest=1))
    with pytest.raises(UsageError, match=r"--task\.longest must be at least 0"):
        check_config(config_for(path, longest=-1))


@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_text_too_long_to_be_padded_to_is_refused_without_a_context(column, tmp_path):
    row = {"question": "long?", "answer": "1"} | {column: "".join(f"{i} " for i in range(100_000))}
    (tmp_path / "train.jsonl").write_text(GOOD + json.dumps(row) + "\n")
    for name in ("validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": name, "answer": "1"}) + "\n")
    config = dataclasses.replace(config_for(str(tmp_path)), model=Config().model)
    with pytest.raises(UsageError, match=rf"line 25: its prompt.* {UNBOUNDED}"):
        check_config(config)
    if column == "question":
        left = dataclasses.replace(config, task=dataclasses.replace(config.task, longest=UNBOUNDED))
        assert len(check_config(left).left_out) == 1


def verl_row(number, **changes):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{number} + 1?"}]
    reward = {"style": "rule", "ground_truth": str(number + 1)}
    return {"data_source": "sums", "prompt": turns, "ability": "math", "reward_model": reward} | changes


def test_rows_as_verl_prepares_them_are_read(tmp_path):
    pyarrow.parquet.write_table(pa.Table.from_pylist([verl_row(i) for i in range(20)]), tmp_path / "verl.parquet")
    task = Dataset(path=str(tmp_path / "verl.parquet")).build(0)
    first = min(task.splits["train"], key=lambda q: int(q.answer))
    assert first.text == f"{int(first.answer) - 1} + 1?"
    assert first.category == "sums"
    assert sum(map(len, task.splits.values())) == 20


@pytest.mark.parametrize(
    "row",
    [
        verl_row(1, prompt=[{"role": "system", "content": "?"}]),
        verl_row(1, prompt="1 + 1"),
        verl_row(1, reward_model={"style": "rule"}),
        verl_row(1, reward_model={"ground_truth": " "}),
    ],
)
def test_a_row_of_verl_without_question_or_answer_is_refused(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*(verl_row(i) for i in range(2, 20)), row]))
    with pytest.raises(UsageError, match=r"line 19: a row with 'reward_model' needs a 'prompt' of turns"):
        Dataset(path=str(path)).build(0)
