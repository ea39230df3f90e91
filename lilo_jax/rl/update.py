"""One update: epochs x minibatches of optimiser steps, each accumulated over micro-batches."""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax
from annotated_types import Gt
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.bounds import Count
from lilo_jax.models import Model
from lilo_jax.models.packing import PackedRows, packed
from lilo_jax.models.scoring import informative_sequences, live_tokens, score, score_values
from lilo_jax.rl.contract import Algorithm
from lilo_jax.types import Array, Mean, Metrics, Minibatch, PyTree, Sequences, Trainable, TrainBatch


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """How a batch of rollouts becomes optimiser steps."""

    epochs: Count = 1
    """passes over the batch"""
    minibatches: Count = 1
    """optimiser steps per pass; the paper's PPO takes 8 of 64 rows, twice"""
    microbatches: Count = 1
    """pieces of a minibatch whose gradients are added up: memory for time, the result stays the same"""
    shuffle: bool = True
    """rows are dealt to minibatches in a new random order each epoch"""
    denominator: Literal["present", "capacity"] = "present"
    """what masked rows do to a mean: "present" divides by live tokens and rows; "capacity" divides as if the batch
    were full (mean live length x all rows), so a step with few informative groups is a smaller step"""
    chunk: Count = 1024
    """most tokens of a row shard whose logits exist at the same time, in scoring and in the update: memory for time"""
    old_logprobs: Literal["scored", "sampled"] = "scored"
    """log-probs before the update: teacher-forced once more, or those that the sampler reported, which saves a pass and
    differs by rounding (by more with a cache of fewer bits)"""
    max_ratio: Annotated[float, Gt(1)] = 10.0
    """an optimiser step whose mean ratio exceeds this leaves the policy as it is (VinePPO: 10); one with a gradient
    that is not finite, or without a row, leaves policy and critic as they are"""
    pack: bool = False
    """cut rows to the longest sequence, leave out those without a gradient, such as groups of equal rewards, compute a
    prompt once for its samples, and let several sequences share a row, where that saves a quarter of the tokens;
    micro-batches take whole groups where they can.  There are four lengths and a few sizes of packed rows, each
    compiled when it first occurs"""


def cut_minibatch(batch: TrainBatch, rows: Int[Array, "minibatch_rows"], *, denominator: str) -> Minibatch:
    """The minibatch of the given rows, with its loss weights.

    Args:
        batch: B rows with advantages filled in.
        rows: of the batch.
        denominator: see `UpdateConfig.denominator`.
    """
    live, row_mask = live_tokens(batch)[rows], batch.row_mask[rows]
    mask = live & batch.informative[rows, None]
    sequences = jax.tree.map(lambda x: x[rows], informative_sequences(batch))
    tokens = jnp.maximum(live.astype(jnp.float32).sum(), 1)
    live_rows: Array | int = jnp.maximum(row_mask.sum(), 1)
    if denominator == "capacity":
        tokens, live_rows = tokens * rows.shape[0] / live_rows, rows.shape[0]

    def cut(values: Float[Array, "rows completion"]) -> Float[Array, "minibatch_rows completion"]:
        """Zero in the padding, whatever stood there: a weight of zero would not undo a NaN."""
        return jnp.where(mask, values[rows], 0)

    return Minibatch(
        sequences=sequences,
        mask=mask,
        token_weight=mask.astype(jnp.float32) / tokens,
        sequence_weight=mask.astype(jnp.float32) / live_rows,
        old_logprobs=cut(batch.old_logprobs),
        reference_logprobs=cut(batch.reference_logprobs),
        old_values=cut(batch.old_values),
        advantages=cut(batch.advantages),
        returns=cut(batch.returns),
    )


def deal(
    key: Key[jax.Array, ""], informative: Bool[Array, "rows"], config: UpdateConfig
) -> Int[Array, "steps microbatches microbatch_rows"]:
    """Which rows each optimiser step takes, by micro-batch; there are epochs x minibatches steps.

    Args:
        key: consumed; shuffles each epoch, if `config.shuffle`.
        informative: which of B rows are computed; minibatches x microbatches divides B.
        config: see `UpdateConfig`.
    """
    num_rows, informative = len(informative), jnp.asarray(informative)

    def epoch_rows(epoch_key: Key[jax.Array, ""]) -> Int[Array, "minibatches microbatches microbatch_rows"]:
        order = jax.random.permutation(epoch_key, num_rows) if config.shuffle else jnp.arange(num_rows)
        if config.pack:
            rows = jnp.sort(order.reshape(config.minibatches, -1))
            return jax.vmap(functools.partial(_spread, parts=config.microbatches))(rows, informative[rows])
        # Strided rows: every micro-batch takes equally many rows of each row shard of the mesh.
        return order.reshape(config.minibatches, -1, config.microbatches).swapaxes(1, 2)

    return jnp.concatenate(jax.vmap(epoch_rows)(jax.random.split(key, config.epochs)))


