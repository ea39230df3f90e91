"""Online logistic regression of success on features: what was seen of one question speaks of those that are like it.

The belief about question i is m_i = sigmoid(x_i . w), and w is the mode of

    sum over the last groups g of  decay^(age of g) n_g [ s_g / n_g log m_g + (1 - s_g / n_g) log(1 - m_g) ]
    - precision / 2 |w|^2

found by Newton steps from the last w.  Groups are remembered by question, so that features made anew speak of old
outcomes as well.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Float, Int, Key, Num

from lilo_jax.curriculum.estimators import Estimator, Tracker
from lilo_jax.types import Array, CurriculumState, Estimate, GroupStatistics

NEWTON_STEPS = 2
LENGTHS = 6


class Evidence(flax.struct.PyTreeNode):
    """The last groups, in a ring, and what was made of them.

    Attributes:
        place: -1 where there is none yet.
        successes, attempts: of each.
        step: when each was seen.
        next: where the next one goes.
        weights: coefficients.
        factor: lower triangular L; L L' is the Hessian of the negative log posterior, the inverse of
            the covariance of the belief about them.
    """

    place: Int[Array, "window"]
    successes: Float[Array, "window"]
    attempts: Float[Array, "window"]
    step: Int[Array, "window"]
    next: Int[Array, ""]
    weights: Float[Array, "features"]
    factor: Float[Array, "features features"]


def logistic_regression(*, width: int, window: int, decay: float = 0.95, precision: float = 0.03) -> Estimator:
    """Success rates as a logistic function of the questions' features.

    The variance of a belief is that of m_i to first order in w, x_i' Cov x_i (m_i (1 - m_i))^2, at most m_i (1 - m_i).

    Args:
        width: d, of the features; `Wants.features`.
        window: W, groups remembered.
        decay: weight of a group per step of its age, in (0, 1].
        precision: of the Gaussian prior on every coefficient.  A kind of features has variance 1 in all, so 0.03 lets
            its log-odds vary by 6.
    """

    def init(pool_size: int) -> Evidence:
        del pool_size
        zeros = jnp.zeros(window, jnp.float32)
        return Evidence(
            place=jnp.full(window, -1, jnp.int32),
            successes=zeros,
            attempts=zeros,
            step=jnp.zeros(window, jnp.int32),
            next=jnp.int32(0),
            weights=jnp.zeros(width, jnp.float32),
            factor=jnp.eye(width) * precision**0.5,
        )

    def observe(
        evidence: Evidence, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Evidence:
        evidence = _added(evidence, collected, step)
        index = jnp.maximum(evidence.place, 0)
        age = (step - evidence.step).astype(jnp.float32)
        weight = jnp.where(evidence.place >= 0, evidence.attempts * decay**age, 0)
        rate = evidence.successes / jnp.maximum(evidence.attempts, 1)
        weights, factor = fit(state.facts.wanted_features[index], rate, weight, evidence.weights, precision=precision)
        return evidence.replace(weights=weights, factor=factor)

    def estimate(
        evidence: Evidence, state: CurriculumState, places: Int[Array, "questions"], key: Key[jax.Array, ""]
    ) -> Estimate:
        features = state.facts.wanted_features[places]
        mean = jax.nn.sigmoid(features @ evidence.weights)
        spread = jnp.sum(solve_triangular(evidence.factor, features.T, lower=True) ** 2, axis=0)
        return Estimate(mean, jnp.minimum(spread * (mean * (1 - mean)) ** 2, mean * (1 - mean)))

    return Estimator(Tracker(init, observe), estimate)


def _added(evidence: Evidence, collected: GroupStatistics, step: Int[Array, ""]) -> Evidence:
    """The ring with the measured groups of a step written over its oldest ones."""
    window = evidence.place.shape[0]
    measured = collected.attempts > 0
    rank = jnp.cumsum(measured) - 1
    total = jnp.sum(measured)
    # Of more groups than fit the last ones stay; others would be written over in an order that is not defined.
    kept = measured & (rank >= total - window)
    index = jnp.where(kept, (evidence.next + rank) % window, window)

    def put(ring: Num[Array, "window"], values: Num[Array, "groups"]) -> Num[Array, "window"]:
        return jnp.asarray(ring).at[index].set(values.astype(ring.dtype), mode="drop")

    return evidence.replace(
        place=put(evidence.place, collected.place),
        successes=put(evidence.successes, collected.successes),
        attempts=put(evidence.attempts, collected.attempts),
        step=put(evidence.step, jnp.broadcast_to(step, measured.shape)),
        next=(evidence.next + total) % window,
    )


def fit(
    features: Float[Array, "window features"],
    rate: Float[Array, "window"],
    weight: Float[Array, "window"],
    start: Float[Array, "features"],
    *,
    precision: float,
) -> tuple[Float[Array, "features"], Float[Array, "features features"]]:
    """Mode of the coefficients and the curvature there, by Newton steps from `start`.

    A whole step overshoots where outcomes are nearly certain, for the curvature is then small, and would diverge.  So
    each step is tried at lengths 1, 1/2, ..., 2^-(LENGTHS - 1) and 0, and the one of highest posterior is taken.

    Args:
        features: of each group's question.
        rate: in [0, 1].
        weight: at least 0.
        start: coefficients.
        precision: of the prior.

    Returns:
        Coefficients, and the lower Cholesky factor of the Hessian of the negative log posterior where the last
        step began.
    """
    lengths = jnp.append(0.5 ** jnp.arange(LENGTHS), 0.0)

    def loss(w: Float[Array, "features"]) -> Float[Array, ""]:
        logits = features @ w
        return jnp.sum(weight * (jax.nn.softplus(logits) - rate * logits)) + precision / 2 * jnp.sum(w**2)

    def newton(
        _: Int[Array, ""], carry: tuple[Float[Array, "features"], Float[Array, "features features"]]
    ) -> tuple[Float[Array, "features"], Float[Array, "features features"]]:
        w = carry[0]
        mean = jax.nn.sigmoid(features @ w)
        hessian = (features * (weight * mean * (1 - mean))[:, None]).T @ features + precision * jnp.eye(w.shape[0])
        factor = jnp.linalg.cholesky(hessian, symmetrize_input=False)
        gradient = features.T @ (weight * (mean - rate)) + precision * w
        tried = w[None] - lengths[:, None] * cho_solve((factor, True), gradient)[None]
        losses = jax.vmap(loss)(tried)
        return tried[jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))], factor

    return jax.lax.fori_loop(0, NEWTON_STEPS, newton, (start, jnp.eye(start.shape[0])))
