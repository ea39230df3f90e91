"""What an algorithm is: a bundle of pure functions."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxtyping import Bool, Float, Int

from lilo_jax.types import Array, Metrics, Minibatch, PyTree, TokenScores, TrainBatch


class FollowUpRequests(NamedTuple):
    """Rollouts that an algorithm wants from inside the completions it is about to train on.

    Attributes:
        wanted: (batch) -> how many more from the state in which each token is chosen.  Asked again, with
            what has been found, until none is.
        most: rollouts that a state can have in all.
    """

    wanted: Callable[[TrainBatch], Int[Array, "rows completion"]]
    most: int


class Algorithm(NamedTuple):
    """A policy-gradient method as pure functions.

    Attributes:
        advantages: (batch) -> (advantages, returns).
        policy_loss: (scores of the new policy, minibatch) -> (loss, metrics).  A weighted sum over tokens.  Its
            metric "policy/ratio", if it has one, is what `UpdateConfig.max_ratio` bounds.
        value_loss: (new values, minibatch) -> (loss, metrics), or None if there is no critic.
        needs_reference: whether `reference_logprobs` must be filled.
        follow_ups: what it asks the sampler for besides, or None.
        init: () -> memory before the first step.
        remember: (batch) -> memory after the step.
        least_samples: rollouts of a question without which it learns nothing: 2 for what compares within groups.
        needs_belief: whether `belief` must be filled, so that the curriculum must have one.
        informative: (batch) -> rows that can have a gradient, from rewards and beliefs alone; None: all may.  A group
            of equal rewards has none where an advantage compares within groups and nothing else is in the loss.

    >>> from lilo_jax.rl.ppo import Ppo
    >>> Ppo().build().needs_values
    True
    """

    advantages: Callable[[TrainBatch], tuple[Float[Array, "rows completion"], Float[Array, "rows completion"]]]
    policy_loss: Callable[[TokenScores, Minibatch], tuple[Float[Array, ""], Metrics]]
    value_loss: Callable[[Float[Array, "rows completion"], Minibatch], tuple[Float[Array, ""], Metrics]] | None = None
    needs_reference: bool = False
    follow_ups: FollowUpRequests | None = None
    init: Callable[[], PyTree] = tuple
    remember: Callable[[TrainBatch], PyTree] = lambda batch: batch.memory
    least_samples: int = 1
    needs_belief: bool = False
    informative: Callable[[TrainBatch], Bool[Array, "rows"]] | None = None

    @property
    def needs_values(self) -> bool:
        """Whether a critic is trained and `old_values` must be filled."""
        return self.value_loss is not None


class AlgorithmSpec(Protocol):
    """A frozen dataclass of an algorithm's settings, with the function that builds it."""

    def build(self) -> Algorithm:
        """Builds the functions."""
        ...
