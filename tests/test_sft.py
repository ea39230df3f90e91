"""Supervised fine-tuning: packing changes no number but the time, and weight decay leaves norms and biases alone."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch, SftConfig
from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.rl.optimizer import OptimizerConfig, are_matrices
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.progress import Progress
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tokenizers.sentence_piece import TokenizerConfig
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.run import run
from lilo_jax.training.sft import fine_tune, start_config


def test_what_is_fine_tuned_is_measured_as_a_run_is(tiny_config):
    config = configuration.replace(tiny_config, rollout__stop=("\n",), rollout__max_new_tokens=5)
    assert start_config(config).protocol == config.protocol


@pytest.mark.slow
def test_packed_demonstrations_give_the_same_weights(tiny_config, tmp_path):
    """Demonstrations of very unequal lengths, several of which share a row in every step."""
    rng = np.random.default_rng(0)
    questions = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 60))) for _ in range(48)]
    lines = [json.dumps({"question": q, "answer": str(i % 7)}) + "\n" for i, q in enumerate(questions)]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    weights, plans = [], []
    for pack in (False, True):
        config = configuration.replace(
            tiny_config,
            task=Dataset(path=str(tmp_path / "train.jsonl")),
            tokenizer=TokenizerConfig(kind="char"),
            num_steps=0,
            sft=SftConfig(steps=6, batch=16, pack=pack),
            model__vocab_size=0,
            evaluation__splits=(),
        )
        assembly = assemble(config, check(config))
        step = assembly.programs.sft_step

        def spy(state, sequences, plan, step=step, pack=pack, **settings):
            plans.append((pack, plan, sequences))
            return step(state, sequences, plan, **settings)

        spied = dataclasses.replace(assembly, programs=assembly.programs._replace(sft_step=spy))
        params, progress = assembly.programs.init(jax.random.key(0)), Progress("sft", total=0, every=1, bar=False)
        before = jax.tree.map(np.array, params)
        weights.append(jax.tree.map(np.array, fine_tune(spied, params, Ledger(), progress, StopRequest(grace=0.0))))
        progress.close()
    assert [plan is not None for _, plan, _ in plans] == [False] * 6 + [True] * 6
    assert all(plan.sequence.shape[0] < len(sequences.tokens) for pack, plan, sequences in plans if pack)
    moved = optax.tree.norm(jax.tree.map(np.subtract, weights[0], before))
    apart = optax.tree.norm(jax.tree.map(np.subtract, weights[0], weights[1]))
    assert moved > 0.1
    assert apart < 1e-4 * moved


@pytest.mark.slow
def test_norms_and_biases_do_not_decay():
    """By name, as the config has it, against what the model knows of its weights: how many axes are summed over."""
    config = DecoderConfig(
        num_layers=2, embed_dim=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8, vocab_size=11,
        attention_bias="all",
    )  # fmt: skip
    model = build_model(config, unconstrained)
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(0)))  # biases start at zero
    decayed = are_matrices(params)
    assert _agree(decayed, model.inputs)
    settings = {"learning_rate": 0.1, "warmup_steps": 0, "weight_decay": 0.5}
    zeros = jax.tree.map(np.zeros_like, params)
    for which, expected in (("matrices", decayed), ("all", jax.tree.map(lambda _: True, decayed))):
        optimizer = OptimizerConfig(**settings, decayed=which).build(10)
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        shrunk = jax.tree.map(
            lambda p, u, decays: np.allclose(u, -0.05 * p if decays else 0, atol=1e-7), params, updates, expected
        )
        assert all(jax.tree.leaves(shrunk)), which


def _agree(decayed, inputs):
    """The embedding is read, not multiplied by, and decays as a matrix does."""
    pairs = zip(jax.tree.leaves_with_path(decayed), jax.tree.leaves(inputs), strict=True)
    return all(is_matrix == (axes > 0) or "embedding" in str(path) for (path, is_matrix), axes in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_a_run_may_start_from_packed_demonstrations(tiny_config, tmp_path, pack):
    config = configuration.replace(tiny_config, num_steps=1, sft__steps=3, sft__pack=pack)
    assert run(config, Launch(output_dir=str(tmp_path / "run")), bar=False).done
