"""Beliefs that know a question's own past, and that are weighed by how well they foretold.

What is read off a question is the same for all that read alike; what it showed when it was asked is its own.  And how
fast a policy drifts, or how much its past should count, need not be set: several settings believe side by side, and
the evidence of every group says which are to be believed.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.special import logit
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Belief
from lilo_jax.curriculum.estimators import Estimator, Tracker, log_beta_binomial, places, rollouts_known
from lilo_jax.types import Array, CurriculumState, Estimate, GroupSignals, GroupStatistics, PyTree

CERTAIN = 1e-6
"""Base beliefs are held this far from 0 and 1, whose log-odds are infinite."""
LEAST_RATE = 0.005
"""Means are held this far from 0 and 1 where evidence is taken: one surprise must not outweigh everything."""
LEAST_COUNT, MOST_COUNT = 0.5, 1e4
"""Rollouts that a belief counts like, where its evidence is taken."""


class _Offsets(flax.struct.PyTreeNode):
    """How much easier each question is than its base belief says, as of its last visit, in log-odds.

    Attributes:
        mean: d.
        information: I, what groups added to the precision of its prior.
        since: the step after the last visit.
    """

    mean: Float[Array, "pool"]
    information: Float[Array, "pool"]
    since: Int[Array, "pool"]


def offsets(base: Belief, *, spread: float = 1.0, memory: float = 0.98) -> Estimator:
    """A base belief, corrected for every question by what its own groups showed beside it.

        log-odds of question i = logit(m_i) + d_i,    d_i ~ N(0, spread^2) beforehand

    m_i is the mean of the base belief at that time.  A group of n rollouts with s successes moves d_i by one step of an
    extended Kalman filter, and what it showed fades with every step that passes:

        p = sigmoid(logit(m_i) + d_i),    I_i <- I_i + n p (1 - p),    d_i <- d_i + (s - n p) / (1 / spread^2 + I_i)

    So a question that was never asked is believed as by the base, and one that is asked often by what it showed,
    while what lifts all questions comes through the base.

    Args:
        base: reads no memory of its own: it is tracked beside, and answers for the state before a step is remembered.
        spread: of the offsets, in log-odds, above 0.
        memory: what stays of an offset and of its information with every step that passes, in (0, 1].
    """

    def now(
        memories: _Offsets, index: Int[Array, "questions"], step: Int[Array, ""]
    ) -> tuple[Float[Array, "questions"], Float[Array, "questions"]]:
        stays = memory ** (step - memories.since[index]).astype(jnp.float32)
        return stays * memories.mean[index], stays * memories.information[index]

    def init(pool_size: int) -> _Offsets:
        zeros = jnp.zeros(pool_size, jnp.float32)
        return _Offsets(zeros, zeros, jnp.zeros(pool_size, jnp.int32))

    def observe(
        memories: _Offsets, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> _Offsets:
        pool_size = memories.since.shape[0]
        index = places(collected, pool_size)
        place = index.clip(max=pool_size - 1)
        mean, known = now(memories, place, step)
        rate = jax.nn.sigmoid(_log_odds(base(state, place, jax.random.key(0)).mean) + mean)
        # Set, then add: a question with two groups fades once and counts both.
        information = jnp.asarray(memories.information).at[index].set(known, mode="drop")
        information = information.at[index].add(collected.attempts * rate * (1 - rate), mode="drop")
        moved = (collected.successes - collected.attempts * rate) / (spread**-2 + information[place])
        means = jnp.asarray(memories.mean).at[index].set(mean, mode="drop").at[index].add(moved, mode="drop")
        return _Offsets(means, information, jnp.asarray(memories.since).at[index].set(step + 1, mode="drop"))

    def estimate(
        memories: _Offsets, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        mean, information = now(memories, places, state.step)
        variance = 1 / (spread**-2 + information)
        believed = base(state, places, key)
        rate = jax.nn.sigmoid(_log_odds(believed.mean) + mean)
        product = rate * (1 - rate)
        return Estimate(rate, jnp.minimum(believed.variance + variance * product**2, product))

    return Estimator(Tracker(init, observe), estimate)


def _log_odds(rate: Float[Array, "questions"]) -> Float[Array, "questions"]:
    return logit(jnp.clip(rate, CERTAIN, 1 - CERTAIN))


def unremembered(belief: Belief) -> Estimator:
    """A belief as an estimator that remembers nothing of its own: what it needs is tracked beside."""
    return Estimator(Tracker(lambda pool_size: ()), lambda memory, state, places, key: belief(state, places, key))


class _Members(flax.struct.PyTreeNode):
    """What several estimators remember, and how well they foretold.

    Attributes:
        memories: of each.
        evidence: log-likelihood of the groups so far under each, faded.
    """

    memories: tuple[PyTree, ...]
    evidence: Float[Array, "members"]


def foretold(members: Sequence[Estimator], *, fade: float = 0.95) -> Estimator:
    """Several estimators, each believed as far as it foretold what groups showed.

        weight of k ~ exp(sum over groups of  fade^age  log P(s | n, belief of k before the group))
        mean = sum_k w_k m_k,    variance = sum_k w_k (v_k + (m_k - mean)^2)

    P is beta-binomial with the mean and the variance of the belief: a member that is sure and wrong loses more than one
    that admits that it does not know.  Where a member believes nothing of a question (NaN), the others speak.

    Args:
        members: at least one; all weigh the same at first.
        fade: what stays of the evidence with every step, in (0, 1].
    """
    members = tuple(members)

    def beliefs(
        memories: tuple[PyTree, ...], state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        keys = jax.random.split(key, len(members))
        each = [m.estimate(own, state, places, k) for m, own, k in zip(members, memories, keys, strict=True)]
        return Estimate(*map(jnp.stack, zip(*each, strict=True)))

    def init(pool_size: int) -> _Members:
        return _Members(tuple(m.tracker.init(pool_size) for m in members), jnp.zeros(len(members), jnp.float32))

    def observe(memory: _Members, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> _Members:
        place = jnp.maximum(collected.place, 0)
        said = beliefs(memory.memories, state, place, jax.random.key(0))
        told = log_likelihood(collected.successes[None], collected.attempts[None], said)
        # A group of which one member believes nothing compares nobody.
        compared = (collected.attempts > 0) & jnp.all(jnp.isfinite(told), axis=0)
        evidence = fade * memory.evidence + jnp.sum(jnp.where(compared, told, 0), axis=1)
        memories = tuple(
            m.tracker.observe(own, state, collected, step) for m, own in zip(members, memory.memories, strict=True)
        )
        return _Members(memories, evidence - jnp.max(evidence))

    def feedback(
        memory: _Members,
        state: CurriculumState,
        place: Int[Array, "trained"],
        mask: Bool[Array, "trained"],
        signals: GroupSignals,
        step: Int[Array, ""],
    ) -> _Members:
        memories = tuple(
            m.tracker.feedback(own, state, place, mask, signals, step)
            for m, own in zip(members, memory.memories, strict=True)
        )
        return memory.replace(memories=memories)

    def estimate(
        memory: _Members, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        return _mixture(beliefs(memory.memories, state, places, key), jax.nn.softmax(memory.evidence))

    return Estimator(Tracker(init, observe, feedback), estimate)


def _mixture(said: Estimate, weight: Float[Array, "members"]) -> Estimate:
    """Mean and variance of a mixture of beliefs, [members, questions], of those that believe anything."""
    known = ~jnp.isnan(said.mean)
    weights = jnp.where(known, weight[:, None], 0)
    weights = weights / jnp.sum(weights, axis=0, keepdims=True)  # NaN where nobody believes anything
    mean = jnp.sum(weights * jnp.where(known, said.mean, 0), axis=0)
    around = jnp.where(known, said.variance + (said.mean - mean[None]) ** 2, 0)
    return Estimate(mean, jnp.sum(weights * around, axis=0))


def log_likelihood(
    successes: Float[Array, "#members groups"], attempts: Float[Array, "#members groups"], belief: Estimate
) -> Float[Array, "members groups"]:
    """Log P(s of n, in this order) under a belief of mean m and variance v, [members, groups].

        log B(s + a, n - s + b) - log B(a, b),    a = c m,  b = c (1 - m),  c of `rollouts_known`

    c is held within `LEAST_COUNT` and `MOST_COUNT`.
    """
    mean = jnp.clip(belief.mean, LEAST_RATE, 1 - LEAST_RATE)
    count = rollouts_known(Estimate(mean, belief.variance), least=LEAST_COUNT, most=MOST_COUNT)
    successes, attempts = (jnp.broadcast_to(x, mean.shape) for x in (successes, attempts))
    return log_beta_binomial(successes, attempts - successes, count * mean, count * (1 - mean))
