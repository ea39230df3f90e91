"""Sampling on the mesh: every engine shard runs by itself, on weights that are gathered once a call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Int, Key

from lilo_jax.device.compiling import announced
from lilo_jax.device.layout import sampling_weights
from lilo_jax.device.mesh import (
    RULES,
    constrain_in_shard,
    engine_shards,
    put_replicated,
    put_rows,
    replicated,
)
from lilo_jax.models import Model, build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.sampling import sample
from lilo_jax.sampling.dealing import deal, dealt
from lilo_jax.sampling.prefixes import own
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.sampling.token_choice import TokenRule
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests


class _Engine(NamedTuple):
    """`lilo_jax.sampling.sample` on a mesh; called with host arrays.

    Attributes:
        program: (params, prompts, requests, place, key, stop table) -> Completions, compiled for each value of `rule`,
            `max_new_tokens`, `max_length` and `slots`, which here are those of one shard.
        mesh: where it runs.
    """

    program: jax.stages.Wrapped
    mesh: Mesh

    def __call__(
        self,
        params: PyTree,
        prompts: Prompts,
        requests: Requests,
        key: Key[jax.Array, ""],
        stop_table: Int[Array, "states vocabulary"] | None = None,
        *,
        rule: TokenRule,
        max_new_tokens: int,
        slots: int = 0,
        max_length: int = 0,
    ) -> Completions:
        """Deals the requests to the shards and starts them; the completions are in the order of the requests."""
        shards = engine_shards(self.mesh)
        hand = deal(requests, len(prompts.lengths), shards)
        prompts, requests, place = dealt(hand, prompts, requests)
        return self.program(
            params,
            put_rows(self.mesh, prompts, "requests"),
            put_rows(self.mesh, requests, "requests"),
            put_replicated(self.mesh, place),
            key,
            stop_table,
            rule=rule,
            max_new_tokens=max_new_tokens,
            slots=-(-slots // shards),
            max_length=max_length,
        )


def sampler(
    model: Model,
    config: DecoderConfig,
    mesh: Mesh,
    rollout: RolloutConfig,
    *,
    end_ids: tuple[int, ...],
    known_ids: int,
) -> _Engine:
    """The engine of a model on a mesh.

    Args:
        model: as it is trained.
        config: its shape.
        mesh: where it runs.
        rollout: for what the engine does not vary from call to call.
        end_ids, known_ids: see `lilo_jax.sampling.sample`.
    """
    several = engine_shards(mesh) > 1
    local = build_model(config, constrain_in_shard, platform=mesh.devices.flat[0].platform) if several else model
    draw = functools.partial(
        sample,
        local,
        end_ids=end_ids,
        known_ids=known_ids,
        min_new_tokens=rollout.min_new_tokens,
        prefill_tokens=rollout.prefill_tokens,
        most=_over_shards if several and mesh.shape["tensor"] > 1 else own,
    )

    def run(
        params: PyTree,
        prompts: Prompts,
        requests: Requests,
        place: Int[Array, "requests"],
        key: Key[jax.Array, ""],
        stop_table: Int[Array, "states vocabulary"] | None = None,
        **how: TokenRule | int,
    ) -> Completions:
        weights = sampling_weights(model, params, config.compute_dtype) if several else params
        leading = (None, "requests", "requests", None, None)
        on_shard = model.shards.run(functools.partial(draw, **how), leading, ("requests",))
        found = on_shard(weights, prompts, requests, key, stop_table)

        def in_order(rows: Array) -> Array:
            whole = jax.lax.with_sharding_constraint(rows, replicated(mesh))
            return jnp.take(whole, place, axis=0, mode="fill", fill_value=0)

        return jax.tree.map(in_order, found)

    program = jax.jit(
        announced("sampling", run),
        static_argnames=("rule", "max_new_tokens", "max_length", "slots"),
        out_shardings=replicated(mesh),
    )
    return _Engine(program, mesh)


def _over_shards(number: Array) -> Array:
    """The greatest over all engine shards."""
    found = jax.lax.pmax(jnp.asarray(number).astype(jnp.int32), RULES["requests"])
    return found > 0 if jnp.asarray(number).dtype == bool else found