def _spread(rows: Int[Array, "rows"], informative: Bool[Array, "rows"], *, parts: int) -> Int[Array, "parts part_rows"]:
    """Rows in parts with equally many informative ones each, within one.

    Rows come group after group: informative neighbours stay together, so that those of a prompt meet in one part.
    """
    size, number = len(rows) // parts, jnp.sum(informative)
    part = (jnp.cumsum(informative) - 1) * parts // jnp.maximum(number, 1)
    room = size - jnp.bincount(jnp.where(informative, part, parts), length=parts)
    rest = jnp.searchsorted(jnp.cumsum(room), jnp.cumsum(~informative) - 1, side="right")
    order = jnp.argsort(jnp.where(informative, part, rest), stable=True)
    return rows[order].reshape(parts, size)


def accumulate_gradients(
    model: Model,
    algorithm: Algorithm,
    params: tuple[PyTree, PyTree],
    batch: Minibatch,
    plans: PackedRows | None = None,
    *,
    microbatches: int,
    temperature: float,
    chunk: int,
) -> tuple[tuple[PyTree, PyTree], Metrics]:
    """Gradients of the minibatch's policy and value losses, summed over micro-batches.

    Args:
        model, algorithm: functions.
        params: (policy, critic or None).
        batch: b rows; micro-batch i holds rows i, i + microbatches, ...
        plans: where the tokens of each micro-batch stand in packed rows, stacked on a leading axis; None: as they are.
        microbatches: divides b.
        temperature: the sampler's.
        chunk: most tokens whose logits exist at the same time.
    """

    def loss(
        params: tuple[PyTree, PyTree], part: Minibatch, plan: PackedRows | None
    ) -> tuple[Float[Array, ""], Metrics]:
        policy, critic = params
        width, runs = part.mask.shape[1], model if plan is None else packed(model, plan)
        scores = score(runs, policy, part.sequences, completion_width=width, temperature=temperature, chunk=chunk)
        total, metrics = algorithm.policy_loss(scores, part)
        if algorithm.value_loss is not None:
            values = score_values(runs, critic, part.sequences, completion_width=width)
            value_total, value_metrics = algorithm.value_loss(values, part)
            total, metrics = total + value_total, metrics | value_metrics
        return total, metrics

    def gradient(part: Minibatch, plan: PackedRows | None) -> tuple[PyTree, Metrics]:
        return jax.grad(loss, has_aux=True)(params, part, plan)

    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.tree.map(lambda x: x[0], (parts, plans))
    if microbatches == 1:
        return gradient(*first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, *first))

    def add(total: PyTree, inputs: tuple[Minibatch, PackedRows | None]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, gradient(*inputs)), None

    return jax.lax.scan(add, zeros, (parts, plans))[0]


