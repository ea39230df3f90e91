"""A detector of traps: questions whose outcome says nothing of the answer, or that nothing can answer.

A coin-flip grader has p = 1/2 for ever, the most attractive value for every rule that looks for p(1 - p), and teaches
nothing; a wrong key has p = 0 whatever its text promises.  For every question three explanations of its groups are
weighed, each group of n rollouts with s successes at a time:

    clean   s ~ BetaBinomial(n, nu m, nu (1 - m)),  m what its features predicted just before
    coin    s ~ Binomial(n, 1/2)
    dead    s ~ Binomial(n, epsilon)

A clean question may well be at 1/2 once, but then it moves, or its features say so: evidence for `coin` adds up only
over visits at 1/2 that are not explained (many attempts, no drift, a residual).  Failures of the grader count apart.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.special import expit, xlog1py, xlogy
from jaxtyping import Float, Int

from lilo_jax.curriculum.contract import Belief
from lilo_jax.curriculum.estimators import Tracker, log_beta_binomial
from lilo_jax.types import Array, CurriculumState, GroupStatistics

EPSILON = 0.01
"""Success rate of a question that nothing can answer: a grader errs now and then."""
LEAST_RATE = 0.02
"""Predictions are held this far from 0 and 1: no surprise is proof."""
FADE = 0.99
"""What stays of the evidence with every step that passes: what nothing could answer, a better policy may."""


class Suspicion(flax.struct.PyTreeNode):
    """Evidence against questions.

    Attributes:
        coin, dead: log-likelihood of either explanation over that of `clean`, summed over groups, as of
            the question's last visit.
    """

    coin: Float[Array, "pool"]
    dead: Float[Array, "pool"]


def trap_detector(predicted: Belief, *, strength: float = 4.0, fade: float = FADE) -> Tracker:
    """Weighs every group against what was predicted of it.

    Args:
        predicted: its mean is m, what the features say of the success rate; no key is consumed.
        strength: nu, how many rollouts the prediction is worth.
        fade: what stays of the evidence with every step that passes.
    """

    def init(pool_size: int) -> Suspicion:
        zeros = jnp.zeros(pool_size, jnp.float32)
        return Suspicion(zeros, zeros)

    def observe(
        memory: Suspicion, state: CurriculumState, collected: GroupStatistics, step: Int[Array, ""]
    ) -> Suspicion:
        # Groups without a verdict count as visits too: they add nothing, but what there was must fade up to them.
        index = jnp.where(collected.place >= 0, collected.place, memory.coin.shape[0])
        place = jnp.maximum(collected.place, 0)
        rate = predicted(state, place, jax.random.key(0)).mean
        passed = (step - state.last_seen[place]).astype(jnp.float32)
        ratios = log_ratios(collected.successes, collected.attempts, rate, strength=strength)

        def add(evidence: Float[Array, "pool"], ratio: Float[Array, "groups"]) -> Float[Array, "pool"]:
            faded = evidence[place] * fade**passed
            return jnp.asarray(evidence).at[index].set(faded, mode="drop").at[index].add(ratio, mode="drop")

        return Suspicion(*map(add, (memory.coin, memory.dead), ratios))

    return Tracker(init, observe)


def log_ratios(
    successes: Float[Array, "groups"],
    attempts: Float[Array, "groups"],
    rate: Float[Array, "groups"],
    *,
    strength: float,
) -> tuple[Float[Array, "groups"], Float[Array, "groups"]]:
    """Log-likelihood ratios of `coin` and of `dead` over `clean`; binomial coefficients cancel.

        clean: log B(s + nu m, n - s + nu (1 - m)) - log B(nu m, nu (1 - m)),  B the beta function

    Args:
        successes, attempts: s and n.
        rate: m, held within `LEAST_RATE` of 0 and 1.
        strength: nu.
    """
    rate = jnp.clip(rate, LEAST_RATE, 1 - LEAST_RATE)
    a, b = strength * rate, strength * (1 - rate)
    failures = attempts - successes
    clean = log_beta_binomial(successes, failures, a, b)
    coin = -attempts * jnp.log(2.0)
    dead = xlogy(successes, EPSILON) + xlog1py(failures, -EPSILON)
    return coin - clean, dead - clean


def trap_probability(
    memory: Suspicion,
    state: CurriculumState,
    places: Int[Array, "questions"],
    *,
    prior: float = 0.05,
    fade: float = FADE,
) -> Float[Array, "questions"]:
    """Probability that a question is a trap of either kind, or that its grader fails.

        1 - (1 - q) (graded rollouts + 1) / (rollouts + 1)
        q = sigmoid(log(prior / (1 - prior)) + log((e^coin + e^dead) / 2))

    A wrong key is told from a question that is still too hard by what was predicted: where the features promise success
    and nothing answers, `dead` explains more than `clean`; where they promise none, as much.

    Args:
        memory: evidence.
        state: for the lifetime counts of rollouts and of those that were graded.
        places: of the questions.
        prior: share of traps expected in the pool, in [0, 1).
        fade: as in `trap_detector`.
    """
    passed = (state.step - state.last_seen[places]).astype(jnp.float32)
    coin, dead = (evidence[places] * fade**passed for evidence in (memory.coin, memory.dead))
    either = jnp.logaddexp(coin, dead) - jnp.log(2.0)
    graded = (state.attempts[places] + 1) / (state.rollouts[places] + 1)
    return 1 - (1 - expit(jnp.log(prior / (1 - prior)) + either)) * graded
