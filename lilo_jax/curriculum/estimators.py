"""Estimators: what a rule believes about the success rate p of each question, and how groups change it.

An estimator remembers arrays of its own in the curriculum's state, adds every collected group, and answers for any
list of questions with the mean and the variance of its belief about p.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.special import betaln
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Belief
from lilo_jax.types import Array, CurriculumState, Estimate, GroupSignals, GroupStatistics, PyTree


def keep(memory: PyTree, state: CurriculumState, *_: object) -> PyTree:
    """For trackers that learn nothing from an event."""
    return memory


class Tracker(NamedTuple):
    """Something that a rule remembers.

    Attributes:
        init: (pool size) -> memory.
        observe: (memory, state before the step is remembered, collected, step) -> memory.
        feedback: (memory, state, place, mask, GroupSignals, step) -> memory, after the update.
    """

    init: Callable[[int], PyTree]
    observe: Callable[[PyTree, CurriculumState, GroupStatistics, Int[Array, ""]], PyTree] = keep
    feedback: Callable[
        [PyTree, CurriculumState, Int[Array, "trained"], Bool[Array, "trained"], GroupSignals, Int[Array, ""]], PyTree
    ] = keep


class Estimator(NamedTuple):
    """A tracker with a belief.

    Attributes:
        tracker: what it remembers.
        estimate: (memory, state, places, key) -> Estimate of these questions.
    """

    tracker: Tracker
    estimate: Callable[[PyTree, CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Estimate]


def places(collected: GroupStatistics, pool_size: int) -> Int[Array, "groups"]:
    """Where groups stand in the pool; out of range, and so dropped, where nothing was measured."""
    return jnp.where(collected.attempts > 0, collected.place, pool_size)


def totals(collected: GroupStatistics, pool_size: int) -> tuple[Float[Array, "pool"], Float[Array, "pool"]]:
    """Successes and attempts of a step by question; a question's groups are added up."""
    index, zeros = places(collected, pool_size), jnp.zeros(pool_size, jnp.float32)
    return (
        zeros.at[index].add(collected.successes, mode="drop"),
        zeros.at[index].add(collected.attempts, mode="drop"),
    )


def recalled(estimator: Estimator, name: str = "success") -> Belief:
    """(state, places, key) -> what an estimator believes by `state.memory[name]`."""
    return lambda state, places, key: estimator.estimate(state.memory[name], state, places, key)


def beta(a: Float[Array, "*questions"], b: Float[Array, "*questions"]) -> Estimate:
    """Mean and variance of Beta(a, b): a / n and ab / (n^2 (n + 1)) with n = a + b."""
    total = a + b
    mean = a / total
    return Estimate(mean, mean * (1 - mean) / (total + 1))


def rollouts_known(belief: Estimate, *, least: float, most: float = jnp.inf) -> Float[Array, "*questions"]:
    """How many rollouts a belief counts like: n = m (1 - m) / v - 1, which inverts `beta`: Beta(n m, n (1 - m)).

    Args:
        belief: m and v; NaN where m is.
        least, most: bounds of n; a belief that is held for certain counts like `most`.
    """
    n = belief.mean * (1 - belief.mean) / jnp.maximum(belief.variance, 1e-9) - 1
    return jnp.clip(n, least, most)


def log_beta_binomial(
    successes: Float[Array, "*#groups"],
    failures: Float[Array, "*#groups"],
    a: Float[Array, "*#groups"],
    b: Float[Array, "*#groups"],
) -> Float[Array, "*groups"]:
    """Log-likelihood of outcomes in this order when the rate is Beta(a, b): log B(a + s, b + f) - log B(a, b)."""
    return betaln(a + successes, b + failures) - betaln(a, b)