def update(
    model: Model,
    algorithm: Algorithm,
    optimizer: optax.GradientTransformation,
    policy: Trainable,
    critic: Trainable | None,
    batch: TrainBatch,
    key: Key[jax.Array, ""],
    plans: PackedRows | None = None,
    *,
    critic_optimizer: optax.GradientTransformation | None = None,
    config: UpdateConfig,
    temperature: float,
) -> tuple[Trainable, Trainable | None, Metrics]:
    """Takes epochs x minibatches optimiser steps on one batch of rollouts.

    Args:
        model, algorithm, optimizer: functions.
        policy, critic: weights with optimiser state; critic is None without one.
        batch: B rows with advantages; minibatches x microbatches divides B.
        key: consumed; deals rows to minibatches (see `deal`).
        plans: `lilo_jax.models.packing.pack_blocks` of the rows so dealt; None: one sequence per row.
        critic_optimizer: of the critic, if not as the policy's.
        config: see `UpdateConfig`.
        temperature: the sampler's.

    Returns:
        The new policy and critic, and metrics added up over all optimiser steps.
    """
    lengths = (batch.sequences.prompt_lengths + batch.sequences.completion_lengths) * batch.informative

    def optimiser_step(carry: tuple, inputs: tuple[Int[Array, "parts _"], PackedRows | None]) -> tuple[tuple, Metrics]:
        policy, critic = carry
        parts, step_plans = inputs  # [microbatches, rows of each]
        rows = parts.T.reshape(-1)
        minibatch = cut_minibatch(batch, rows, denominator=config.denominator)
        params = (policy.params, None if critic is None else critic.params)
        (policy_gradient, critic_gradient), metrics = accumulate_gradients(
            model, algorithm, params, minibatch, step_plans,
            microbatches=config.microbatches, temperature=temperature, chunk=config.chunk,
        )  # fmt: skip
        norm, live = optax.tree.norm(policy_gradient), jnp.any(batch.row_mask[rows])
        metrics["policy/gradient_norm"] = Mean.once(norm)
        is_finite = jnp.isfinite(norm)
        if critic is not None:
            critic_norm = optax.tree.norm(critic_gradient)
            metrics["value/gradient_norm"] = Mean.once(critic_norm)
            is_finite &= jnp.isfinite(critic_norm)
            stepped = apply_gradients(critic_optimizer or optimizer, critic, critic_gradient)
            critic = _if(is_finite & live, stepped, critic)
        ratio = _mean_ratio(metrics)
        near = ratio <= config.max_ratio
        policy = _if(is_finite & near & live, apply_gradients(optimizer, policy, policy_gradient), policy)
        metrics = _of_step(metrics, ratio, is_finite=is_finite, near=near, live=live)
        counts = _token_counts(minibatch.sequences, lengths[parts], step_plans)
        return (policy, critic), metrics | counts

    dealt = deal(key, batch.informative, config)
    (policy, critic), metrics = jax.lax.scan(optimiser_step, (policy, critic), (dealt, plans))
    return policy, critic, jax.tree.map(jnp.sum, metrics)


def _of_step(
    metrics: Metrics,
    ratio: Float[Array, ""],
    *,
    is_finite: Bool[Array, ""],
    near: Bool[Array, ""],
    live: Bool[Array, ""],
) -> Metrics:
    """The metrics of one optimiser step, with why it was not taken, if it was not."""
    # Numbers that are not finite would spoil the sums over the other optimiser steps; those of no row mean nothing.
    counts = is_finite & jnp.isfinite(ratio) & live
    metrics = jax.tree.map(lambda x: jnp.where(counts, x, 0), metrics)
    metrics["update/skipped_not_finite"] = Mean.once(~is_finite)
    metrics["update/skipped_high_ratio"] = Mean.once(is_finite & ~near)
    metrics["update/skipped_empty"] = Mean.once(~live)
    return metrics


def _token_counts(sequences: Sequences, lengths: Int[Array, "parts part_rows"], plans: PackedRows | None) -> Metrics:
    """How many of the tokens that were computed a live sequence needs; dead ones have length 0."""
    computed, useful = sequences.tokens.size, jnp.sum(lengths)
    if plans is not None:
        computed, positions = plans.sequence.size, plans.sequence[0].size
        needed = jnp.arange(plans.place.shape[-1])[None, None] < lengths[..., None]
        part, place = jnp.arange(len(lengths))[:, None, None], jnp.where(needed, plans.place, positions)
        useful = jnp.sum(jnp.zeros((len(lengths), positions), bool).at[part, place].set(True, mode="drop"))
    return {
        "update/useful_tokens": Mean.once(useful.astype(jnp.float32)),
        "update/computed_tokens": Mean.once(jnp.float32(computed)),
    }


def apply_gradients(optimizer: optax.GradientTransformation, state: Trainable, gradients: PyTree) -> Trainable:
    """One optimiser step."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    return Trainable(params=optax.apply_updates(state.params, updates), optimizer=optimizer_state)


def _if(accepted: Bool[Array, ""], new: Trainable, old: Trainable) -> Trainable:
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)


def _mean_ratio(metrics: Metrics) -> Float[Array, ""]:
    """The mean ratio of a minibatch, 1 if the algorithm reports none."""
    ratio = metrics.get("policy/ratio", Mean(total=jnp.float32(1), weight=jnp.float32(1)))
    return ratio.total / jnp.maximum(ratio.weight, 1)
