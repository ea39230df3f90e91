"""What a run will need, from sizes alone: against the shapes of the weights and what the compiler counts."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device import capacity
from lilo_jax.device.mesh import make_mesh, unconstrained
from lilo_jax.device.programs import ProgramSettings, build_programs
from lilo_jax.errors import UsageError
from lilo_jax.grading import grader
from lilo_jax.models import build_model
from lilo_jax.models.lora import LoraConfig, init_adapters
from lilo_jax.questions import Question, Task
from lilo_jax.rl.rloo import Rloo
from lilo_jax.training import checks, plan
from lilo_jax.training.lengths import prompt_tokens
from lilo_jax.types import FollowUps, Sequences, TrainBatch

GIB = 2**30
TINY = configuration.replace(Config(curriculum=Uniform(), algorithm=Rloo()), model__vocab_size=28, sft__steps=0)
WIDE = configuration.replace(
    TINY, model__num_layers=2, model__embed_dim=128, model__num_heads=8, model__num_kv_heads=4, model__mlp_dim=384,
    model__vocab_size=4096, model__tie_embeddings=True, rollout__questions=4, rollout__max_new_tokens=32,
)  # fmt: skip


@pytest.mark.parametrize("config", [TINY, WIDE])
def test_weights_are_counted_without_making_them(config):
    model = build_model(config.model.decoder, unconstrained)
    weights = sum(math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))))
    assert plan.weight_count(config.model) == pytest.approx(weights, rel=0.01)
    lora = LoraConfig(rank=3, targets=("query", "value", "output", "down"))
    adapters = jax.eval_shape(lambda key: init_adapters(model, lora, key), jax.random.key(0))
    assert plan.adapter_count(config.model, lora) == sum(math.prod(x.shape) for x in jax.tree.leaves(adapters))


def compiled_bytes(config, prompt):
    """State and temporary memory of an update, as the compiler counts them."""
    settings = ProgramSettings(
        model=config.model.decoder, algorithm=config.algorithm, curriculum=config.curriculum, rollout=config.rollout,
        update=config.update, optimizer=config.optimizer, critic_optimizer=config.optimizer, optimizer_steps=1,
        sft_optimizer=config.optimizer, sft_steps=1, pool_size=8, end_ids=(0,), known_ids=28, lora=config.lora,
    )  # fmt: skip
    programs = build_programs(settings, make_mesh(config.mesh))
    rows, new = config.rollout.questions * config.rollout.samples, config.rollout.max_new_tokens
    whole, table = np.zeros(rows, np.int32), np.zeros((rows, new), np.float32)
    batch = TrainBatch(
        sequences=Sequences(np.zeros((rows, prompt + new), np.int32), whole, whole), row_mask=whole > 0,
        informative=whole > 0, group=whole, reward=table[:, 0], sampler_logprobs=table,
        place=whole[: config.rollout.questions],
        group_mask=whole[: config.rollout.questions] > 0, reasoning_step=table.astype(np.int32),
        follow_ups=FollowUps.none(table.shape), old_logprobs=table, reference_logprobs=table, old_values=table,
        advantages=table, returns=table,
    )  # fmt: skip
    found = programs.update.lower(programs.state, batch, jax.random.key(0)).compile().memory_analysis()
    beside = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(programs.state.reference))
    return found.alias_size_in_bytes + found.temp_size_in_bytes + beside


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "prompt"),
    [
        (TINY, 12),
        (WIDE, 64),
        (configuration.replace(WIDE, update__microbatches=4), 64),
        (configuration.replace(WIDE, model__remat="layers", model__train_layers="scanned"), 64),
    ],
    ids=["tiny", "wide", "micro-batches", "recomputed"],
)
def test_the_memory_of_an_update_is_estimated_within_a_factor_of_one_and_a_half(config, prompt):
    known = plan._learning_bytes(config, prompt, 0, plan._update_bytes)
    assert 1 / 1.5 < sum(known.values()) / compiled_bytes(config, prompt) < 1.5


def test_the_state_of_full_training_is_twelve_bytes_a_weight_and_of_adapters_four():
    whole = plan._learning_bytes(WIDE, 64, 0, plan._update_bytes)
    weights = plan.weight_count(WIDE.model)
    assert (whole["weights"], whole["optimiser"], whole["gradients"]) == (4 * weights, 8 * weights, 4 * weights)
    lora = configuration.replace(WIDE, lora=LoraConfig(rank=4))
    adapters = plan.adapter_count(WIDE.model, lora.lora)
    adapted = plan._learning_bytes(lora, 64, 0, plan._update_bytes)
    assert (adapted["weights"], adapted["optimiser"]) == (4 * (weights + adapters), 8 * adapters)


def test_what_all_packed_prompts_begin_with_is_counted_once():
    packed = configuration.replace(WIDE, update__pack=True)
    rows = packed.rollout.questions * packed.rollout.samples
    per_token = plan.activation_bytes(packed.model, 64 + packed.rollout.max_new_tokens)
    tokens = {common: plan.plan_bytes(packed, 64, common)["activations"] / per_token for common in (0, 60)}
    assert tokens[0] == rows * packed.rollout.max_new_tokens + packed.rollout.questions * 64
    assert tokens[0] - tokens[60] == (packed.rollout.questions - 1) * 60


def test_less_memory_is_needed_with_each_setting_that_is_said_to_save_some():
    plain = sum(plan.plan_bytes(WIDE, 64).values())
    for changes in ({"update__microbatches": 4}, {"update__chunk": 64}, {"update__pack": True}):
        assert sum(plan.plan_bytes(configuration.replace(WIDE, **changes), 64).values()) < plain


def test_a_plan_that_cannot_fit_is_refused_with_the_setting_that_would():
    needed = sum(plan.plan_bytes(WIDE, 64).values())
    plan.refuse_too_large(WIDE, 64, needed)
    plan.refuse_too_large(WIDE, 64, 0)  # nothing is known of the machine
    doubtful = int(needed / plan.DOUBT) + 1
    plan.refuse_too_large(WIDE, 64, doubtful)
    assert plan.shown(WIDE, 64, 4, memory=doubtful, speed=1e9)[0].endswith("it may not fit")
    with pytest.raises(UsageError, match=r"--update\.microbatches \d+ would fit"):
        plan.refuse_too_large(WIDE, 64, doubtful - 2)
    with pytest.raises(UsageError, match="take a smaller model"):
        plan.refuse_too_large(WIDE, 64, 1000)


def test_what_fits_at_last_is_named_whole():
    """Every option of the cure is needed together, and with all of them the plan is no longer refused."""
    based = configuration.replace(WIDE, model__path="somewhere")
    needed = sum(plan.plan_bytes(based, 64).values())
    for memory in range(needed // 8, needed, needed // 8):
        try:
            plan.refuse_too_large(based, 64, memory)
        except UsageError as error:
            cure = str(error).rpartition(": ")[2].partition(" would fit")[0]
            if cure.startswith("--"):
                options = configuration.Options(config=based)
                found = configuration.parse(options, cure.split(), prog="", description="").config
                plan.refuse_too_large(found, 64, memory)


def test_fine_tuning_is_planned_too():
    tuned = configuration.replace(WIDE, sft__steps=5, sft__batch=1024)
    assert sum(plan.plan_bytes(tuned, 64).values()) > 4 * sum(plan.plan_bytes(WIDE, 64).values())
    with pytest.raises(UsageError, match=r"--sft\.batch \d+ would fit"):
        plan.refuse_too_large(tuned, 64, sum(plan.plan_bytes(WIDE, 64).values()) * 2)


def test_a_step_of_one_token_each_by_hand():
    """Two questions, each rolled out three times: a weight takes 2 operations forward, 6 with a gradient.

    A prompt's five tokens see 1 + 2 + 3 + 4 + 5 keys, two of which see 1 + 2; the token after them sees six.  The table
    of embeddings, which is not the output projection, multiplies nothing.
    """
    config = configuration.replace(TINY, rollout__questions=2, rollout__samples=3, rollout__max_new_tokens=1)
    model = config.model
    assert not model.tie_embeddings
    weight = 2 * (plan.weight_count(model) - model.vocab_size * model.embed_dim)
    key = 4 * model.num_layers * model.num_heads * model.head_dim
    assert plan.step_operations(config, prompt=5, candidates=4) == {
        "sampling": 4 * (weight * (5 + 3) + key * (15 + 3 * 6)),
        "scoring": 6 * (weight * 6 + key * 21),
        "update": 3 * 6 * (weight * 6 + key * 21),
    }
    packed = plan.step_operations(configuration.replace(config, update__pack=True), prompt=5, candidates=4, common=2)
    assert packed["sampling"] == weight * (2 + 4 * (3 + 3)) + key * (3 + 4 * (12 + 3 * 6))
    assert packed["update"] == 3 * (weight * (2 + 2 * 3 + 6) + key * (3 + 2 * 12 + 6 * 6))


def test_attention_costs_as_much_as_the_weights_of_a_long_row():
    """Of Qwen2.5-1.5B, 32,768 tokens: 2 x 1.54e9 operations of weights a token, and 4 x 28 x 1536 x 16,384 of keys."""
    qwen = {"num_layers": 28, "embed_dim": 1536, "num_heads": 12, "num_kv_heads": 2, "head_dim": 128}
    qwen |= {"mlp_dim": 8960, "vocab_size": 151_936}
    config = configuration.replace(TINY, **{f"model__{name}": value for name, value in qwen.items()})
    row = plan.forward_operations(config, 0, 32_768)
    assert row / 32_768 == pytest.approx(2 * 1.54e9 + 4 * 28 * 1536 * 16_384, rel=0.01)
    whole = plan.forward_operations(config, 0, 512) + plan.forward_operations(config, 512, 32_768)
    assert whole == pytest.approx(row, rel=1e-12)


def test_the_candidates_of_a_step_are_those_of_a_round():
    for spec, expected in ((Uniform(), 8), (Lilo(pool_ratio=4), 32)):
        curriculum = spec.build(pool_size=64, questions=8, samples=4)
        assert plan.candidates(curriculum, jax.eval_shape(curriculum.init, no_facts(64))) == expected


def test_the_lines_of_a_plan_add_up():
    lines = plan.shown(WIDE, 64, 4, memory=2 * GIB, speed=1e9)
    assert lines[0].startswith("memory, estimated: ")
    assert " GiB of 2.0 (weights " in lines[0]
    assert "at the 1 billion operations a second" in lines[1]


def test_the_machine_has_memory_and_speed():
    assert capacity.memory() > GIB // 4
    assert capacity.operations_per_second("float32") > 1e7


def test_a_limit_of_the_container_counts(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("1000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(capacity, "LIMITS", (str(tmp_path / "max"), str(tmp_path / "none"), str(tmp_path / "missing")))
    assert capacity.memory() == 1000


def test_a_run_that_cannot_fit_ends_before_it_begins(monkeypatch, tiny_config):

    monkeypatch.setattr(checks.capacity, "memory", lambda: 1000)
    with pytest.raises(UsageError, match="the run needs about"):
        checks.check(dataclasses.replace(tiny_config))


def test_the_tokens_that_all_prompts_begin_with_are_found_by_two_of_them():
    prompts = ["Q: 3 + 4\nA:", "Q: 12 + 5\nA:", "Q: 31 + 44\nA:"]
    questions = [Question(prompt=prompt, answer="1", difficulty=0) for prompt in prompts]
    task = Task({"train": questions}, [], grader("exact"), unique_answers=True)
    assert prompt_tokens(TINY, task) == (1 + len(prompts[2]), 1 + len("Q: "))
    alone = Task({"train": questions[:1]}, [], grader("exact"), unique_answers=True)
    assert prompt_tokens(TINY, alone) == (1 + len(prompts[0]),) * 2
