"""google-tunix: its vanilla sampler, its scoring function, and its GRPO learner."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from transformers import PreTrainedTokenizerFast
from tunix.generate import sampler
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as llama_params
from tunix.rl import common, rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from benchmarks import checkpoint, workload
from benchmarks.worker import Gate, clock
from benchmarks.workload import EOS, PAD, Job

LIBRARIES = ("google-tunix", "jax", "flax", "qwix", "optax")
MANY = 10_000
"""steps; the parent ends the process before"""


def _mesh() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))


def _load(job: Job) -> tuple[llama.Llama3, PreTrainedTokenizerFast, llama.ModelConfig]:
    shape = job.shape
    config = llama.ModelConfig(
        num_layers=shape.num_layers, vocab_size=shape.vocab_size, embed_dim=shape.embed_dim,
        hidden_dim=shape.mlp_dim, num_heads=shape.num_heads, head_dim=shape.head_dim,
        num_kv_heads=shape.num_kv_heads, rope_theta=int(shape.rope_theta), norm_eps=shape.norm_epsilon,
        weight_tying=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.write(shape, Path(directory))
        model = llama_params.create_model_from_safe_tensors(directory, config, _mesh(), dtype=jnp.float32)
        return model, PreTrainedTokenizerFast.from_pretrained(directory), config


def _texts(job: Job, rows: int, *, seed: int) -> list[str]:
    """Prompts one word short: the beginning-of-sequence token is added."""
    return workload.as_text(workload.tokens(job, rows, job.sizes.prompt_tokens - 1, seed=seed))


def _no_end(job: Job) -> list[int]:
    """A stop token that no model produces."""
    return [job.shape.vocab_size + 5]


def rollout(job: Job, gate: Gate) -> None:
    """The sampler on all rows at once; it has no notion of samples that share a prompt."""
    model, tokenizer, config = _load(job)
    sizes = job.sizes
    cache = sampler.CacheConfig(
        cache_size=sizes.sequence_tokens,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    generate, texts = sampler.Sampler(model, tokenizer, cache), _texts(job, sizes.rows, seed=1)

    def run() -> None:
        out = generate(
            texts, max_generation_steps=sizes.new_tokens, max_prompt_length=sizes.prompt_tokens, temperature=1.0,
            top_p=1.0, seed=0, eos_tokens=_no_end(job), return_logprobs=True,
        )  # fmt: skip
        made = sum(len(row) for row in out.tokens)
        if made != sizes.rows * sizes.new_tokens:
            raise RuntimeError(f"the sampler made {made} tokens")

    gate.repeat(run)


def _logprobs(job: Job) -> Any:
    graph, state = nnx.split(_load(job)[0])
    rows, sizes = jnp.asarray(workload.sequences(job)), job.sizes
    run = jax.jit(lambda state, p, c: common.compute_per_token_logps(graph, state, p, c, pad_id=PAD, eos_id=EOS))

    def score() -> list[jax.Array]:
        parts = [rows[i : i + sizes.microbatch] for i in range(0, len(rows), sizes.microbatch)]
        out = [run(state, part[:, : sizes.prompt_tokens], part[:, sizes.prompt_tokens :]) for part in parts]
        return jax.block_until_ready(out)

    return score


def scoring(job: Job, gate: Gate) -> None:
    """Log-probs of given completions."""
    score = _logprobs(job)

    def run() -> None:
        score()

    gate.repeat(run)


def parity(job: Job, gate: Gate) -> None:
    """The log-probs themselves."""
    score = _logprobs(job)
    gate.repeat(lambda: {"logprobs": np.concatenate(score()).ravel().tolist()})


def _cluster(job: Job) -> rl_cluster.RLCluster:
    model, tokenizer, _ = _load(job)
    sizes, roles = job.sizes, rl_cluster.Role
    groups = sizes.sequences // sizes.group
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6)),
        eval_every_n_steps=MANY,
        max_steps=MANY,
        mini_batch_size=groups,
        train_micro_batch_size=max(1, sizes.microbatch // sizes.group),
        rollout_micro_batch_size=groups,
        compute_logps_micro_batch_size=groups,
    )
    generation = base_rollout.RolloutConfig(
        max_tokens_to_generate=sizes.new_tokens, max_prompt_length=sizes.prompt_tokens,
        kv_cache_size=sizes.sequence_tokens, temperature=1.0, top_p=1.0, eos_tokens=_no_end(job),
    )  # fmt: skip
    config = rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys((roles.ACTOR, roles.REFERENCE, roles.ROLLOUT), _mesh()),
        rollout_engine="vanilla",
        training_config=training,
        rollout_config=generation,
    )
    return rl_cluster.RLCluster(actor=model, tokenizer=tokenizer, cluster_config=config)


class _Learner(grpo_learner.GRPOLearner):
    """A step begins when it is its turn, and ends when its weights are there."""

    gate: Gate
    generated: list[float]

    def _run_global_step(self, *args: Any, **kwargs: Any) -> None:
        self.gate.wait()
        super()._run_global_step(*args, **kwargs)
        jax.block_until_ready(nnx.state(self.rl_cluster.actor_trainer.model))
        self.gate.answer(parts={"generate": self.generated})


def grpo(job: Job, gate: Gate) -> None:
    """The learner's steps; without a KL term and on-policy, so that it computes no old or reference log-probs."""
    cluster, sizes = _cluster(job), job.sizes

    def reward(prompts: Any, completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(text.split()))) for text in completions]

    learner = _Learner(
        rl_cluster=cluster,
        reward_fns=reward,
        algo_config=grpo_learner.GRPOConfig(num_generations=sizes.group, num_iterations=1, beta=0.0, epsilon=0.2),
    )
    learner.gate = gate
    generate = cluster.generate

    def timed_generate(*args: Any, **kwargs: Any) -> Any:
        began = clock()
        result = generate(*args, **kwargs)
        learner.generated = [now - then for now, then in zip(clock(), began, strict=True)]
        return result

    cluster.generate = timed_generate

    def questions() -> Iterator[dict[str, list[str]]]:
        for step in itertools.count():
            yield {"prompts": _texts(job, sizes.sequences // sizes.group, seed=step)}

    with _mesh():
        learner.train(questions())


WORKS = {"parity": parity, "rollout": rollout, "scoring": scoring, "grpo": grpo}
