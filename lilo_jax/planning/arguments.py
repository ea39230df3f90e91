"""The arguments of a run's programs as shapes with shardings: what they would be called with, without any data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lilo_jax.config import Config
from lilo_jax.curriculum.statistics import nothing_collected
from lilo_jax.device.layout import placed_shapes
from lilo_jax.device.mesh import engine_shards, leading_rows, replicated
from lilo_jax.device.programs import Programs
from lilo_jax.models.lora import combine
from lilo_jax.types import Estimate, FollowUps, Prompts, PyTree, Requests, Sequences, TrainBatch


class Sizes(NamedTuple):
    """What a config leaves to the data.

    Attributes:
        prompt: P, tokens of the longest prompt.
        candidates: questions that a round rolls out.
        follow_ups: rollouts from inside completions that one call serves, of algorithms that ask for them.
    """

    prompt: int
    candidates: int
    follow_ups: int


Lowered = Callable[[], jax.stages.Lowered]


def calls(config: Config, programs: Programs, mesh: Mesh, sizes: Sizes) -> dict[str, Lowered]:
    """The programs of a step by name, each as a function that lowers it for the mesh."""
    rollout, state = config.rollout, programs.state
    compiles: Any = programs  # they are jitted, which their types do not say
    new, rows = rollout.max_new_tokens, programs.curriculum.train_rows
    key = _placed(mesh, jax.eval_shape(lambda: jax.random.key(0)))
    batch = _placed(mesh, _batch(config, programs, sizes.prompt + new), "rows")
    groups = _placed(mesh, jax.eval_shape(lambda s: nothing_collected(programs.curriculum, s), state.curriculum))

    def sample(num_prompts: int, num_requests: int, prompt: int, *, kept: bool, slots: int) -> jax.stages.Lowered:
        shards = engine_shards(mesh)
        prompts, requests = -(-num_prompts // shards) * shards, -(-num_requests // shards) * shards
        asked = Requests(
            prompt=_int(requests),
            prefix_length=_int(requests),
            id=_int(requests),
            budget=_int(requests),
            expected_length=_float(requests),
            kept=_int(requests) if kept else None,
        )
        return compiles.sample.program.lower(
            _policy(config, programs),
            _placed(mesh, Prompts(_int(prompts, prompt), _int(prompts)), "requests"),
            _placed(mesh, asked, "requests"),
            _placed(mesh, _int(num_requests)),
            key,
            None,
            rule=rollout.rule,
            max_new_tokens=new,
            slots=-(-slots // shards),
            max_length=prompt if kept else 0,
        )

    found = {
        "sample": lambda: sample(
            sizes.candidates, sizes.candidates * rollout.samples, sizes.prompt, kept=False, slots=rollout.slots
        ),
        "follow_ups": lambda: sample(
            rows, sizes.follow_ups, sizes.prompt + new, kept=True, slots=rollout.slots or rows
        ),
        "prepare": lambda: compiles.prepare.lower(state, batch, None),
        "update": lambda: compiles.update.lower(state, batch.replace(memory=state.memory), key, None),
        "propose": lambda: compiles.propose.lower(state.curriculum, groups, key),
        "admit": lambda: compiles.admit.lower(state.curriculum, groups, key, _int()),
    }
    if programs.algorithm.follow_ups is None:
        del found["follow_ups"]
    return found


def _policy(config: Config, programs: Programs) -> PyTree:
    """The weights that are sampled from, adapters beside their base."""
    state = programs.state
    return state.policy.params if state.base is None else combine(state.base, state.policy.params, config.lora.scale)


def _batch(config: Config, programs: Programs, tokens: int) -> TrainBatch:
    """A training batch, as shapes."""
    rows, new, groups = programs.curriculum.train_rows, config.rollout.max_new_tokens, config.rollout.questions

    def table(dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((rows, new), dtype)

    believed = None
    if programs.algorithm.needs_belief:
        believed = Estimate(_float(groups), _float(groups))
    return TrainBatch(
        sequences=Sequences(_int(rows, tokens), _int(rows), _int(rows)),
        row_mask=_bool(rows),
        informative=_bool(rows),
        group=_int(rows),
        reward=_float(rows),
        sampler_logprobs=table(),
        place=_int(groups),
        group_mask=_bool(groups),
        reasoning_step=table(jnp.int32),
        follow_ups=FollowUps(asked=table(jnp.int32), attempts=table(), reward_sum=table()),
        old_logprobs=table(),
        reference_logprobs=table(),
        old_values=table(),
        advantages=table(),
        returns=table(),
        belief=believed,
    )


def _int(*dimensions: int) -> Any:
    """A shape in the place of an array."""
    return jax.ShapeDtypeStruct(dimensions, jnp.int32)


def _float(*dimensions: int) -> Any:
    """Likewise."""
    return jax.ShapeDtypeStruct(dimensions, jnp.float32)


def _bool(*dimensions: int) -> Any:
    """Likewise."""
    return jax.ShapeDtypeStruct(dimensions, bool)


def _placed(mesh: Mesh, tree: PyTree, name: str = "") -> PyTree:
    """Shapes as `put_rows` of a name, or `put_replicated`, would place arrays of them."""

    def place(leaf: jax.ShapeDtypeStruct) -> Any:
        return leading_rows(mesh, np.shape(leaf), name) if name else replicated(mesh)

    return placed_shapes(tree, jax.tree.map(place, tree))
