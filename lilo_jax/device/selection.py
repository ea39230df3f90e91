"""The compiled programs of a curriculum without a model: whole simulated runs, and its first proposal."""

import functools
from collections.abc import Callable

import jax
from jaxtyping import Int, Key

from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.statistics import nothing_collected
from lilo_jax.simulation.run import RunSettings, Trace, simulate
from lilo_jax.types import Array, Facts, GroupStatistics, Proposal


def build_simulator(
    curriculum: Curriculum, settings: RunSettings, *, at_once: int
) -> Callable[[Int[Array, "seeds"]], Trace]:
    """(seeds) -> Trace of as many runs, a leading axis of every leaf; `at_once` side by side, which bounds memory."""
    run = functools.partial(simulate, curriculum=curriculum, settings=settings)
    return jax.jit(functools.partial(jax.lax.map, run, batch_size=at_once))


def first_proposal(curriculum: Curriculum, facts: Facts) -> Proposal:
    """What the curriculum asks for before anything is known but these facts."""
    nothing = nothing_collected(curriculum, jax.eval_shape(curriculum.init, facts))

    def propose(facts: Facts, collected: GroupStatistics, key: Key[jax.Array, ""]) -> Proposal:
        return curriculum.propose(curriculum.init(facts), collected, key)

    return jax.jit(propose)(facts, nothing, jax.random.key(0))
