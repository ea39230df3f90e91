"""Question sources: which questions a rule may choose from, now.

A source is a function (state, collected so far in this step, key) -> (places, eligible).  Questions
that have a group in this step already are not eligible, so that further rounds ask others; but for the source of
`buffers.Screened`, whose groups so far only screen, and whose best are what the next round asks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.selectors import draw
from lilo_jax.types import Array, CurriculumState, GroupStatistics

Source = Callable[
    [CurriculumState, GroupStatistics, Key[jax.Array, ""]], tuple[Int[Array, "questions"], Bool[Array, "questions"]]
]


def whole_pool(pool_size: int) -> Source:
    """A source that offers every question of the pool."""

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        index = jnp.where(collected.place < 0, pool_size, collected.place)
        return jnp.arange(pool_size, dtype=jnp.int32), jnp.ones(pool_size, bool).at[index].set(False, mode="drop")

    return offer


def random_pool(pool_size: int, count: int) -> Source:
    """A source that offers `count` questions, drawn uniformly and without replacement at every call.

    So a rule cannot return to the same few.  A smaller pool is offered whole, in random order.
    """

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        places = draw(key, size=pool_size, k=min(count, pool_size))
        return places, ~_any_equal(places, collected.place)

    return offer


def _any_equal(places: Int[Array, "questions"], taken: Int[Array, "groups"]) -> Bool[Array, "questions"]:
    """Which places are among `taken`, by a sorted look-up."""
    taken = jnp.sort(taken)
    return taken[jnp.searchsorted(taken, places).clip(max=taken.shape[0] - 1)] == places


def least_visited(source: Source) -> Source:
    """A source that offers the questions of another source that were visited least.

    All come once before one comes again.
    """

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        places, eligible = source(state, collected, key)
        visits = state.visits[places]
        return places, eligible & (visits == jnp.min(jnp.where(eligible, visits, jnp.iinfo(jnp.int32).max)))

    return offer


def at_levels(source: Source, allowed: Callable[[CurriculumState], Bool[Array, "categories levels"]]) -> Source:
    """A source that offers the questions of another source whose category and level are allowed (RLVE).

    Args:
        source: of the questions; a generator's pool holds questions of every category and level.
        allowed: (state) -> which of them.
    """

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        places, eligible = source(state, collected, key)
        return places, eligible & allowed(state)[state.facts.category[places], state.facts.level[places]]

    return offer


def not_skipped(
    source: Source, probability: Callable[[CurriculumState, Int[Array, "questions"]], Float[Array, "questions"]]
) -> Source:
    """A source that leaves out each question of another source with a probability of its own (GRESO).

    Args:
        source: of the questions.
        probability: (state, places) -> of being left out.
    """

    def offer(
        state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> tuple[Int[Array, "questions"], Bool[Array, "questions"]]:
        source_key, coin_key = jax.random.split(key)
        places, eligible = source(state, collected, source_key)
        return places, eligible & (jax.random.uniform(coin_key, places.shape) >= probability(state, places))

    return offer
