"""The sampler of a run, as it is called for training or for evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests


class Sampler(NamedTuple):
    """How completions are drawn.

    Attributes:
        run: `lilo_jax.sampling.sample` as it was compiled, with its token rule and longest completion.
        mesh: where it runs.
        stop_table: automaton of the strings that end a response, or None.
        slots: completions decoding at the same time; 0 leaves that to the call.
    """

    run: Callable[..., Completions]
    mesh: Mesh
    stop_table: Array | None
    slots: int


def sample(
    sampler: Sampler,
    params: PyTree,
    prompts: Prompts,
    requests: Requests,
    key: jax.Array,
    *,
    slots: int = 0,
    max_length: int = 0,
) -> Completions:
    """Starts the sampler on host arrays; the completions are still being computed when this returns.

    Args:
        sampler: how.
        params: policy weights.
        prompts, requests: host arrays.
        key: consumed.
        slots: completions decoding at the same time, if the sampler leaves that open; 0 decodes all.
        max_length: as in `lilo_jax.sampling.sample`.
    """
    return sampler.run(
        params,
        prompts,
        requests,
        key,
        sampler.stop_table,
        slots=sampler.slots or slots,
        max_length=max_length,
    )
