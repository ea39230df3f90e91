"""Controllers: what a rule turns by what it has seen, beliefs about success rates apart.

Each is a `Tracker` and, where its memory is not the answer itself, the functions that read it.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lilo_jax.curriculum.estimators import Tracker, places, totals
from lilo_jax.types import Array, CurriculumState, GroupSignals, GroupStatistics


def last_signal() -> Tracker:
    """The mean |advantage| of each question when it was last trained on; NaN before (PLR's score)."""

    def feedback(
        worth: Float[Array, "pool"],
        state: CurriculumState,
        place: Int[Array, "trained"],
        mask: Bool[Array, "trained"],
        signals: GroupSignals,
        step: Int[Array, ""],
    ) -> Float[Array, "pool"]:
        index = jnp.where(mask, place, worth.shape[0])
        # Of a question's groups the largest counts, so that their order does not.
        fresh = jnp.full(worth.shape, -jnp.inf).at[index].max(signals.advantage_abs, mode="drop")
        return jnp.where(fresh > -jnp.inf, fresh, worth)

    return Tracker(lambda pool_size: jnp.full(pool_size, jnp.nan, jnp.float32), feedback=feedback)


# ---------------------------------------------------------------------------------------------------------- skipping
class Runs(flax.struct.PyTreeNode):
    """How long questions have been without variance, and how much that counts.

    Attributes:
        easy, hard: last visits in a row that were all right, all wrong.
        keep: probability per such visit of being rolled out all the same: of easy ones, of hard ones.
    """

    easy: Float[Array, "pool"]
    hard: Float[Array, "pool"]
    keep: Float[Array, "2"]


def runs(
    *, targets: tuple[float, float], start: float = 0.5, pace: float = 0.01, least: float = 0.05, most: float = 0.95
) -> Tracker:
    """Runs of visits without variance, and two probabilities steered by their share (GRESO).

    A step whose share of all-right groups is above its target lowers `keep` of easy questions by `pace`, another one
    raises it; likewise for all-wrong groups and hard questions.

    Args:
        targets: shares of all-right and of all-wrong groups among those rolled out.
        start, pace, least, most: of both probabilities.

    Source: Zheng et al. 2025 (GRESO, arXiv:2506.02177).
    """

    def init(pool_size: int) -> Runs:
        zeros = jnp.zeros(pool_size, jnp.float32)
        return Runs(zeros, zeros, jnp.full(2, start, jnp.float32))

    def observe(memory: Runs, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> Runs:
        successes, attempts = totals(collected, memory.easy.shape[0])
        easy = _run(memory.easy, attempts, successes == attempts)
        hard = _run(memory.hard, attempts, successes == 0)
        graded = collected.attempts > 0
        all_right = jnp.sum(graded & (collected.successes == collected.attempts))
        all_wrong = jnp.sum(graded & (collected.successes == 0))
        above = jnp.stack([all_right, all_wrong]) > jnp.array(targets) * jnp.sum(graded)
        moved = jnp.clip(memory.keep + jnp.where(above, -pace, pace), least, most)
        keep = jnp.where(jnp.any(graded), moved, memory.keep)
        return Runs(easy, hard, keep)

    return Tracker(init, observe)


def _run(
    run: Float[Array, "pool"], attempts: Float[Array, "pool"], goes_on: Bool[Array, "pool"]
) -> Float[Array, "pool"]:
    """The run of visits of each question, after those of this step."""
    return jnp.where(attempts > 0, jnp.where(goes_on, run + 1, 0), run)


def skipping(memory: Runs, places: Int[Array, "questions"], *, explore: float) -> Float[Array, "questions"]:
    """Probability of leaving questions out: 1 - max(keep^run, explore) with the run that a question is in."""
    run = jnp.stack([memory.easy[places], memory.hard[places]])
    kept = jnp.prod(memory.keep[:, None] ** run, axis=0)  # one of the two runs is 0
    return 1 - jnp.maximum(kept, explore)


def misses() -> Tracker:
    """Of each question, its last visits in a row at which no graded rollout was right."""

    def observe(
        memory: Float[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, "pool"]:
        successes, attempts = totals(collected, memory.shape[0])
        return _run(memory, attempts, successes == 0)

    return Tracker(lambda pool_size: jnp.zeros(pool_size, jnp.float32), observe)


def rested(
    memory: Float[Array, "pool"],
    state: CurriculumState,
    places: Int[Array, "questions"],
    *,
    patience: float,
    longest: float,
) -> Float[Array, "questions"]:
    """How far a question that is missed again and again has waited until it is due, in [0, 1].

        min(1, steps since its last visit / min(2^(misses - patience), longest))

    So it may be missed at `patience` visits in a row, and then waits twice as long after every further miss.

    Args:
        memory: of `misses`.
        state: for the last visits.
        places: of the questions.
        patience: visits.
        longest: steps that a question waits at most, above 0.
    """
    passed = (state.step - state.last_seen[places]).astype(jnp.float32)
    return jnp.minimum(1, passed / jnp.minimum(jnp.exp2(memory[places] - patience), longest))


# ------------------------------------------------------------------------------------------------------------ targets
def moving_target(*, start: float, low: float, high: float, pace: float, sharpness: float, rate: float) -> Tracker:
    """A target difficulty that follows the success of the batch (AdaRFT).

        T <- clip(T + pace tanh(sharpness (R - rate)), low, high),   R the success rate of the step

    Source: Shi et al. 2025 (AdaRFT, arXiv:2504.05520), algorithm 1.
    """

    def observe(
        target: Float[Array, ""], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, ""]:
        attempts = jnp.sum(collected.attempts)
        mean = jnp.sum(collected.successes) / jnp.maximum(attempts, 1)
        moved = jnp.clip(target + pace * jnp.tanh(sharpness * (mean - rate)), low, high)
        return jnp.where(attempts > 0, moved, target)

    return Tracker(lambda pool_size: jnp.float32(start), observe)


def cosine(progress: Float[Array, ""], levels: int) -> Float[Array, "levels"]:
    """Weights of levels 0 (easy) .. K - 1: a (K - k) + (1 - a)(k + 1), a = (1 + cos(pi progress)) / 2; sums to 1 (E2H).

    Args:
        progress: share of the schedule that has passed, in [0, 1].
        levels: K, static.
    """
    level, easy = jnp.arange(levels), 0.5 * (1 + jnp.cos(jnp.pi * progress))
    weights = easy * (levels - level) + (1 - easy) * (level + 1)
    return weights / jnp.sum(weights)


def gaussian(
    progress: Float[Array, ""], levels: int, *, power: float = 0.5, width: float = 0.5
) -> Float[Array, "levels"]:
    """Weights of levels by exp(-(x - k)^2 / (2 width^2)), x = progress^power (K - 1); sums to 1 (E2H).

    Args:
        progress, levels: as `cosine`.
        power: below 1 hastens from the easiest level.
        width: of the bell, in levels.
    """
    centre = progress**power * (levels - 1)
    return jax.nn.softmax(-((centre - jnp.arange(levels)) ** 2) / (2 * width**2))


def quantile_levels(
    easiness: Float[Array, "pool"], places: Int[Array, "questions"], levels: int
) -> Int[Array, "questions"]:
    """Level of each question by quantiles of its easiness over the pool: 0 the easiest, NaN the hardest.

    Args:
        easiness: such as a measured success rate.
        places: of the questions.
        levels: static.  Where many questions are equal some levels stay empty.
    """
    edges = jnp.nanquantile(-easiness, jnp.arange(1, levels) / levels)
    level = jnp.searchsorted(edges, -easiness[places], side="left")
    return jnp.where(jnp.isnan(easiness[places]), levels - 1, level).astype(jnp.int32)


# --------------------------------------------------------------------------------------------------------- categories
def _category_sums(
    state: CurriculumState,
    place: Int[Array, "trained"],
    mask: Bool[Array, "trained"],
    values: Float[Array, "trained"],
    count: int,
) -> Float[Array, "2 categories"]:
    """Sum of values and number of groups per category."""
    category = jnp.where(mask, state.facts.category[place], count)
    return jnp.zeros((2, count)).at[:, category].add(jnp.stack([values, jnp.ones_like(values)]), mode="drop")


def category_average(categories: int, rate: float) -> Tracker:
    """Q_c <- (1 - rate) Q_c + rate * mean |advantage| of the category's trained groups (SEC).

    Source: Chen et al. 2025 (SEC, arXiv:2505.14970).
    """

    def feedback(
        average: Float[Array, "categories"],
        state: CurriculumState,
        place: Int[Array, "trained"],
        mask: Bool[Array, "trained"],
        signals: GroupSignals,
        step: Int[Array, ""],
    ) -> Float[Array, "categories"]:
        total, count = _category_sums(state, place, mask, signals.advantage_abs, categories)
        return jnp.where(count > 0, (1 - rate) * average + rate * total / jnp.maximum(count, 1), average)

    return Tracker(lambda pool_size: jnp.zeros(categories, jnp.float32), feedback=feedback)


class Arrivals(flax.struct.PyTreeNode):
    """The last groups of each category.

    Attributes:
        ring: their mean |advantage|.
        groups: how many there have been.
    """

    ring: Float[Array, "categories window"]
    groups: Int[Array, "categories"]


def category_window(categories: int, window: int) -> Tracker:
    """The mean |advantage| of the last `window` groups of each category (DUMP); see `upper_bounds`."""

    def init(pool_size: int) -> Arrivals:
        return Arrivals(jnp.zeros((categories, window), jnp.float32), jnp.zeros(categories, jnp.int32))

    def feedback(
        memory: Arrivals,
        state: CurriculumState,
        place: Int[Array, "trained"],
        mask: Bool[Array, "trained"],
        signals: GroupSignals,
        step: Int[Array, ""],
    ) -> Arrivals:
        category = state.facts.category[place]
        member = mask[:, None] & (category[:, None] == jnp.arange(categories)[None])
        arrived = jnp.sum(member, axis=0)
        nth = jnp.sum(jnp.where(member, jnp.cumsum(member, axis=0) - 1, 0), axis=1)
        # Of more groups than the window holds the last ones stay.
        kept = jnp.any(member, axis=1) & (nth >= arrived[category] - window)
        index = (memory.groups[category] + nth) % window
        ring = (
            jnp.asarray(memory.ring)
            .at[jnp.where(kept, category, categories), index]
            .set(signals.advantage_abs, mode="drop")
        )
        return Arrivals(ring, memory.groups + arrived)

    return Tracker(init, feedback=feedback)


def upper_bounds(memory: Arrivals, samples: int) -> Float[Array, "categories"]:
    """Mean of the window + sqrt(2 ln(N + 1) / (n_c + 1)), n_c rollouts of the category and N of all (DUMP).

    Source: Wang et al. 2025 (DUMP, arXiv:2504.09710).
    """
    window = memory.ring.shape[1]
    mean = jnp.sum(memory.ring, axis=1) / jnp.clip(memory.groups, 1, window)
    rollouts = samples * memory.groups.astype(jnp.float32)
    return mean + jnp.sqrt(2 * jnp.log(jnp.maximum(jnp.sum(rollouts), 1) + 1) / (rollouts + 1))


# ------------------------------------------------------------------------------------------------------------- levels
class Heights(flax.struct.PyTreeNode):
    """How far up each category has come.

    Attributes:
        level: the highest level that is asked, counted from the category's lowest.
        successes, attempts, groups: at that level since it was last judged.
    """

    level: Int[Array, "categories"]
    successes: Float[Array, "categories"]
    attempts: Float[Array, "categories"]
    groups: Float[Array, "categories"]


def heights(categories: int, *, threshold: float, least: int) -> Tracker:
    """The highest level of each category, raised by one where it is mastered (RLVE).

    Once `least` groups at a category's highest level are in, their success rate is judged: at or above `threshold` the
    level rises, unless the pool has no higher one of the category, and in either case counting starts anew.

    Source: Zeng et al. 2025 (RLVE, arXiv:2511.07317).
    """

    def init(pool_size: int) -> Heights:
        zeros = jnp.zeros(categories, jnp.float32)
        return Heights(jnp.zeros(categories, jnp.int32), zeros, zeros, zeros)

    def observe(memory: Heights, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> Heights:
        pool_size, facts = state.attempts.shape[0], state.facts
        index = places(collected, pool_size)
        place = index.clip(max=pool_size - 1)
        category = facts.category[place]
        lowest, highest = _ends(state, categories)
        counts_here = facts.level[place] == (lowest + memory.level)[category]
        where = jnp.where((index < pool_size) & counts_here, category, categories)

        def added(counts: Float[Array, "categories"], values: Float[Array, "groups"]) -> Float[Array, "categories"]:
            return jnp.asarray(counts).at[where].add(values, mode="drop")

        successes = added(memory.successes, collected.successes)
        attempts, groups = added(memory.attempts, collected.attempts), added(memory.groups, jnp.ones(where.shape))
        judged = groups >= least
        rises = judged & (successes >= threshold * attempts)
        fresh = [jnp.where(judged, 0, counts) for counts in (successes, attempts, groups)]
        return Heights(jnp.minimum(memory.level + rises, highest - lowest), *fresh)

    return Tracker(init, observe)


def _ends(state: CurriculumState, categories: int) -> tuple[Int[Array, "categories"], Int[Array, "categories"]]:
    """The lowest and the highest level of each category in the pool; 0 where it has none."""
    level, category = state.facts.level, state.facts.category
    highest = jnp.zeros(categories, jnp.int32).at[category].max(level, mode="drop")
    return highest.at[category].min(level, mode="drop"), highest


def window_below(
    categories: int, levels: int, window: int, name: str
) -> Callable[[CurriculumState], Bool[Array, "categories levels"]]:
    """(state) -> the `window` levels up to the highest one of each category."""

    def allowed(state: CurriculumState) -> Bool[Array, "categories levels"]:
        top = (_ends(state, categories)[0] + state.memory[name].level)[:, None]
        level = jnp.arange(levels)[None]
        return (level <= top) & (level > top - window)

    return allowed
