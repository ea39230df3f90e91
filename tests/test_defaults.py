"""What a command line that names a model leaves open is chosen for it and told; what was given is never changed."""

import json
import sys

import pytest

from experiments import runner
from lilo_jax import config as configuration
from lilo_jax.config import Config, Options
from lilo_jax.models.architecture import Architecture
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.json_lines import to_json
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.training import defaults
from lilo_jax.training.defaults import _ModelFacts, changed, for_model, value_of
from lilo_jax.training.plan import GIB, plan_bytes

SMOL = Architecture(
    num_layers=30, embed_dim=576, num_heads=9, num_kv_heads=3, head_dim=64, mlp_dim=1536, vocab_size=49152,
    context_length=8192, tie_embeddings=True,
)  # fmt: skip
INSTRUCT = _ModelFacts(SMOL, chat=True, prompt=100, new_tokens=320)
CONFIG = Config(task=Gsm8k(path="sample"), algorithm=Rloo(), model=configuration.ModelConfig(path="somewhere"))
MUCH = 1000 * GIB


def chosen(model=INSTRUCT, given=(), memory=MUCH, config=CONFIG):
    """{option: value} of what was chosen, each of which has one line that begins with it."""
    found, lines = for_model(config, frozenset(given), model, memory)
    fields = [f for f in defaults.FIELDS if value_of(found, f) != value_of(config, f)]
    assert len(lines) == len(fields)
    for field in fields:
        assert sum(line.startswith(f"--{field.replace('_', '-')}") and ": " in line for line in lines) == 1
    return {field: value_of(found, field) for field in fields}


def test_an_instruct_model_is_asked_in_its_own_turns_at_a_low_rate_without_fine_tuning():
    assert chosen() == {
        "sft.steps": 0,
        "model.context_length": 8192,
        "tokenizer.chat": True,
        "task.template": "none",
        "rollout.max_new_tokens": 320,
        "update.pack": True,
        "optimizer.learning_rate": 5e-6,
    }


def test_a_base_model_keeps_the_prompts_of_the_task():
    found = chosen(INSTRUCT._replace(chat=False))
    assert not {"tokenizer.chat", "task.template"} & found.keys()


def test_worked_examples_end_a_response_where_the_next_would_begin():
    shots = changed(CONFIG, "task.shots", 3)
    assert chosen(INSTRUCT._replace(chat=False), config=shots)["rollout.stop"] == ("\n\n",)
    assert "rollout.stop" not in chosen(config=shots)  # turns end themselves


@pytest.mark.parametrize("field", ["tokenizer.chat", "task.template"])
def test_whoever_says_what_a_prompt_is_gets_that(field):
    assert not {"tokenizer.chat", "task.template"} & chosen(given=[field]).keys()


@pytest.mark.parametrize("field", [f for f in defaults.FIELDS if f not in ("lora.rank", "update.microbatches")])
def test_a_given_value_wins_even_if_it_is_the_librarys_own(field):
    assert field not in chosen(given=[field])


def test_a_chat_that_is_asked_for_holds_the_bare_question():
    asked = changed(CONFIG, "tokenizer.chat", True)
    assert chosen(given=["tokenizer.chat"], config=asked)["task.template"] == "none"


def test_the_rate_goes_by_size_and_adapters():
    large = INSTRUCT._replace(architecture=Architecture(
        num_layers=28, embed_dim=1536, num_heads=12, num_kv_heads=2, head_dim=128, mlp_dim=8960, vocab_size=151936
    ))  # fmt: skip
    rates = [
        chosen(model, config=changed(CONFIG, "lora.rank", rank))["optimizer.learning_rate"]
        for model in (INSTRUCT, large)
        for rank in (0, 8)
    ]
    assert rates == [5e-6, 2e-5, 1e-6, 1e-5]


def test_a_toy_keeps_the_rates_of_toys():
    toy = INSTRUCT._replace(architecture=Architecture(vocab_size=28))
    assert not {"optimizer.learning_rate", "sft.optimizer.learning_rate"} & chosen(toy).keys()