# ------------------------------------------------------------------------------------------------------- from counts
def lifetime(prior: float = 1.0) -> Estimator:
    """Beta posterior of all rollouts ever: a = prior + successes, b = prior + failures."""

    def estimate(
        memory: PyTree, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        successes, attempts = state.successes[places], state.attempts[places]
        return beta(prior + successes, prior + attempts - successes)

    return Estimator(Tracker(lambda pool_size: ()), estimate)


def frequency() -> Estimator:
    """The share of all rollouts ever that were right, held for certain; NaN before the first."""

    def estimate(
        memory: PyTree, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        attempts = state.attempts[places]
        rate = state.successes[places] / jnp.maximum(attempts, 1)
        return Estimate(jnp.where(attempts > 0, rate, jnp.nan), jnp.zeros(places.shape))

    return Estimator(Tracker(lambda pool_size: ()), estimate)


class Counts(flax.struct.PyTreeNode):
    """Decayed counts, as of each question's last visit.

    Attributes:
        successes, failures: without prior.
        since: step that they are decayed to: the one after the last visit.
    """

    successes: Float[Array, "pool"]
    failures: Float[Array, "pool"]
    since: Int[Array, "pool"]

    def at(
        self, places: Int[Array, "questions"], step: Int[Array, ""], decay: float
    ) -> tuple[Float[Array, "questions"], Float[Array, "questions"]]:
        """Counts of questions as of a step."""
        faded = decay ** (step - self.since[places]).astype(jnp.float32)
        return faded * self.successes[places], faded * self.failures[places]


def _observe_counts(
    counts: Counts, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""], *, decay: float
) -> Counts:
    pool_size = counts.since.shape[0]
    index = places(collected, pool_size)
    successes, failures = counts.at(index.clip(max=pool_size - 1), step + 1, decay)

    def add(
        kept: Float[Array, "pool"], faded: Float[Array, "groups"], new: Float[Array, "groups"]
    ) -> Float[Array, "pool"]:
        # Set, then add: a question with two groups fades once and counts both.
        return jnp.asarray(kept).at[index].set(faded, mode="drop").at[index].add(new, mode="drop")

    return Counts(
        add(counts.successes, successes, collected.successes),
        add(counts.failures, failures, collected.attempts - collected.successes),
        jnp.asarray(counts.since).at[index].set(step + 1, mode="drop"),
    )


def decayed_counts(
    *,
    decay: float = 1.0,
    prior: Callable[
        [CurriculumState, Int[Array, "questions"]], tuple[Float[Array, "questions"], Float[Array, "questions"]]
    ]
    | float = 1.0,
) -> Estimator:
    """Beta posterior whose counts fade with every step that passes, visited or not.

        a_i = a0_i + sum over visits of decay^(now - 1 - step) successes,  and b_i likewise

    The group of the step before counts in full: a <- a0 + decay (a - a0) + successes, as MoPPS and SPO have it.

    Args:
        decay: per step, in (0, 1]; 1 never forgets.
        prior: a0 = b0, or a function (state, places) -> (a0, b0).
    """

    def init(pool_size: int) -> Counts:
        zeros = jnp.zeros(pool_size, jnp.float32)
        return Counts(zeros, zeros, jnp.zeros(pool_size, jnp.int32))

    def estimate(
        counts: Counts, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        a0, b0 = prior(state, places) if callable(prior) else (prior, prior)
        successes, failures = counts.at(places, state.step, decay)
        return beta(a0 + successes, b0 + failures)

    return Estimator(Tracker(init, functools.partial(_observe_counts, decay=decay)), estimate)


def thompson(estimator: Estimator) -> Estimator:
    """One draw from the Beta that has the belief's mean and variance, held for certain.

    Beta(mean n, (1 - mean) n) with the n of `rollouts_known`.
    """

    def estimate(
        memory: PyTree, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        draw_key, own = jax.random.split(key)
        belief = estimator.estimate(memory, state, places, own)
        mean, variance = belief
        total = rollouts_known(belief, least=1e-3)
        certain = (variance <= 1e-9) | (mean <= 0) | (mean >= 1)
        draw = jax.random.beta(draw_key, jnp.maximum(mean * total, 1e-6), jnp.maximum((1 - mean) * total, 1e-6))
        draw = jnp.where(certain, mean, draw)
        return Estimate(draw, jnp.zeros_like(draw))

    return Estimator(estimator.tracker, estimate)


def latest() -> Estimator:
    """The success rate of the last step that rolled a question out, all its groups taken together; NaN before."""

    def observe(
        rate: Float[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, "pool"]:
        successes, attempts = totals(collected, rate.shape[0])
        return jnp.where(attempts > 0, successes / jnp.maximum(attempts, 1), rate)

    return Estimator(Tracker(lambda pool_size: jnp.full(pool_size, jnp.nan, jnp.float32), observe), _as_remembered)


def earliest() -> Estimator:
    """The success rate of the first step that rolled a question out; NaN before."""

    def observe(
        rate: Float[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, "pool"]:
        successes, attempts = totals(collected, rate.shape[0])
        return jnp.where((attempts > 0) & jnp.isnan(rate), successes / jnp.maximum(attempts, 1), rate)

    return Estimator(Tracker(lambda pool_size: jnp.full(pool_size, jnp.nan, jnp.float32), observe), _as_remembered)


def moving_average(rate: float, start: float = 0.0) -> Estimator:
    """An exponential moving average of group means: m <- (1 - rate) m + rate * mean of the group.

    A question with two groups in a step moves by both at once, towards their common mean.

    Args:
        rate: of moving.
        start: m before the first group; NaN: m starts at that group's mean.
    """

    def observe(
        mean: Float[Array, "pool"], state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Float[Array, "pool"]:
        successes, attempts = totals(collected, mean.shape[0])
        shown = successes / jnp.maximum(attempts, 1)
        moved = jnp.where(jnp.isnan(mean), shown, (1 - rate) * mean + rate * shown)
        return jnp.where(attempts > 0, moved, mean)

    return Estimator(Tracker(lambda pool_size: jnp.full(pool_size, start, jnp.float32), observe), _as_remembered)


def _as_remembered(
    rate: Float[Array, "pool"], state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
) -> Estimate:
    return Estimate(rate[places], jnp.zeros(places.shape))


def measured() -> Estimator:
    """The starting policy's success rate, measured before the first step and held for certain (`Facts.grade`)."""

    def estimate(
        memory: PyTree, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        return Estimate(state.facts.grade[places], jnp.zeros(places.shape))

    return Estimator(Tracker(lambda pool_size: ()), estimate)
