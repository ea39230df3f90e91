"""Which shard of the mesh serves which requests: each has prompts, a queue and slots of its own.

Whole groups stay together where they can, so that their prefix is prefilled once; the longest go first, each to the
shard with the least work, so that all end together.  Host arrays.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from lilo_jax.types import Prompts, PyTree, Requests


class _Deal(NamedTuple):
    """Where requests go; -1 where a shard has fewer than others.

    Attributes:
        prompts: the prompts that each shard prefills.
        requests: the requests that each shard serves.
        prompt: the prompt of each of them, counted among its shard's.
    """

    prompts: Int[np.ndarray, "shards shard_prompts"]
    requests: Int[np.ndarray, "shards shard_requests"]
    prompt: Int[np.ndarray, "shards shard_requests"]


def deal(requests: Requests, num_prompts: int, shards: int) -> _Deal:
    """Every request of a budget above 0 to one shard.

    Shapes depend on the numbers of prompts and requests, and a little on the deal: a shard has room for N / shards
    prompts, or one more where groups must be divided, or twice as many, or all.

    Args:
        requests: R, of N prompts; host arrays.
        num_prompts: N.
        shards: among which they are dealt; each gets at most R / shards, rounded up.
    """
    room = -(-len(requests.prompt) // shards)
    fair = -(-num_prompts // shards)
    for most in sorted({min(n, num_prompts) for n in (fair, fair + 1, 2 * fair, num_prompts)}):
        hands = _hands(_groups(requests), shards, room=room, most=most)
        if hands is not None:
            break
    else:
        raise AssertionError("a shard that may prefill every prompt has room for its share")
    found = _Deal(*(np.full((shards, size), -1, np.int32) for size in (most, room, room)))
    for shard, hand in enumerate(hands):
        found.prompts[shard, : len(hand)] = [prompt for prompt, _ in hand]
        rows = [row for _, rows in hand for row in rows]
        found.requests[shard, : len(rows)] = rows
        found.prompt[shard, : len(rows)] = np.repeat(np.arange(len(hand)), [len(rows) for _, rows in hand])
    return found


_Group = tuple[float, int, list[int]]
"""Tokens that are expected, prompt, rows of the requests."""


def _groups(requests: Requests) -> list[_Group]:
    """The requests of each prompt that has any, the longest first."""
    live = np.flatnonzero(requests.budget > 0)
    if not len(live):
        return []
    expected = np.maximum(np.asarray(requests.expected_length, float)[live], 1)
    order = np.lexsort((live, -expected, requests.prompt[live]))
    first = np.flatnonzero(np.diff(requests.prompt[live][order], prepend=-1))
    parts = np.split(order, first[1:])
    return sorted(
        ((expected[part].sum(), int(requests.prompt[live[part[0]]]), live[part].tolist()) for part in parts),
        key=lambda group: (-group[0], group[1]),
    )


def _hands(groups: list[_Group], shards: int, *, room: int, most: int) -> list[list[tuple[int, list[int]]]] | None:
    """What each shard gets: prompts with their requests; None if some group finds no shard that may prefill it.

    Args:
        groups: the longest first.
        shards: how many.
        room: requests of a shard.
        most: prompts of a shard.
    """
    hands: list[list[tuple[int, list[int]]]] = [[] for _ in range(shards)]
    left, load = np.full(shards, room), np.zeros(shards)
    for work, prompt, rows in groups:
        each = work / len(rows)
        while rows:
            able = (left > 0) & (np.array([len(hand) for hand in hands]) < most)
            if not able.any():
                return None
            whole = able & (left >= len(rows))
            shard = int(np.argmax(np.where(whole, -load, -np.inf) if whole.any() else np.where(able, left, -1)))
            taken, rows = rows[: left[shard]], rows[left[shard] :]
            hands[shard].append((prompt, taken))
            left[shard] -= len(taken)
            load[shard] += each * len(taken)
    return hands


def dealt(hand: _Deal, prompts: Prompts, requests: Requests) -> tuple[Prompts, Requests, Int[np.ndarray, "requests"]]:
    """The prompts and requests of all shards one after another, and where each request then stands.

    Args:
        hand: from `deal`.
        prompts: N.
        requests: R.

    Returns:
        Prompts and requests with padding rows where a shard has fewer, each request's `prompt` counted among its
        shard's; and the place of each of the R, beyond the last one where its budget is 0.
    """
    rows, own = hand.requests.reshape(-1), hand.prompts.reshape(-1)
    place = np.full(len(requests.prompt), len(rows), np.int32)
    place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    spread = _taken(requests, rows)
    prefix_length = np.where(rows < 0, 1, spread.prefix_length).astype(np.int32)
    spread = spread.replace(prompt=np.maximum(hand.prompt.reshape(-1), 0), prefix_length=prefix_length)
    return _taken(prompts, own), spread, place


def _taken(tree: PyTree, rows: Int[np.ndarray, "rows"]) -> PyTree:
    """The rows of each array; zeros for row -1."""

    def take(leaf: np.ndarray) -> np.ndarray:
        found = np.asarray(leaf)[np.maximum(rows, 0)]
        found[rows < 0] = 0
        return found

    return jax.tree.map(take, tree)
