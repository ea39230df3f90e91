"""Worked examples, templates from files and system turns: what stands before a question, and where it comes from."""

import json

import pytest
from pretrained_models import CHATML

from lilo_jax import config as configuration
from lilo_jax.cli import measuring, verbs
from lilo_jax.config import Config, Options
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.rl.rloo import Rloo
from lilo_jax.tasks.countdown import Countdown
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.math500 import Math500
from lilo_jax.tasks.shots import shown, with_shots
from lilo_jax.tokenizers import prompt_ids, turns
from lilo_jax.tokenizers.template import ChatTemplate
from lilo_jax.training import checks

SHOTS = (("1+1?", "It is 2."), ("2+2?", "4"))


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"{i} + 1?", "answer": str(i + 1), "how": f"{i} + 1 = {i + 1}"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Letters:
    """A tokenizer of one id a character."""

    begin_ids = (1,)
    chat = ChatTemplate(CHATML)

    def encode(self, text):
        return [ord(c) for c in text]


@pytest.mark.parametrize("spec", [Gsm8k(path="sample"), Gsm8k(path="sample", template="none")])
def test_examples_are_training_questions_that_are_neither_trained_on_nor_evaluated(spec):
    without = spec.build(0)
    task = type(spec)(path="sample", template=spec.template, shots=3).build(0)
    again = type(spec)(path="sample", template=spec.template, shots=3).build(7)
    assert task.shots == again.shots  # the same for every seed
    assert len(task.shots) == 3
    asked = {prompt for prompt, _ in task.shots}
    assert asked <= {q.prompt for q in without.splits["train"]}
    assert not asked & {q.prompt for split in task.splits.values() for q in split}
    assert not asked & {prompt for prompt, _ in task.demonstrations}
    assert len(task.splits["train"]) == len(without.splits["train"]) - 3
    for name in ("validation", "test"):
        assert [q.id for q in task.splits[name]] == [q.id for q in without.splits[name]]
    solutions = {q.prompt: q.solution for q in without.splits["train"]}
    assert all(solutions[prompt] == response for prompt, response in task.shots)


def test_examples_of_own_questions_are_solved_as_their_column_says(sums):
    task = Dataset(path=sums, solution="how", shots=2, template="{question}").build(0)
    assert all(response == f"{prompt[:-1]} = {int(prompt.split()[0]) + 1}" for prompt, response in task.shots)
    assert len(task.splits["train"]) == 40 - 4 - 4 - 2


def test_as_text_they_stand_before_every_prompt_and_change_no_identity(sums):
    plain = Dataset(path=sums, solution="how", shots=2, template="{question}").build(0)
    task = with_shots(plain, chat=False)
    (first, one), (second, two) = plain.shots
    before = f"{first} {one}\n\n{second} {two}\n\n"
    for name, questions in task.splits.items():
        assert [q.prompt for q in questions] == [before + q.prompt for q in plain.splits[name]]
        assert [(q.id, q.asked) for q in questions] == [(q.id, q.asked) for q in plain.splits[name]]
    assert task.demonstrations[0][0] == before + plain.demonstrations[0][0]
    assert with_shots(plain, chat=True) is plain


def test_an_answer_follows_a_prompt_that_ends_with_a_space_or_newline_at_once():
    assert shown([("a\n", "b"), ("c", "d\n")]) == "a\nb\n\nc d\n\n"


def test_as_turns_they_come_after_the_system_prompt():
    chat = turns(chat=True, system="Be brief.", shots=SHOTS)
    text = "".join(map(chr, prompt_ids(Letters(), "3+3?", chat=chat)[1:]))
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
        "<|im_start|>assistant\nIt is 2.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert turns(chat=False, shots=SHOTS) is False
    assert turns(chat=True) is True


