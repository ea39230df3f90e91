"""Requests from inside a trajectory, for algorithms that estimate values by more rollouts."""

import jax.numpy as jnp

from lilo_jax.types import FollowUpRequests, Sequences


def no_follow_ups(sequences: Sequences) -> FollowUpRequests:
    """For algorithms that ask for nothing more: F = 0."""
    del sequences
    empty = jnp.zeros(0, jnp.int32)
    return FollowUpRequests(row=empty, prefix=empty, mask=empty.astype(bool))
