"""How many slots decode at once, and how long their caches are, as a call proceeds.

Attention reads the whole allocation, and a slot without a request costs as much as one with.  So the caches start
short and are reallocated as rows grow, and once the queue is empty the rows that are left move into fewer slots.
Each stage is compiled by itself: there are few, and none where it would not repay that.
"""

from typing import NamedTuple

SHRINK = 4
"""A stage has this many times fewer slots than the one before it."""
LEAST_SLOTS = 8
"""A stage of fewer slots would hardly be faster: reading the weights takes the time."""
LEAST_TOKENS = 32
"""A call of shorter completions has one stage."""
LEAST_GROWTH = 256
"""New tokens for which caches are allocated at once."""


class Stage(NamedTuple):
    """`slots` rows decoding at once, with room for `capacity` tokens each."""

    slots: int
    capacity: int


def plan_stages(*, slots: int, prefix_slots: int, max_new_tokens: int, max_length: int = 0) -> tuple[Stage, ...]:
    """The stages of a call, in order: first the caches double in new tokens, then the slots shrink.

    Args:
        slots: decoding at first.
        prefix_slots: room that the prefixes need.
        max_new_tokens: most new tokens of any request.
        max_length: most tokens of any prefix with what follows it; 0: what the two before it make.
    """
    room = [max_new_tokens]
    while room[0] > LEAST_GROWTH:
        room.insert(0, -(-room[0] // 2))
    longest = max_length or prefix_slots + max_new_tokens
    stages = [Stage(slots, capacity) for capacity in sorted({min(prefix_slots + tokens, longest) for tokens in room})]
    while max_new_tokens >= LEAST_TOKENS and stages[-1].slots // SHRINK >= LEAST_SLOTS:
        stages.append(Stage(stages[-1].slots // SHRINK, stages[-1].capacity))
    return tuple(stages)
