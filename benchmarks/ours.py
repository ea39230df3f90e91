"""lilo_jax as a contender: the only module of the benchmarks that calls the library."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import checkpoint, workload
from benchmarks.worker import Gate, clock
from benchmarks.workload import Job
from lilo_jax.device.inference import model_on
from lilo_jax.device.mesh import MeshConfig, make_mesh
from lilo_jax.device.weights import place_weights
from lilo_jax.models import Model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import FAMILIES
from lilo_jax.models.huggingface.weights import places, to_ours
from lilo_jax.models.packing import PackedRows, pack_blocks
from lilo_jax.models.rope import Rope
from lilo_jax.models.scoring import score
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import UpdateConfig, deal, update
from lilo_jax.sampling import TokenRule, sample
from lilo_jax.types import FollowUps, Prompts, PyTree, Requests, Sequences, Trainable, TrainBatch

LIBRARIES = ("lilo-jax", "jax", "flax", "optax")
CHUNK = UpdateConfig().chunk
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6))


# -------------------------------------------------------------------------------------------------- model and weights
def _model(job: Job) -> Model:
    shape = job.shape
    config = DecoderConfig(
        num_layers=shape.num_layers,
        embed_dim=shape.embed_dim,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        mlp_dim=shape.mlp_dim,
        rope=Rope(theta=shape.rope_theta),
        norm_epsilon=shape.norm_epsilon,
        tie_embeddings=True,
        vocab_size=shape.vocab_size,
        compute_dtype=job.dtype,
    )
    if job.variant == "lean":
        config = dataclasses.replace(config, train_layers="scanned", remat="layers")
    return model_on(config, make_mesh(MeshConfig()))


def _params(job: Job) -> PyTree:
    """The common weights in our tree."""
    named, model = checkpoint.weights(job.shape), _model(job)
    wanted = places(FAMILIES["llama"], jax.eval_shape(model.init, jax.random.key(0)))
    stream = ((place.path, place.layer, to_ours(named[name], place)) for name, place in wanted.items())
    return place_weights(model.init, model.axes, make_mesh(MeshConfig()), stream)


class _Program:
    """A function for arguments of one shape, compiled when it is first called."""

    def __init__(self, function: Callable[..., Any], *, donate: tuple[int, ...] = ()) -> None:
        self._jitted = jax.jit(function, donate_argnums=donate)
        self._compiled: jax.stages.Compiled | None = None

    def __call__(self, *given: Any) -> Any:
        self._compiled = self._compiled or self._jitted.lower(*given).compile()
        return self._compiled(*given)

    def predicted_mb(self) -> float:
        """The most memory that it holds at a time, its arguments included, as the compiler counts it."""
        assert self._compiled is not None, "called before it was compiled"
        memory: Any = self._compiled.memory_analysis()
        return memory.peak_memory_in_bytes / 2**20


def _finish(program: _Program, *outputs: Any) -> dict[str, Any]:
    """Waits for the device; the peak memory that was predicted, and that of the device where it is known."""
    jax.block_until_ready(outputs)
    statistics = jax.devices()[0].memory_stats()
    measured = {"device_peak_mb": statistics["peak_bytes_in_use"] / 2**20} if statistics else {}
    return {"predicted_peak_mb": program.predicted_mb()} | measured


# ----------------------------------------------------------------------------------------------------------- sampling
def _sampler(model: Model, *, max_new_tokens: int, slots: int) -> _Program:
    """(params, prompts, requests, key) -> Completions; `slots` rows decode at a time, 0 means all."""
    return _Program(
        functools.partial(
            sample, model, max_new_tokens=max_new_tokens, rule=TokenRule(), end_ids=(), slots=slots, prefill_tokens=1024
        )
    )


def _prompts(rows: np.ndarray, lengths: np.ndarray | None = None) -> Prompts:
    lengths = np.full(len(rows), rows.shape[1]) if lengths is None else lengths
    return Prompts(tokens=jnp.asarray(rows), lengths=jnp.asarray(lengths, jnp.int32))


def _requests(prompt: np.ndarray, prefix_length: np.ndarray | int, budget: np.ndarray | int) -> Requests:
    def column(values: np.ndarray | int) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.int32), len(prompt))

    return Requests(
        prompt=column(prompt),
        prefix_length=column(prefix_length),
        id=jnp.arange(len(prompt), dtype=jnp.int32),
        budget=column(budget),
        expected_length=jnp.zeros(len(prompt)),
    )


def rollout(job: Job, gate: Gate) -> None:
    """All rows at once, each distinct prompt prefilled once.  Variants: "distinct", "groups"."""
    params, rows = _params(job), workload.prompts(job)
    run = _sampler(_model(job), max_new_tokens=job.sizes.new_tokens, slots=0)
    prompts = _prompts(rows)
    owners = np.repeat(np.arange(len(rows)), job.sizes.rows // len(rows))
    requests = _requests(owners, job.sizes.prompt_tokens, job.sizes.new_tokens)
    gate.repeat(lambda: _finish(run, run(params, prompts, requests, jax.random.key(1))))


def lengths(job: Job, gate: Gate) -> None:
    """Unequal requests.  Variants: "slots" takes all in one call; "fixed" a batch of so many rows at a time."""
    params, budgets, slots = _params(job), workload.budgets(job.sizes), job.sizes.slots
    run = _sampler(_model(job), max_new_tokens=job.sizes.longest, slots=slots)
    rows = workload.tokens(job, len(budgets), job.sizes.prompt_tokens, seed=1)
    size = len(budgets) if job.variant == "slots" else slots
    starts = range(0, len(budgets), size)
    prompt_tokens = job.sizes.prompt_tokens
    batches = [
        (_prompts(rows[i : i + size]), _requests(np.arange(size), prompt_tokens, budgets[i : i + size])) for i in starts
    ]

    gate.repeat(lambda: _finish(run, [run(params, *batch, jax.random.key(1)) for batch in batches]))


def monte_carlo(job: Job, gate: Gate) -> None:
    """Children of every boundary of every trajectory.  Variants: "shared" by the children of a boundary; "unshared"."""
    params, sizes = _params(job), job.sizes
    run = _sampler(_model(job), max_new_tokens=sizes.child_tokens, slots=sizes.rows)
    trajectories, boundaries = (
        workload.trajectories(job)[:, : workload.boundaries(sizes)[-1]],
        workload.boundaries(sizes),
    )
    if job.variant == "shared":
        prompts = _prompts(trajectories)
        owners = np.repeat(np.arange(len(trajectories)), len(boundaries) * sizes.children)
        starts = np.tile(np.repeat(boundaries, sizes.children), len(trajectories))
    else:
        starts = np.repeat(np.tile(boundaries, len(trajectories)), sizes.children)
        prompts = _prompts(np.repeat(trajectories, len(boundaries) * sizes.children, axis=0), starts)
        owners = np.arange(len(starts))
    requests = _requests(owners, starts, sizes.child_tokens)
    gate.repeat(lambda: _finish(run, run(params, prompts, requests, jax.random.key(1))))


# -------------------------------------------------------------------------------------------------- scoring and update
def _sequences(job: Job, rows: jax.Array | np.ndarray) -> Sequences:
    def full(length: int) -> jax.Array:
        return jnp.full(len(rows), length, jnp.int32)

    return Sequences(
        tokens=jnp.asarray(rows),
        prompt_lengths=full(job.sizes.prompt_tokens),
        completion_lengths=full(job.sizes.new_tokens),
    )


def _scorer(job: Job) -> tuple[_Program, Callable[[PyTree, jax.Array | np.ndarray], list[jax.Array]]]:
    """The program of a micro-batch, and (params, rows) -> log-probs, a micro-batch of rows at a time."""
    run = _Program(
        functools.partial(score, _model(job), completion_width=job.sizes.new_tokens, temperature=1.0, chunk=CHUNK)
    )
    size = job.sizes.microbatch

    def logprobs(params: PyTree, rows: jax.Array | np.ndarray) -> list[jax.Array]:
        return [run(params, _sequences(job, rows[i : i + size])).logprobs for i in range(0, len(rows), size)]

    return run, logprobs


def scoring(job: Job, gate: Gate) -> None:
    """Log-probs (and entropies) of given completions."""
    params, rows, (program, logprobs) = _params(job), workload.sequences(job), _scorer(job)
    gate.repeat(lambda: _finish(program, logprobs(params, rows)))


def parity(job: Job, gate: Gate) -> None:
    """The log-probs themselves."""
    params, rows, (_, logprobs) = _params(job), workload.sequences(job), _scorer(job)
    with jax.default_matmul_precision("highest"):  # accelerators round float32 products by default
        gate.repeat(lambda: {"logprobs": np.concatenate(logprobs(params, rows)).ravel().tolist()})


def _batch(job: Job, rows: jax.Array | np.ndarray, old_logprobs: jax.Array, reward: np.ndarray) -> TrainBatch:
    sizes = job.sizes
    groups = sizes.sequences // sizes.group
    zeros = jnp.zeros((sizes.sequences, sizes.new_tokens), jnp.float32)
    return TrainBatch(
        sequences=_sequences(job, rows),
        row_mask=jnp.ones(sizes.sequences, bool),
        informative=jnp.ones(sizes.sequences, bool),
        group=jnp.repeat(jnp.arange(groups, dtype=jnp.int32), sizes.group),
        reward=jnp.asarray(reward, jnp.float32),
        sampler_logprobs=zeros,
        place=jnp.arange(groups, dtype=jnp.int32),
        group_mask=jnp.ones(groups, bool),
        reasoning_step=zeros.astype(jnp.int32),
        follow_ups=FollowUps.none(zeros.shape),
        old_logprobs=old_logprobs,
        reference_logprobs=zeros,
        old_values=zeros,
        advantages=zeros,
        returns=zeros,
    )


def _update_config(job: Job) -> UpdateConfig:
    return UpdateConfig(microbatches=job.sizes.sequences // job.sizes.microbatch, shuffle=False, pack=True)


def _learner(job: Job, algorithm: Algorithm) -> _Program:
    """(policy, batch, plans) -> policy after one optimiser step; the old one is donated."""
    model, config = _model(job), _update_config(job)

    def step(policy: Trainable, batch: TrainBatch, plans: PackedRows | None) -> Trainable:
        advantages, returns = algorithm.advantages(batch)
        batch = batch.replace(advantages=advantages, returns=returns)
        return update(
            model, algorithm, OPTIMIZER, policy, None, batch, jax.random.key(0), plans, config=config, temperature=1.0
        )[0]

    return _Program(step, donate=(0,))


def _plans(job: Job, batch: TrainBatch) -> PackedRows | None:
    """Where prompts stand once for their samples; None where that would save too little."""
    rows = deal(jax.random.key(0), batch.informative, _update_config(job))
    return pack_blocks(jax.device_get(batch.sequences), jax.device_get(rows))


def _start(params: PyTree) -> Trainable:
    return Trainable(params=params, optimizer=OPTIMIZER.init(params))


def learn(job: Job, gate: Gate) -> None:
    """Variants: "", "lean", which recomputes each layer in the backward pass, and "groups" with common prompts.

    Clipped ratio loss of RLOO, gradients added up over micro-batches, global-norm clipping, AdamW.
    """
    policy, step = _start(_params(job)), _learner(job, Rloo().build())
    old = jnp.full((job.sizes.sequences, job.sizes.new_tokens), -9.0)
    batch = _batch(job, workload.sequences(job), old, np.random.default_rng(5).standard_normal(job.sizes.sequences))

    def run() -> dict[str, Any]:
        nonlocal policy
        policy = step(policy, batch, _plans(job, batch))
        return _finish(step, policy)

    gate.repeat(run)


def grpo(job: Job, gate: Gate) -> None:
    """A whole step: rollouts of groups, reward on the host, update with the sampler's log-probs as the old ones."""
    sizes = job.sizes
    groups = sizes.sequences // sizes.group
    policy, step = _start(_params(job)), _learner(job, Grpo().build())
    generate = _sampler(_model(job), max_new_tokens=sizes.new_tokens, slots=0)
    rows = workload.tokens(job, groups, sizes.prompt_tokens, seed=1)
    prompts, requests = (
        _prompts(rows),
        _requests(np.repeat(np.arange(groups), sizes.group), sizes.prompt_tokens, sizes.new_tokens),
    )

    def run() -> dict[str, Any]:
        nonlocal policy
        began = clock()
        completions = jax.device_get(generate(policy.params, prompts, requests, jax.random.key(1)))
        generated = clock()
        reward = np.array([len(set(row)) for row in completions.tokens])
        sequences = np.concatenate([np.repeat(rows, sizes.group, axis=0), completions.tokens], axis=1)
        batch = _batch(job, sequences, jnp.asarray(completions.logprobs), reward)
        policy = step(policy, batch, _plans(job, batch))
        return _finish(step, policy) | {
            "parts": {"generate": [now - then for now, then in zip(generated, began, strict=True)]}
        }

    gate.repeat(run)


def device(job: Job, gate: Gate) -> None:
    """The name of the device."""
    gate.repeat(lambda: {"device": jax.devices()[0].device_kind})


WORKS = {
    "device": device,
    "parity": parity,
    "rollout": rollout,
    "lengths": lengths,
    "monte_carlo": monte_carlo,
    "scoring": scoring,
    "update": learn,
    "grpo": grpo,
}