def test_fine_tuning_that_is_asked_for_leaves_the_model_what_it_knows():
    asked = changed(CONFIG, "sft.steps", 100)
    assert chosen(given=["sft.steps"], config=asked)["sft.optimizer.learning_rate"] == 2e-5
    alone = changed(CONFIG, "num_steps", 0)
    found = chosen(given=["num_steps"], config=alone)
    assert "sft.steps" not in found
    assert found["sft.optimizer.learning_rate"] == 2e-5


def test_responses_fit_into_the_context():
    assert chosen(INSTRUCT._replace(prompt=8000))["rollout.max_new_tokens"] == 192
    assert "rollout.max_new_tokens" not in chosen(INSTRUCT._replace(new_tokens=0))


def test_micro_batches_come_before_adapters_and_both_by_memory():
    whole = plan_bytes(changed(changed(CONFIG, "model", configuration.ModelConfig(**vars(SMOL))),
                               "rollout.max_new_tokens", 320), 100)  # fmt: skip
    state = whole["weights"] + whole["optimiser"] + 2 * whole["gradients"]
    found = chosen(memory=round((state + 2 * GIB) / 0.8))
    assert found["update.microbatches"] > 1
    assert "lora.rank" not in found
    less = chosen(memory=round((state + GIB / 4) / 0.8))
    assert less["lora.rank"] == 16
    assert less["optimizer.learning_rate"] == 2e-5
    assert not {"lora.rank", "update.microbatches"} & chosen(memory=0).keys()  # nothing is known of the machine
    full = chosen(memory=round((state + GIB / 4) / 0.8), given=["lora.rank"])
    assert "lora.rank" not in full


def test_fields_that_were_given_are_known_by_their_flags_and_by_the_experiment():
    args = ["--sft.steps", "800", "--tokenizer.no-chat", "--rollout.max-new-tokens=11", "--task", "gsm8k"]
    found = configuration.given_fields(Options(), Options(), args)
    assert {"sft.steps", "tokenizer.chat", "rollout.max_new_tokens", "task"} <= found
    own = Options(config=changed(Config(), "rollout.samples", 4))
    assert configuration.given_fields(own, Options(), []) == {"rollout.samples"}


def test_a_run_goes_on_with_what_was_chosen_when_it_began(tmp_path, monkeypatch):
    """On a machine with less memory the rules would choose other values, and the run would be refused."""
    stored, _ = for_model(CONFIG, frozenset({"optimizer.learning_rate"}), INSTRUCT, 4 * GIB)
    (tmp_path / "config.json").write_text(to_json(configuration.to_dict(stored)))
    monkeypatch.setattr(defaults, "facts_of", None)  # not even asked
    given = frozenset({"optimizer.learning_rate"})
    assert defaults.settle(CONFIG, given, str(tmp_path)) == stored
    mine = changed(CONFIG, "optimizer.learning_rate", 3e-6)
    assert defaults.settle(mine, given, str(tmp_path)) == changed(stored, "optimizer.learning_rate", 3e-6)


def test_without_a_model_nothing_is_looked_at():
    assert defaults.settle(Config(), frozenset(), "nowhere") == Config()


@pytest.mark.slow
def test_a_command_line_tells_what_was_chosen_and_prints_it(tiny_start, tmp_path, monkeypatch, capsys):
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "q{i}", "answer": "{i}"}}\n' for i in range(40)))
    args = ["--model.path", tiny_start, "--task.path", str(tmp_path / "q.jsonl"), "--print-config"]
    monkeypatch.setattr(sys, "argv", ["x", *args, "--output-dir", str(tmp_path / "run")])
    runner.run_single(Config(), module="experiments.train", description="")
    shown = capsys.readouterr()
    assert "--sft.steps 0: " in shown.err
    assert f"--rollout.max-new-tokens {Dataset.NEW_TOKENS}: " in shown.err
    printed = configuration.from_dict(json.loads(shown.out))
    assert printed.sft.steps == 0
    assert printed.rollout.max_new_tokens == Dataset.NEW_TOKENS
    assert printed.optimizer.learning_rate == Config().optimizer.learning_rate  # of a toy
