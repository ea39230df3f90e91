"""What a policy loss has besides its surrogate: each takes scores and minibatch, and gives a scalar and its metrics."""

from collections.abc import Callable

from jaxtyping import Float

from lilo_jax.rl.aggregations import Aggregation
from lilo_jax.rl.losses import kl_k3
from lilo_jax.rl.metrics import divergences
from lilo_jax.types import Array, Mean, Metrics, Minibatch, TokenScores

Penalty = Callable[[TokenScores, Minibatch], tuple[Float[Array, ""], Metrics]]
"""(scores, minibatch) -> (what is added to the loss, metrics)."""


def kl_to_reference(*, coefficient: float, clamp: float, aggregate: Aggregation) -> Penalty:
    """The aggregated k3 divergence from the reference, each token's at most `clamp`, times beta.

    Source: Shao et al. 2024 (GRPO), equation 4 (`sequence_mean`); VinePPO's released code (`sequence_sum`, clamp 10).

    Args:
        coefficient: beta.
        clamp: upper bound of a token's divergence.
        aggregate: divergences of tokens to one number.
    """

    def penalty(scores: TokenScores, batch: Minibatch) -> tuple[Float[Array, ""], Metrics]:
        kl = kl_k3(scores.logprobs, batch.reference_logprobs, clamp=clamp)
        metrics = {"loss/kl_to_reference": Mean.of(kl, batch.mask)}
        metrics |= divergences("reference/kl", scores.logprobs, batch.reference_logprobs, batch.mask)
        return coefficient * aggregate(kl, batch), metrics

    return penalty


def entropy_bonus(*, coefficient: float, aggregate: Aggregation) -> Penalty:
    """Minus c times the aggregated entropy of the token distributions, which rewards staying undecided.

    Source: Schulman et al. 2017 (PPO), equation 9.

    Args:
        coefficient: c.
        aggregate: entropies of tokens to one number.
    """
    return lambda scores, batch: (-coefficient * aggregate(scores.entropy, batch), {})
