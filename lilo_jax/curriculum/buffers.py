"""Buffers: questions that a rule keeps to come back to."""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.estimators import Tracker, totals
from lilo_jax.curriculum.gates import Gate
from lilo_jax.curriculum.selectors import draw, top_k
from lilo_jax.curriculum.sources import Source
from lilo_jax.curriculum.statistics import learnability
from lilo_jax.types import Array, CurriculumState, GroupStatistics

Ready = Callable[[CurriculumState, GroupStatistics], Float[Array, "pool"]]
"""(state, collected so far in this step) -> worth of each question that waits, NaN for the others."""


class Buffer(flax.struct.PyTreeNode):
    """The most learnable questions of the last screening.

    Attributes:
        places: in the pool.
        mask: which are meant.
    """

    places: Int[Array, "size"]
    mask: Bool[Array, "size"]


class Screened(NamedTuple):
    """A buffer that is filled anew by the first round of steps that screen (SFL).

    Attributes:
        size: K, questions kept.
        due: (state) -> whether the step screens.
        name: of the buffer in `state.memory`.
    """

    size: int
    due: Callable[[CurriculumState], Bool[Array, ""]]
    name: str = "buffer"

    def tracker(self) -> Tracker:
        """Keeps the K most learnable questions of a screening round."""

        def init(pool_size: int) -> Buffer:
            return Buffer(places=jnp.zeros(self.size, jnp.int32), mask=jnp.zeros(self.size, bool))

        return Tracker(init, lambda buffer, state, collected, step: self.fresh(buffer, state, collected))

    def fresh(self, buffer: Buffer, state: CurriculumState, collected: GroupStatistics) -> Buffer:
        """The buffer to draw from: new in a step that screens, else the remembered one.

        Ties are broken by a key of the step alone, so that the round that draws and the observation that stores agree
        without passing the buffer between them; the candidates stand in random order anyway.
        """
        worth = learnability(collected.successes, collected.attempts)
        key = jax.random.fold_in(jax.random.key(0), state.step)
        groups, mask = top_k(worth, key, k=self.size, eligible=collected.round == 0)
        new = Buffer(places=collected.place[groups], mask=mask)
        return jax.tree.map(lambda a, b: jnp.where(self.due(state), a, b), new, buffer)

    def source(self, pool_size: int, others: int) -> Source:
        """The buffer's questions, then `others` of the pool, uniform, whether they are in the buffer or not."""

        def offer(
            state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
        ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
            buffer = self.fresh(state.memory[self.name], state, collected)
            places = jnp.concatenate([buffer.places, draw(key, size=pool_size, k=others)])
            return places, jnp.concatenate([buffer.mask, jnp.ones(others, bool)])

        return offer

    def worth(
        self, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> tuple[Float[Array, "questions"], Float[Array, "questions"]]:
        """For `mixture`: first those of the buffer, and none of the buffer; the others are of `source`."""
        in_buffer = jnp.arange(places.shape[0]) < self.size
        return in_buffer.astype(jnp.float32), jnp.where(in_buffer, jnp.nan, 0.0)


class _Passed(flax.struct.PyTreeNode):
    """What screening showed of the questions that passed it.

    Attributes:
        variance: p(1 - p); NaN for a question that does not wait.
        since: the step of its screening.
    """

    variance: Float[Array, "pool"]
    since: Int[Array, "pool"]


def waiting(gate: Gate, *, screen: int, age: int, name: str = "waiting") -> tuple[Tracker, Ready]:
    """Questions that passed a screening and wait to be rolled out in full, for some steps (Pilot-Commit).

    Args:
        gate: which screened groups pass.
        screen: rollouts that screen; a group of more is complete, and its question waits no more.
        age: most steps that a question waits.
        name: of the tracker's memory in `state.memory`.

    Returns:
        The tracker, and the worth of every question of the pool now, with what this step's groups add and complete: the
        variance that its screening showed, of equal ones the latest first; NaN for those that do not wait.
    """

    def init(pool_size: int) -> _Passed:
        return _Passed(jnp.full(pool_size, jnp.nan, jnp.float32), jnp.zeros(pool_size, jnp.int32))

    def updated(passed: _Passed, state: CurriculumState, collected: GroupStatistics) -> _Passed:
        index = jnp.where(collected.place >= 0, collected.place, passed.since.shape[0])
        passes = ~jnp.isnan(gate(collected)) & (collected.rollouts <= screen)
        shown = jnp.where(passes, learnability(collected.successes, collected.attempts), jnp.nan)
        young = jnp.where(state.step - passed.since <= age, passed.variance, jnp.nan)
        return _Passed(
            jnp.asarray(young).at[index].set(shown, mode="drop"),
            jnp.asarray(passed.since).at[index].set(state.step, mode="drop"),
        )

    def ready(state: CurriculumState, collected: GroupStatistics) -> Float[Array, "pool"]:
        now = updated(state.memory[name], state, collected)
        return now.variance - 1e-6 * (state.step - now.since)

    return Tracker(init, lambda passed, state, collected, step: updated(passed, state, collected)), ready


def not_waiting(source: Source, ready: Ready) -> Source:
    """A source that leaves out the questions of another source that wait already."""

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        places, eligible = source(state, collected, key)
        return places, eligible & jnp.isnan(ready(state, collected)[places])

    return offer


def review_queue(share: float) -> Tracker:
    """The step at which a solved question came into the queue of those to be reviewed; -1 outside of it (ReMind).

    A question all of whose rollouts were right comes in by a coin; any other one that is rolled out leaves.
    The coins are a function of step and place alone, as nothing but these is known when groups are remembered.

    Args:
        share: probability of coming in.
    """

    def observe(
        queue: Int[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Int[Array, "pool"]:
        successes, attempts = totals(collected, queue.shape[0])
        coin = jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), step), share, queue.shape)
        return jnp.where(attempts > 0, jnp.where((successes == attempts) & coin, step, -1), queue)

    return Tracker(lambda pool_size: jnp.full(pool_size, -1, jnp.int32), observe)


def variance_bank(momentum: float, threshold: float, largest: float) -> Tracker:
    """The smoothed variance of questions that have shown enough of it; NaN for all others (VCRL).

        P_i <- momentum P_i + (1 - momentum) v_i,   v_i = p(1 - p) / largest;  P_i = v_i when a question comes in

    A question comes in when v_i is at least the threshold and leaves when P_i falls below it.
    """

    def observe(
        bank: Float[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, "pool"]:
        share = learnability(*totals(collected, bank.shape[0])) / largest
        moved = jnp.where(jnp.isnan(bank), share, momentum * bank + (1 - momentum) * share)
        return jnp.where(jnp.isnan(share), bank, jnp.where(moved >= threshold, moved, jnp.nan))

    return Tracker(lambda pool_size: jnp.full(pool_size, jnp.nan, jnp.float32), observe)