def test_a_run_asks_its_held_out_questions_after_the_same_examples(sums):
    config = Config(
        task=Dataset(path=sums, shots=2, template="{question}"), algorithm=Rloo(),
        model=configuration.ModelConfig(num_layers=1, embed_dim=8, mlp_dim=8),
    )  # fmt: skip
    config = configuration.replace(config, evaluation__suites=("gsm8k=sample",), curriculum__pool_ratio=2)
    task = checks.check(config)
    before = shown(task.shots)
    assert before
    for questions, _, _ in checks.held_out_sets(config, task).values():
        assert all(q.prompt.startswith(before) for q in questions)
    assert all(q.prompt.startswith(before) for q in task.splits["train"])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (Math500(path="sample", shots=1), "leaves none of the 0 training questions"),
        (Gsm8k(path="sample", shots=1000), "--task.shots 1000 leaves none"),
        (Countdown(path="sample", shots=1), "countdown has no worked solutions"),
    ],
)
def test_examples_that_cannot_be_had(spec, says):
    with pytest.raises(UsageError, match=says):
        spec.build(0)


def test_a_suite_may_have_examples_of_its_own_training_questions():
    protocol = Protocol(1, 0.0, 1.0, 8)
    (task,) = measuring._suites(None, "gsm8k=sample", protocol, shots=2, chat=False).values()
    (plain,) = measuring._suites(None, "gsm8k=sample", protocol, shots=0, chat=False).values()
    assert [q.prompt for q in task.splits["test"]] == [shown(task.shots) + q.prompt for q in plain.splits["test"]]
    (chatting,) = measuring._suites(None, "gsm8k=sample", protocol, shots=2, chat=True).values()
    assert [q.prompt for q in chatting.splits["test"]] == [q.prompt for q in plain.splits["test"]]
    assert chatting.shots == task.shots


# ------------------------------------------------------------------------------------------------------ template files
def parsed(*args):
    return configuration.parse(Options(), args, prog="x", description="").config


def test_a_template_comes_from_a_file_with_its_newlines(tmp_path):
    (tmp_path / "t.txt").write_text("2 + 3 = 5\n9 - 4 = 5\n{question} =\n")
    config = parsed("--task", "gsm8k", "--task.template-file", str(tmp_path / "t.txt"))
    assert config.task.template == "2 + 3 = 5\n9 - 4 = 5\n{question} ="
    assert configuration.from_dict(configuration.to_dict(config)) == config  # the file is not needed again


def test_a_template_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("no place\n")
    for args, says in [
        (["--task.template-file", str(tmp_path / "t.txt")], r"no \{question\} in it"),
        (["--task.template-file", str(tmp_path / "none.txt")], "no template can be read"),
        (["--task.template-file", str(tmp_path / "t.txt"), "--task.template", "plain"], "say the same twice"),
    ]:
        with pytest.raises(UsageError, match=says):
            parsed("--task", "gsm8k", *args)


def test_a_system_prompt_needs_a_chat():
    with pytest.raises(UsageError, match=r"--tokenizer\.system is a turn of a chat template"):
        checks.validate(configuration.replace(Config(), tokenizer__system="Be brief."))


# ------------------------------------------------------------------------------------------------------- lilo generate
def line_of(record, **options):
    given = {"chat": False, "system": "", "style": lambda text: text} | options
    return verbs._prompt(
        Letters(), "x.jsonl, line 1", record, given["style"], chat=given["chat"], system=given["system"]
    )


def test_a_line_is_a_prompt_in_a_style_or_the_turns_of_a_chat():
    assert line_of({"prompt": "2?"}, style=lambda text: f"Q: {text}") == [1, *map(ord, "Q: 2?")]
    messages = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]
    asked = {"messages": [*messages, {"role": "user", "content": "2?"}]}
    expected = prompt_ids(Letters(), "2?", chat=[{"role": "system", "content": "Hm."}, *messages])
    assert line_of(asked, chat=True, system="Hm.") == expected
    assert line_of({"messages": asked["messages"][-1:]}, chat=True) == prompt_ids(Letters(), "2?", chat=True)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({}, "expected"),
        ({"messages": []}, "expected"),
        ({"messages": [{"role": "assistant", "content": "1"}]}, "whose last is a user's"),
        ({"messages": [{"role": "user"}]}, "expected"),
        ({"messages": [{"role": "user", "content": "1"}]}, "add --chat"),
    ],
)
def test_a_line_that_is_neither_is_named(record, says):
    with pytest.raises(UsageError, match=says):
        line_of(record)
