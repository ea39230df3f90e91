"""Supervised fine-tuning on the task's demonstrations: the starting point of RL."""

import dataclasses

import jax
import numpy as np

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device.mesh import put_replicated, put_rows, row_shards
from lilo_jax.models.packing import PackedRows, pack_blocks
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.progress import Progress
from lilo_jax.tokenizers.encoding import encode_pairs
from lilo_jax.training.assembly import Assembly
from lilo_jax.training.lengths import chat_of
from lilo_jax.types import PyTree, Sequences


def start_config(config: Config) -> Config:
    """The config of the supervised fine-tuning that a run starts from: equal for all runs that can share it."""
    return configuration.replace(
        Config(),
        seed=config.seed,
        num_steps=0,
        task=config.task,
        tokenizer=config.tokenizer,
        model=dataclasses.replace(config.model, critic=""),
        sft=config.sft,
        mesh=config.mesh,
        evaluation=dataclasses.replace(config.evaluation, suites=(), protocol=""),
        curriculum=Uniform(),
        algorithm=Rloo(),
        update__chunk=config.update.chunk,
        rollout__max_new_tokens=config.rollout.max_new_tokens,
        rollout__stop=config.rollout.stop,
    )


def fine_tune(assembly: Assembly, params: PyTree, ledger: Ledger, progress: Progress, stop: StopRequest) -> PyTree:
    """Trains weights on batches of demonstrations, each epoch in a new random order.

    Source: the recipe of Foster et al. 2025 takes the token mean per example, then the mean over the batch.
    """
    config, programs = assembly.config, assembly.programs
    if not config.sft.steps:
        return params
    demonstrations = encode_pairs(assembly.tokenizer, assembly.task.demonstrations, chat=chat_of(config, assembly.task))
    width = int(demonstrations.completion_lengths.max())
    state = programs.start_sft(params)
    for step, rows in enumerate(_batches(config.seed, len(demonstrations.tokens), config.sft.batch, config.sft.steps)):
        stop.agreed()
        stop.check(f"in step {step} of fine-tuning, which the same command begins again")
        batch = jax.tree.map(lambda x, rows=rows: x[rows], demonstrations)
        plan = _plan(assembly, batch)
        with progress.doing(f"fine-tuning, step {step + 1}"):
            state, metrics = programs.sft_step(state, put_rows(assembly.mesh, batch), plan, completion_width=width)
        ledger.add("sft", "trained", batch.prompt_lengths.sum() + batch.completion_lengths.sum())
        if (step + 1) % 100 == 0 or step + 1 == config.sft.steps:
            loss = metrics["sft/loss"]
            progress.line(f"sft step {step + 1}/{config.sft.steps}: loss {float(loss.total / loss.weight):.4f}")
    return state.params


def _plan(assembly: Assembly, batch: Sequences) -> PackedRows | None:
    """Where the demonstrations of a batch stand in packed rows; None: each in its own."""
    if not assembly.config.sft.pack:
        return None
    plans = pack_blocks(
        batch,
        np.arange(len(batch.tokens))[None],
        multiple=row_shards(assembly.mesh),
        share=assembly.programs.model.shares_prompts,
    )
    return put_replicated(assembly.mesh, plans and jax.tree.map(lambda x: x[0], plans))


def _batches(seed: int, size: int, batch: int, steps: int) -> list[np.ndarray]:
    """Row indices of each step: epochs of a seeded shuffle, end to end."""
    epochs = -(-steps * batch // size)
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([rng.permutation(size) for _ in range(epochs)])
    return list(order[: steps * batch].reshape(steps, batch))
