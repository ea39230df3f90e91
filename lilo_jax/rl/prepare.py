"""What an update needs to know of a batch before it changes the weights: log-probs, values and advantages."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lilo_jax.models import Model
from lilo_jax.models.packing import PackedRows, packed
from lilo_jax.models.scoring import informative_sequences, live_tokens, score, score_values
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.metrics import advantage_metrics, follow_up_metrics, sampler_metrics, value_metrics
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.types import Array, Metrics, PyTree, Sequences, TrainBatch


def prepare_blocks(num_rows: int, config: UpdateConfig) -> Int[np.ndarray, "blocks block_rows"]:
    """The rows that `prepare` computes at a time, by minibatch and micro-batch; see `lilo_jax.rl.update.deal`."""
    rows, blocks = np.arange(num_rows), config.minibatches * config.microbatches
    return rows.reshape(blocks, -1) if config.pack else rows.reshape(-1, blocks).T


def prepare(
    model: Model,
    algorithm: Algorithm,
    policy: PyTree,
    critic: PyTree | None,
    reference: tuple[Model, PyTree] | None,
    batch: TrainBatch,
    plans: PackedRows | None = None,
    *,
    config: UpdateConfig,
    temperature: float,
) -> tuple[TrainBatch, Metrics]:
    """Fills in old and reference log-probs, old values, advantages and returns, a micro-batch of rows at a time.

    Args:
        model, algorithm: functions.
        policy, critic: weights before the update; critic is None without one.
        reference: the model and weights of the reference, or None without one.
        batch: B rows; minibatches x microbatches divides B.
        plans: `lilo_jax.models.packing.pack_blocks` of `prepare_blocks`; None: one sequence per row.
        config: see `UpdateConfig`.
        temperature: the sampler's.
    """
    width = batch.sampler_logprobs.shape[1]

    def forward(
        inputs: tuple[Sequences, Float[Array, "block_rows completion"], PackedRows | None],
    ) -> tuple[
        Float[Array, "block_rows completion"],
        Float[Array, "block_rows completion"],
        Float[Array, "block_rows completion"],
    ]:
        sequences, sampled, plan = inputs

        def run(model: Model) -> Model:
            return model if plan is None else packed(model, plan)

        def logprobs(model: Model, params: PyTree) -> Float[Array, "block_rows completion"]:
            return score(
                run(model), params, sequences, completion_width=width, temperature=temperature, chunk=config.chunk
            ).logprobs

        nothing = jnp.zeros_like(sampled)
        return (
            logprobs(model, policy) if config.old_logprobs == "scored" else sampled,
            nothing if reference is None else logprobs(*reference),
            nothing if critic is None else score_values(run(model), critic, sequences, completion_width=width),
        )

    blocks = prepare_blocks(batch.row_mask.shape[0], config)
    rows = jax.tree.map(lambda x: x[blocks], (informative_sequences(batch), batch.sampler_logprobs))
    filled = jax.lax.map(forward, (*rows, plans))
    order = np.argsort(blocks, axis=None)
    old, reference_logprobs, values = (x.reshape(-1, width)[order] for x in filled)
    batch = batch.replace(old_logprobs=old, reference_logprobs=reference_logprobs, old_values=values)
    advantages, returns = algorithm.advantages(batch)
    batch = batch.replace(advantages=advantages, returns=returns)
    return batch, _metrics(algorithm, batch, config)


def _metrics(algorithm: Algorithm, batch: TrainBatch, config: UpdateConfig) -> Metrics:
    mask = live_tokens(batch)
    metrics = advantage_metrics(batch, mask)
    if config.old_logprobs == "scored":
        metrics |= sampler_metrics(batch, mask & batch.informative[:, None])
    if algorithm.needs_values:
        metrics |= value_metrics(batch, mask)
    if algorithm.follow_ups:
        metrics |= follow_up_metrics(batch, mask)
    return metrics
