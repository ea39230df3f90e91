"""The compiled programs of a run: the only place where functions are jitted and laid out on the mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lilo_jax.config import OptimizerConfig, RolloutConfig
from lilo_jax.curriculum.statistics import expected_lengths, group_signals, group_statistics
from lilo_jax.mesh import constrainer, replicated, sharding
from lilo_jax.models import Model, build_model
from lilo_jax.models.attention import attention_kernel, sequence_attention
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.packing import PackedRows, packed
from lilo_jax.rl.update import UpdateConfig, apply_gradients, deal, update
from lilo_jax.sampling import sample
from lilo_jax.scoring import completion_mask, score, score_values
from lilo_jax.types import (
    Admission,
    Algorithm,
    Array,
    Curriculum,
    CurriculumState,
    GroupStatistics,
    Mean,
    Metrics,
    Proposal,
    PyTree,
    Sequences,
    TokenScores,
    Trainable,
    TrainBatch,
    TrainState,
)


@dataclasses.dataclass(frozen=True)
class ProgramSettings:
    """What the programs depend on; runs with equal settings share compiled programs.

    `seed` is not among them, nor is anything about data except its sizes.
    """

    model: DecoderConfig
    algorithm: Any
    curriculum: Any
    rollout: RolloutConfig
    update: UpdateConfig
    optimizer: OptimizerConfig
    optimizer_steps: int
    sft_optimizer: OptimizerConfig
    sft_steps: int
    pool_size: int
    end_ids: tuple[int, ...]


class Programs(NamedTuple):
    """Jitted functions, with the curriculum and algorithm whose parts they are.

    Attributes:
        init: (key) -> policy params, each weight created in its shards.
        start_sft: (params) -> Trainable.
        sft_step: (Trainable, Sequences, *, completion_slots) -> (Trainable, metrics); donates the first.
        start: (params, key) -> TrainState: reference and critic trunk are copies of the policy's weights.
        propose: (CurriculumState, GroupStatistics, key) -> Proposal.
        expected_lengths: (CurriculumState, ids) -> tokens; see `lilo_jax.curriculum.statistics`.
        sample: (params, Prompts, Requests, key, stop table or None, *, rule) -> Completions.
        statistics: keyword arrays -> GroupStatistics; see `group_statistics`.
        admit: (CurriculumState, GroupStatistics, key, step) -> (Admission, CurriculumState with all observed).
        follow_up_requests: (Sequences) -> FollowUpRequests.
        prepare: (TrainState, TrainBatch, plans=None) -> (TrainBatch with log-probs, values and advantages, metrics).
        deal: (key, rows of the batch) -> rows of each micro-batch; see `lilo_jax.rl.update.deal`.
        update: (TrainState, TrainBatch, key, plans=None) -> (TrainState, metrics); donates the state.
            Plans of `prepare` and `update` are `lilo_jax.packing.pack_blocks` of `prepare_blocks` and of `deal`.
        score: (params, Sequences, *, completion_slots, temperature) -> TokenScores.
    """

    curriculum: Curriculum
    algorithm: Algorithm
    init: Callable[..., PyTree]
    start_sft: Callable[..., Trainable]
    sft_step: Callable[..., tuple[Trainable, Metrics]]
    start: Callable[..., TrainState]
    propose: Callable[..., Proposal]
    expected_lengths: Callable[..., Array]
    sample: Callable[..., Any]
    statistics: Callable[..., GroupStatistics]
    admit: Callable[..., tuple[Admission, CurriculumState]]
    follow_up_requests: Callable[..., Any]
    prepare: Callable[..., tuple[TrainBatch, Metrics]]
    deal: Callable[..., Array]
    update: Callable[..., tuple[TrainState, Metrics]]
    score: Callable[..., TokenScores]


@functools.lru_cache(maxsize=16)
def build_programs(settings: ProgramSettings, mesh: Mesh) -> Programs:
    """The programs for these settings on this mesh; nothing is compiled before its first call."""
    model = _model(settings.model, mesh)
    rollout, chunk = settings.rollout, settings.update.chunk
    algorithm = settings.algorithm.build()
    curriculum = settings.curriculum.build(
        pool_size=settings.pool_size, questions=rollout.questions, samples=rollout.samples
    )
    optimizer = settings.optimizer.build(settings.optimizer_steps)
    sft_optimizer = settings.sft_optimizer.build(settings.sft_steps)
    parts = _Parts(model, algorithm, curriculum, optimizer, settings.update, rollout.temperature)
    start = functools.partial(_start, parts)

    def start_sft(params: PyTree) -> Trainable:
        return Trainable(params=params, optimizer=sft_optimizer.init(params))

    params_shape = jax.eval_shape(model.init, jax.random.key(0))
    params_layout = _layout(mesh, model.axes, params_shape)
    state_shape = jax.eval_shape(start, params_shape, jax.random.key(0))
    state_layout = _state_layout(mesh, model, optimizer, state_shape)
    sft_layout = _trainable_layout(mesh, model.axes, sft_optimizer, jax.eval_shape(start_sft, params_shape))
    everywhere = replicated(mesh)
    return Programs(
        curriculum=curriculum,
        algorithm=algorithm,
        init=jax.jit(model.init, out_shardings=params_layout),
        start_sft=jax.jit(start_sft, out_shardings=sft_layout),
        sft_step=jax.jit(
            functools.partial(_sft_step, model, sft_optimizer, chunk=chunk),
            donate_argnums=0,
            static_argnames="completion_slots",
            out_shardings=(sft_layout, None),
        ),
        start=jax.jit(start, out_shardings=state_layout),
        propose=jax.jit(curriculum.propose, out_shardings=everywhere),
        expected_lengths=jax.jit(expected_lengths, out_shardings=everywhere),
        sample=jax.jit(
            functools.partial(
                sample,
                model,
                end_ids=settings.end_ids,
                max_new_tokens=rollout.max_new_tokens,
                min_new_tokens=rollout.min_new_tokens,
                slots=rollout.slots,
                prefill_tokens=rollout.prefill_tokens,
            ),
            static_argnames=("rule",),
            out_shardings=everywhere,
        ),
        statistics=jax.jit(group_statistics, out_shardings=everywhere),
        admit=jax.jit(functools.partial(_admit, curriculum), out_shardings=everywhere),
        follow_up_requests=jax.jit(algorithm.follow_up_requests, out_shardings=everywhere),
        prepare=jax.jit(functools.partial(_prepare, parts)),
        deal=jax.jit(functools.partial(deal, config=settings.update), static_argnums=1, out_shardings=everywhere),
        update=jax.jit(functools.partial(_update, parts), donate_argnums=0, out_shardings=(state_layout, None)),
        score=jax.jit(
            functools.partial(score, model, chunk=chunk),
            static_argnames=("completion_slots", "temperature"),
            out_shardings=everywhere,
        ),
    )


def _model(config: DecoderConfig, mesh: Mesh) -> Model:
    """The model's functions, with what is fastest on the mesh's devices."""
    platform = mesh.devices.flat[0].platform
    kernel = attention_kernel(config.attention, platform=platform, dtype=config.compute_dtype, head_dim=config.head_dim)
    attend = sequence_attention(kernel, functools.partial(sharding, mesh))
    return build_model(config, constrainer(mesh), platform=platform, attend=attend)


class _Parts(NamedTuple):
    """What the functions of the learner share."""

    model: Model
    algorithm: Algorithm
    curriculum: Curriculum
    optimizer: optax.GradientTransformation
    update: UpdateConfig
    temperature: float


def _start(parts: _Parts, params: PyTree, key: Array) -> TrainState:
    """The state before the first step; reference and critic trunk are copies of the policy's weights."""
    critic = None
    if parts.algorithm.needs_values:
        critic_params = parts.model.init_critic(key) | {"trunk": params["trunk"]}
        critic = Trainable(params=critic_params, optimizer=parts.optimizer.init(critic_params))
    return TrainState(
        step=jnp.int32(0),
        policy=Trainable(params=params, optimizer=parts.optimizer.init(params)),
        critic=critic,
        reference=params if parts.algorithm.needs_reference else None,
        curriculum=parts.curriculum.init(),
    )


