"""Random keys: each is a pure function of (seed, stream name, indices), so none is stored and none is reused."""

import zlib
from typing import NamedTuple

import jax
from jaxtyping import Int, Key

from lilo_jax.types import Array


def stream_key(seed: int | Int[Array, ""], stream: str, *indices: int | Int[Array, ""]) -> Key[jax.Array, ""]:
    """The key of one purpose at one place: fold_in(... fold_in(fold_in(key(seed), crc32(stream)), i_1) ..., i_n).

    Args:
        seed: the run's seed.
        stream: what the key is for, e.g. "sample"; two purposes must not share a name.
        *indices: where in the run, e.g. step and round; each in [0, 2^32).

    Returns:
        A typed scalar PRNG key, to be consumed once.
    """
    with jax.transfer_guard("allow"):  # numbers of the host make a key on the device
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
        for index in indices:
            key = jax.random.fold_in(key, index)
        return key


class StartKeys(NamedTuple):
    """What the new weights of a run are drawn by; see `start_keys`."""

    policy_adapters: Key[jax.Array, ""]
    critic_adapters: Key[jax.Array, ""]
    critic_head: Key[jax.Array, ""]


def start_keys(seed: int | Int[Array, ""]) -> StartKeys:
    """The keys of a run's new weights."""
    return StartKeys(
        stream_key(seed, "policy adapters"), stream_key(seed, "critic adapters"), stream_key(seed, "critic")
    )
