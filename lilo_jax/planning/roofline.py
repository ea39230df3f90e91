"""How long a step takes at least on a slice: the slowest of computing, reading memory and sending, phase by phase.

Published rates are never reached whole: `PRODUCTS` of a chip's operations, `MEMORY` and `LINKS` of its bandwidths are
taken, and completions are taken to end after `MEAN_LENGTH` of what they may have.
"""

from typing import NamedTuple

from lilo_jax.config import Config
from lilo_jax.device.mesh import engine_shards
from lilo_jax.planning.arguments import Sizes
from lilo_jax.planning.compiling import Compiled
from lilo_jax.planning.topology import Slice
from lilo_jax.training.plan import SIZE, cache_token_bytes, forward_operations, step_operations, weight_count

PRODUCTS, MEMORY, LINKS = 0.5, 0.8, 0.8
MEAN_LENGTH = 0.4


class _Seconds(NamedTuple):
    """A phase of a step: seconds of each thing that bounds it, and the operations that it does.

    Attributes:
        computing, reading, sending: of products, of memory, of links.
        operations: on all devices.
    """

    computing: float
    reading: float
    sending: float
    operations: float

    @property
    def total(self) -> float:
        """Computing hides reading or is hidden by it; sending is taken not to overlap."""
        return max(self.computing, self.reading) + self.sending


def phases(config: Config, place: Slice, sizes: Sizes, programs: dict[str, Compiled]) -> dict[str, _Seconds]:
    """Seconds of each phase of a step, if the programs are run once each."""
    candidates, follow_ups = sizes.candidates, sizes.follow_ups
    operations = step_operations(config, sizes.prompt, candidates)
    found = {"sample": _sampling(config, place, programs.get("sample"), candidates * config.rollout.samples, sizes)}
    if "follow_ups" in programs:
        found["follow_ups"] = _sampling(config, place, programs["follow_ups"], follow_ups, sizes)
    for name, phase in (("prepare", "scoring"), ("update", "update")):
        found[name] = _products(place, programs.get(name), operations[phase])
    return found


def _products(place: Slice, program: Compiled | None, operations: float) -> _Seconds:
    """Of a phase that computes whole sequences."""
    devices = place.mesh.devices.size
    return _Seconds(operations / (devices * PRODUCTS * place.chip.operations), 0, _sending(place, program), operations)


def _sampling(config: Config, place: Slice, program: Compiled | None, requests: int, sizes: Sizes) -> _Seconds:
    """Of decoding: every turn reads the weights and the keys and values of all slots."""
    model, rollout = config.model, config.rollout
    shards, tensor = engine_shards(place.mesh), place.mesh.shape["tensor"]
    tokens = MEAN_LENGTH * rollout.max_new_tokens
    slots = -(-min(rollout.slots or requests, requests) // shards)
    turns = tokens * -(-requests // (slots * shards))
    held = slots * (sizes.prompt + tokens) * cache_token_bytes(model) / tensor
    weights = SIZE[model.compute_dtype] * weight_count(model) / tensor
    reading = turns * (weights + held) / (MEMORY * place.chip.bandwidth)
    forward = requests / rollout.samples * forward_operations(config, 0, sizes.prompt)
    forward += requests * forward_operations(config, sizes.prompt, sizes.prompt + tokens)
    computing = forward / (place.mesh.devices.size * PRODUCTS * place.chip.operations)
    return _Seconds(computing, reading, _sending(place, program, turns), forward)


def _sending(place: Slice, program: Compiled | None, turns: float = 0) -> float:
    """Of what a program's collectives move; of loops whose length is not known, so many turns of the largest."""
    if program is None or not program.traffic:
        return 0.0
    once, *loops = program.traffic
    moved = once.total + turns * max((loop.total for loop in loops), default=0)
    return moved / (LINKS * place.chip.link)