def _admit(
    curriculum: Curriculum, state: CurriculumState, collected: GroupStatistics, key: Array, step: Array
) -> tuple[Admission, CurriculumState]:
    """Chooses groups, and remembers everything that was paid for."""
    return curriculum.admit(state, collected, key), curriculum.observe(state, collected, step)


def _update(
    parts: _Parts, state: TrainState, batch: TrainBatch, key: Array, plans: PackedRows | None = None
) -> tuple[TrainState, Metrics]:
    """All optimiser steps on a batch, then the curriculum's feedback."""
    policy, critic, metrics = update(
        parts.model, parts.algorithm, parts.optimizer, state.policy, state.critic, batch, key, plans,
        config=parts.update, temperature=parts.temperature,
    )  # fmt: skip
    mask = completion_mask(batch.sequences, batch.advantages.shape[1]) & batch.row_mask[:, None]
    value_error = (batch.old_values - batch.returns) ** 2 * parts.algorithm.needs_values
    signals = group_signals(batch, mask, value_error)
    remembered = parts.curriculum.feedback(state.curriculum, batch.question, batch.question_mask, signals, state.step)
    return state.replace(step=state.step + 1, policy=policy, critic=critic, curriculum=remembered), metrics


def _layout(mesh: Mesh, axes: PyTree, shapes: PyTree) -> PyTree:
    """Shardings of a parameter tree from the logical axes of its weights."""
    return jax.tree.map(
        lambda names, leaf: sharding(mesh, names, leaf.shape), axes, shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def _trainable_layout(mesh: Mesh, axes: PyTree, optimizer: Any, shapes: Trainable) -> Trainable:
    """Shardings of weights and of optimiser moments, which lie as their weights do."""
    params = _layout(mesh, axes, shapes.params)
    moments = optax.tree_map_params(
        optimizer,
        lambda _, layout: layout,
        shapes.optimizer,
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    return Trainable(params=params, optimizer=moments)


def _state_layout(mesh: Mesh, model: Model, optimizer: Any, shapes: TrainState) -> TrainState:
    policy = _trainable_layout(mesh, model.axes, optimizer, shapes.policy)
    critic = shapes.critic and _trainable_layout(mesh, model.critic_axes, optimizer, shapes.critic)
    return TrainState(
        step=replicated(mesh),
        policy=policy,
        critic=critic,
        reference=policy.params if shapes.reference is not None else None,
        curriculum=jax.tree.map(lambda _: replicated(mesh), shapes.curriculum),
    )


def _sft_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    state: Trainable,
    sequences: Sequences,
    *,
    completion_slots: int,
    chunk: int,
) -> tuple[Trainable, Metrics]:
    """One step of maximum likelihood: the mean over response tokens of each row, then the mean over rows."""

    def loss(params: PyTree) -> tuple[Array, Metrics]:
        scores = score(model, params, sequences, completion_slots=completion_slots, temperature=1.0, chunk=chunk)
        weights = completion_mask(sequences, completion_slots) / jnp.maximum(sequences.completion_lengths, 1)[:, None]
        mean = Mean.of(-scores.logprobs, weights)
        return mean.total / mean.weight, {"sft/loss": mean}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
    return apply_gradients(optimizer, state, gradients), metrics


def prepare_blocks(num_rows: int, config: UpdateConfig) -> np.ndarray:
    """The rows that `prepare` computes at a time: int [minibatches x microbatches, rows of each]."""
    return np.arange(num_rows).reshape(-1, config.minibatches * config.microbatches).T


def _prepare(
    parts: _Parts, state: TrainState, batch: TrainBatch, plans: PackedRows | None = None
) -> tuple[TrainBatch, Metrics]:
    """Fills in old and reference log-probs, old values, advantages and returns, a micro-batch of rows at a time."""
    algorithm, config = parts.algorithm, parts.update
    slots = batch.sampler_logprobs.shape[1]

    def forward(inputs: tuple[Sequences, Array, PackedRows | None]) -> tuple[Array, Array, Array]:
        sequences, sampled, plan = inputs
        model = parts.model if plan is None else packed(parts.model, plan)

        def logprobs(params: PyTree) -> Array:
            return score(
                model, params, sequences, completion_slots=slots, temperature=parts.temperature, chunk=config.chunk
            ).logprobs

        old = logprobs(state.policy.params) if config.old_logprobs == "scored" else sampled
        reference = jnp.zeros_like(sampled) if state.reference is None else logprobs(state.reference)
        values = jnp.zeros_like(sampled)
        if state.critic is not None:
            values = score_values(model, state.critic.params, sequences, completion_slots=slots)
        return old, reference, values

    blocks = prepare_blocks(batch.row_mask.shape[0], config)
    rows = jax.tree.map(lambda x: x[blocks], (batch.sequences, batch.sampler_logprobs))
    filled = jax.lax.map(forward, (*rows, plans))
    old, reference, values = (x.swapaxes(0, 1).reshape(-1, slots) for x in filled)
    batch = batch.replace(old_logprobs=old, reference_logprobs=reference, old_values=values)
    advantages, returns = algorithm.advantages(batch)
    mask = completion_mask(batch.sequences, slots) & batch.row_mask[:, None]
    metrics = {"policy/advantage_abs": Mean.of(jnp.abs(advantages), mask)}
    if config.old_logprobs == "scored":
        metrics["policy/sampler_gap"] = Mean.of(jnp.abs(old - batch.sampler_logprobs), mask)
    if algorithm.needs_values:
        metrics["value/mean"] = Mean.of(values, mask)
        metrics["value/squared_error"] = Mean.of((values - returns) ** 2, mask)
        metrics["value/return_variance"] = _variance(returns, mask)
    return batch.replace(advantages=advantages, returns=returns), metrics


def _variance(values: Array, mask: Array) -> Mean:
    mean = Mean.of(values, mask)
    centre = mean.total / jnp.maximum(mean.weight, 1)
    return Mean.of((values - centre) ** 2, mask)
