"""Estimators that model how success changes: abilities, states, and evidence about questions that were not asked.

Each step updates the whole pool, in O(M), since what they model moves for questions that nobody rolls out as well.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from lilo_jax.curriculum.estimators import Estimator, Tracker, beta, totals
from lilo_jax.types import Array, CurriculumState, Estimate, GroupStatistics, PyTree


class Ratings(flax.struct.PyTreeNode):
    """Difficulties of questions and the ability of the policy, on one scale.

    Attributes:
        difficulty: 0 at the start.
        seen: steps that a question was measured in.
        ability: 0 at the start.
    """

    difficulty: Float[Array, "pool"]
    seen: Float[Array, "pool"]
    ability: Float[Array, ""]


def rasch() -> Estimator:
    """Success as sigmoid(ability - difficulty), both learnt from how far outcomes were from what was expected (CDAS).

        d_i <- (n d_i + sigmoid(c - d_i) - rate_i) / (n + 1),   n = 1 + steps that measured i before
        c   <- c - sum_i (change of d_i) / M

    The difficulty is thus the mean surprise, a zero at the start included.  Held for certain.

    Source: Kong et al. 2025 (CDAS, arXiv:2505.17652), with the counts of its release.
    """

    def init(pool_size: int) -> Ratings:
        zeros = jnp.zeros(pool_size, jnp.float32)
        return Ratings(zeros, zeros, jnp.float32(0))

    def observe(ratings: Ratings, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> Ratings:
        successes, attempts = totals(collected, ratings.seen.shape[0])
        measured = attempts > 0
        surprise = jax.nn.sigmoid(ratings.ability - ratings.difficulty) - successes / jnp.maximum(attempts, 1)
        moved = jnp.where(measured, (surprise - ratings.difficulty) / (ratings.seen + 2), 0)
        return Ratings(ratings.difficulty + moved, ratings.seen + measured, ratings.ability - jnp.mean(moved))

    def estimate(
        ratings: Ratings, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        mean = jax.nn.sigmoid(ratings.ability - ratings.difficulty[places])
        return Estimate(mean, jnp.zeros(places.shape))

    return Estimator(Tracker(init, observe), estimate)


class States(flax.struct.PyTreeNode):
    """Beliefs about whether questions are unsolved, partly solved or solved.

    Attributes:
        now: belief about the last step.
        ahead: about the step to come.
        counts: Dirichlet counts of moves, to x from.
    """

    now: Float[Array, "pool 3"]
    ahead: Float[Array, "pool 3"]
    counts: Float[Array, "pool 3 3"]


def three_states(*, prior: float = 1.0, decay: float = 0.7) -> Tracker:
    """A hidden Markov filter per question over {unsolved, partly solved, solved}, whose moves it learns (DPS).

    A group shows its question's state: no success, some, or all.  With moves P = counts / column sums,

        counts <- decay counts + (1 - decay) prior + (outer(new, now) * P, summing to 1; nothing if not rolled out)
        ahead  <- P new,    new = the state shown, or `ahead` if none was

    Args:
        prior: every Dirichlet count at the start, above 0.
        decay: how much of the counts stays each step, in [0, 1].

    Source: Mao et al. 2026 (DPS, arXiv:2603.10887), and its release, which keeps moves per question.
    """

    def init(pool_size: int) -> States:
        even = jnp.full((pool_size, 3), 1 / 3, jnp.float32)
        return States(even, even, jnp.full((pool_size, 3, 3), prior, jnp.float32))

    def observe(states: States, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> States:
        successes, attempts = totals(collected, states.now.shape[0])
        shown = jnp.where(successes == 0, 0, jnp.where(successes < attempts, 1, 2))
        measured = (attempts > 0)[:, None]
        new = jnp.where(measured, jax.nn.one_hot(shown, 3), states.ahead)
        joint = new[:, :, None] * states.now[:, None, :] * _moves(states.counts)
        joint = joint / jnp.sum(joint, axis=(1, 2), keepdims=True)
        counts = decay * states.counts + (1 - decay) * prior + jnp.where(measured[:, :, None], joint, 0)
        ahead = jnp.einsum("mij,mj->mi", _moves(counts), new)
        return States(new, ahead / jnp.sum(ahead, axis=1, keepdims=True), counts)

    return Tracker(init, observe)


def _moves(counts: Float[Array, "pool 3 3"]) -> Float[Array, "pool 3 3"]:
    return counts / jnp.sum(counts, axis=1, keepdims=True)


class Blended(flax.struct.PyTreeNode):
    """Counts of rollouts and of predictions.

    Attributes:
        successes, failures: the prior's one each included.
        predictor: what the predicting estimator remembers.
    """

    successes: Float[Array, "pool"]
    failures: Float[Array, "pool"]
    predictor: PyTree


def blended(predictor: Estimator, *, forget: float, share: float, samples: int) -> Estimator:
    """A Beta posterior in which predictions count as rollouts for questions that had none (BOTS).

        a_i <- (1 - forget) a_i + forget + s_i                              rolled out, s_i successes
        a_i <- (1 - forget) a_i + forget + share * samples * m_i            not: m_i is predicted;  and b_i likewise

    The predictor learns from the step before it predicts.

    Args:
        predictor: an estimator of success rates.
        forget: lambda, in [0, 1].
        share: rho, what a predicted rollout counts, in [0, 1].
        samples: n, rollouts that a prediction stands for.

    Source: Shen et al. 2025 (BOTS, arXiv:2510.26374), its generalised update.  As in its release, the prediction for a
    question that was rolled out is its rate, so that the two kinds of evidence add up to its counts.
    """

    def init(pool_size: int) -> Blended:
        ones = jnp.ones(pool_size, jnp.float32)
        return Blended(ones, ones, predictor.tracker.init(pool_size))

    def observe(memory: Blended, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]) -> Blended:
        pool_size = memory.successes.shape[0]
        successes, attempts = totals(collected, pool_size)
        learnt = predictor.tracker.observe(memory.predictor, state, collected, step)
        rate = predictor.estimate(learnt, state, jnp.arange(pool_size), jax.random.key(0)).mean
        pseudo = share * samples * jnp.where(jnp.isnan(rate), 0, jnp.stack([rate, 1 - rate]))
        evidence = jnp.where(attempts > 0, jnp.stack([successes, attempts - successes]), pseudo)
        faded = (1 - forget) * jnp.stack([memory.successes, memory.failures]) + forget + evidence
        return Blended(faded[0], faded[1], learnt)

    def estimate(
        memory: Blended, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        return beta(memory.successes[places], memory.failures[places])

    return Estimator(Tracker(init, observe), estimate)
