"""Baselines that a belief about the question gives, so that a rollout need not have others beside it.

    A_i = r_i - b_i,    b_i from what was believed before the group was rolled out, and from its *other* rollouts alone

so b_i does not depend on rollout i, and the policy gradient keeps its expectation; the nearer b_i is to the question's
success rate, the less it varies.  A belief of mean m and variance v counts like n = m (1 - m) / v - 1 rollouts, of
which n m were right: Beta(n m, n (1 - m)) has this mean and variance.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Float

from lilo_jax.curriculum.estimators import log_beta_binomial, rollouts_known
from lilo_jax.rl.advantages import group_means
from lilo_jax.rl.policy_gradient import ResponseAdvantage
from lilo_jax.types import Array, Estimate, TrainBatch

LEAST_DEVIATION = 0.1
"""Of an outcome, where rewards are divided by it: that of a success rate of 1%."""
LEAST_COUNT = 1e-3
"""Of a and b, which a Beta distribution wants above 0."""
MOST_ROLLOUTS = 1e6
"""What a belief counts that is held for certain."""

Baseline = Callable[[TrainBatch], Float[Array, "rows"]]
"""(batch) -> b of each row; NaN where there is nothing to compare with."""


def believed(batch: TrainBatch) -> Float[Array, "rows"]:
    """b_i = m: what was believed of the question, however many rollouts stand beside (SPO, arXiv:2509.13232)."""
    return _of_questions(batch)[0]


def posterior(batch: TrainBatch) -> Float[Array, "rows"]:
    """The belief and the group's other rollouts, each weighted by what it knows.

        b_i = (n m + sum_{j != i} r_j) / (n + G - 1)

    It is the posterior mean for outcomes of 0 and 1; with n = 0 the baseline of `leave_one_out`, and with G = 1
    `believed`.
    """
    mean, weight = _of_questions(batch)
    total, count = _others(batch)
    known = weight + count
    return jnp.where(known > 0, (weight * jnp.nan_to_num(mean) + total) / jnp.maximum(known, 1e-9), jnp.nan)


def less(baseline: Baseline) -> ResponseAdvantage:
    """A_i = r_i - b_i; zero for masked rows, and for rows that have nothing to be compared with."""

    def advantage(batch: TrainBatch) -> Float[Array, "rows"]:
        difference = batch.reward - baseline(batch)
        return jnp.where(batch.row_mask & ~jnp.isnan(difference), difference, 0)

    return advantage


def standardized(baseline: Baseline) -> ResponseAdvantage:
    """A_i = (r_i - b_i) / sqrt(b_i (1 - b_i)): GRPO's, by what is expected instead of what the group happened to be.

    The deviation is at least `LEAST_DEVIATION`.
    """

    def advantage(batch: TrainBatch) -> Float[Array, "rows"]:
        rate = jnp.clip(baseline(batch), 0, 1)
        deviation = jnp.maximum(jnp.sqrt(rate * (1 - rate)), LEAST_DEVIATION)
        return less(lambda _: rate)(batch) / jnp.where(jnp.isnan(deviation), 1, deviation)

    return advantage


def marginal(*, epsilon: float) -> ResponseAdvantage:
    """GRPO's advantage, averaged over what the rest of the group might have been.

        A_i = sum_k P(k) (r_i - (k + r_i) / G) / (std(k, r_i) + epsilon),   k ~ BetaBinomial(G - 1, a, b)

    k of the other G - 1 rollouts are right, std is the unbiased deviation of the G outcomes, and a, b are n m and
    n (1 - m) with the group's *other* outcomes added.  So two groups of one question do not value the same answer
    differently because of their luck.

    Args:
        epsilon: added to the standard deviation, as in `group_normalized`.

    Source: MaPP (arXiv:2609.34990), its marginalised advantage, for outcomes of 0 and 1.
    """

    def advantage(batch: TrainBatch) -> Float[Array, "rows"]:
        mean, weight = _of_questions(batch)
        total, count = _others(batch)
        mean = jnp.where(jnp.isnan(mean), 0.5, mean)
        right = jnp.maximum(weight * mean + total, LEAST_COUNT)
        wrong = jnp.maximum(weight * (1 - mean) + count - total, LEAST_COUNT)
        others = jnp.arange(batch.row_mask.shape[0], dtype=jnp.float32)[:, None]  # no group is larger than the batch
        n = count[None]
        k = jnp.minimum(others, n)
        ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        share = jnp.exp(ways + log_beta_binomial(k, n - k, right[None], wrong[None]))
        value = _standard_score(batch.reward[None], others, n + 1, epsilon)
        found = jnp.sum(jnp.where(others <= n, share * value, 0), axis=0)
        return jnp.where(batch.row_mask & (count > 0), found, 0)

    return advantage


def _standard_score(
    reward: Float[Array, "1 rows"], right: Float[Array, "others 1"], size: Float[Array, "1 rows"], epsilon: float
) -> Float[Array, "others rows"]:
    """(r - mean) / (std + epsilon) of an outcome in a group of `size`, of whose others `right` are right."""
    mean = (right + reward) / size
    square = (right + reward**2) / size
    variance = jnp.maximum(square - mean**2, 0) * size / jnp.maximum(size - 1, 1)
    return (reward - mean) / (jnp.sqrt(variance) + epsilon)


def _of_questions(batch: TrainBatch) -> tuple[Float[Array, "rows"], Float[Array, "rows"]]:
    """Believed mean of each row's question, NaN where nothing is believed, and how many rollouts it counts like."""
    assert batch.belief is not None, "the algorithm reads a belief that it does not ask for"
    belief = Estimate(*(x[batch.group] for x in batch.belief))
    return belief.mean, jnp.nan_to_num(rollouts_known(belief, least=0, most=MOST_ROLLOUTS))


def _others(batch: TrainBatch) -> tuple[Float[Array, "rows"], Float[Array, "rows"]]:
    """Sum of the rewards of a row's group without its own, and how many they are; live rows alone."""
    mean, count = group_means(batch.reward, batch.group, batch.row_mask, num_groups=batch.place.shape[0])
    return mean * count - jnp.where(batch.row_mask, batch.reward, 0), count - batch.row_mask
