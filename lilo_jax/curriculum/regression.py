"""Online logistic regression of success on features: what was seen of one question speaks of those that are like it.

The belief about question i is m_i = sigmoid(x_i . w), and w is the mode of

    sum over the last groups g of  decay^(age of g) n_g [ s_g / n_g log m_g + (1 - s_g / n_g) log(1 - m_g) ]
    - sum over blocks b of features  precision_b / 2 |w_b|^2

found by Newton steps from the last w.  Each kind of feature has a precision of its own, which the evidence sets
(MacKay 1992, automatic relevance determination): kinds that say nothing fade out.  Groups are remembered by question,
so that features made anew speak of old outcomes as well.
"""

import flax.struct
import jax
import jax.numpy as jnp

from lilo_jax.curriculum.estimators import Estimate, Estimator, Tracker
from lilo_jax.types import Array, CurriculumState, GroupStatistics

NEWTON_STEPS = 2
LENGTHS = 6
PRECISIONS = (0.03, 2.0)
"""Least and largest precision of a block; a block's features have variance 1 together, so 0.03 allows log-odds of 6."""


class Evidence(flax.struct.PyTreeNode):
    """The last groups, in a ring, and what was made of them.

    Attributes:
        question: int32 [W]; -1 where there is none yet.
        successes, attempts: float32 [W].
        step: int32 [W], when each was seen.
        next: int32 scalar, where the next one goes.
        weights: float32 [d], coefficients.
        precisions: float32 [blocks], of their priors.
        covariance: float32 [d, d], of the belief about them: the inverse of the negative log posterior's Hessian.
    """

    question: Array
    successes: Array
    attempts: Array
    step: Array
    next: Array
    weights: Array
    precisions: Array
    covariance: Array


def logistic_regression(
    *, blocks: tuple[int, ...], window: int, decay: float = 0.9, precision: float = 0.0625
) -> Estimator:
    """Success rates as a logistic function of the questions' features.

    The variance of a belief is that of m_i to first order in w, x_i' Cov x_i (m_i (1 - m_i))^2, at most m_i (1 - m_i).

    Args:
        blocks: widths of the kinds of features; `Wants.blocks`.
        window: W, groups remembered.
        decay: weight of a group per step of its age, in (0, 1].
        precision: of the Gaussian prior on every coefficient, to begin with.
    """
    width, block = sum(blocks), jnp.repeat(jnp.arange(len(blocks)), jnp.array(blocks), total_repeat_length=sum(blocks))

    def init(pool_size: int) -> Evidence:
        del pool_size
        zeros = jnp.zeros(window, jnp.float32)
        return Evidence(
            question=jnp.full(window, -1, jnp.int32),
            successes=zeros,
            attempts=zeros,
            step=jnp.zeros(window, jnp.int32),
            next=jnp.int32(0),
            weights=jnp.zeros(width, jnp.float32),
            precisions=jnp.full(len(blocks), precision, jnp.float32),
            covariance=jnp.eye(width) / precision,
        )

    def observe(evidence: Evidence, state: CurriculumState, collected: GroupStatistics, step: Array) -> Evidence:
        evidence = _added(evidence, collected, step)
        index = jnp.maximum(evidence.question, 0)
        age = (step - evidence.step).astype(jnp.float32)
        weight = jnp.where(evidence.question >= 0, evidence.attempts * decay**age, 0)
        rate = evidence.successes / jnp.maximum(evidence.attempts, 1)
        prior = evidence.precisions[block]
        weights, covariance = fit(state.facts.features[index], rate, weight, evidence.weights, precision=prior)
        precisions = relevance(weights, jnp.diag(covariance), evidence.precisions, block)
        return evidence.replace(weights=weights, covariance=covariance, precisions=precisions)

    def estimate(evidence: Evidence, state: CurriculumState, ids: Array, key: Array) -> Estimate:
        features = state.facts.features[ids]
        mean = jax.nn.sigmoid(features @ evidence.weights)
        spread = jnp.sum(features @ evidence.covariance * features, axis=1)
        return Estimate(mean, jnp.minimum(spread * (mean * (1 - mean)) ** 2, mean * (1 - mean)))

    return Estimator(Tracker(init, observe), estimate)


def _added(evidence: Evidence, collected: GroupStatistics, step: Array) -> Evidence:
    """The ring with the measured groups of a step written over its oldest ones."""
    window = evidence.question.shape[0]
    measured = collected.attempts > 0
    rank = jnp.cumsum(measured) - 1
    total = jnp.sum(measured)
    # Of more groups than fit the last ones stay; others would be written over in an order that is not defined.
    kept = measured & (rank >= total - window)
    slot = jnp.where(kept, (evidence.next + rank) % window, window)

    def put(ring: Array, values: Array) -> Array:
        return ring.at[slot].set(values.astype(ring.dtype), mode="drop")

    return evidence.replace(
        question=put(evidence.question, collected.question),
        successes=put(evidence.successes, collected.successes),
        attempts=put(evidence.attempts, collected.attempts),
        step=put(evidence.step, jnp.broadcast_to(step, measured.shape)),
        next=(evidence.next + total) % window,
    )


def relevance(weights: Array, variances: Array, precisions: Array, block: Array) -> Array:
    """Precision of every block by the evidence: (directions that the data decide) / |w_b|^2, within `PRECISIONS`.

        gamma_b = sum over its coefficients of (1 - precision_b variance_j),  precision_b <- gamma_b / |w_b|^2

    Args:
        weights, variances: float32 [d], mode and marginal variances of the coefficients.
        precisions: float32 [blocks], under which they were found.
        block: int32 [d], of each coefficient.

    Source: MacKay 1992, "The evidence framework applied to classification networks".
    """
    count = precisions.shape[0]
    decided = jax.ops.segment_sum(1 - precisions[block] * variances, block, num_segments=count)
    size = jax.ops.segment_sum(weights**2, block, num_segments=count)
    return jnp.clip(jnp.maximum(decided, 0) / jnp.maximum(size, 1e-6), *PRECISIONS)


def fit(features: Array, rate: Array, weight: Array, start: Array, *, precision: Array) -> tuple[Array, Array]:
    """Mode and covariance of the coefficients, by Newton steps from `start`.

    A whole step overshoots where outcomes are nearly certain, for the curvature is then small, and would diverge.  So
    each step is tried at lengths 1, 1/2, ..., 2^-(LENGTHS - 1) and 0, and the one of highest posterior is taken.

    Args:
        features: float32 [W, d].
        rate: float32 [W], in [0, 1].
        weight: float32 [W], at least 0.
        start: float32 [d].
        precision: float32 [d], of the prior.

    Returns:
        Coefficients [d], and the inverse Hessian of the negative log posterior where the last step began [d, d].
    """
    lengths = jnp.append(0.5 ** jnp.arange(LENGTHS), 0.0)

    def loss(w: Array) -> Array:
        logits = features @ w
        return jnp.sum(weight * (jax.nn.softplus(logits) - rate * logits)) + jnp.sum(precision * w**2) / 2

    def newton(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, _ = carry
        mean = jax.nn.sigmoid(features @ w)
        hessian = (features * (weight * mean * (1 - mean))[:, None]).T @ features + jnp.diag(precision)
        covariance = jnp.linalg.inv(hessian)
        tried = w - lengths[:, None] * (covariance @ (features.T @ (weight * (mean - rate)) + precision * w))
        losses = jax.vmap(loss)(tried)
        return tried[jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))], covariance

    return jax.lax.fori_loop(0, NEWTON_STEPS, newton, (start, jnp.diag(1 / precision)))
