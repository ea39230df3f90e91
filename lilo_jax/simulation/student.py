"""How a simulated student learns: the policy gradient of a logistic answerer, and an optimiser.

    g = (1 / N) sum over trained rollouts ij of  A_ij [ (y_ij - p_i) a_i + sigma e_ij ]

with y_ij whether the answer was right, A_ij = r_ij - mean of the group's other rewards (RLOO), N rollouts, and
e_ij ~ N(0, I_K): the part of a rollout's score function that has nothing to do with the question, which is most of it
in a network.  (y - p) a is the gradient of log sigmoid; flawed questions have none.  Without noise of the verdicts
E[g_i] = p_i (1 - p_i) a_i: groups at p = 1/2 teach most, which is LILO's premise.

Sources: Williams 1992; Kool et al. 2019 (leave-one-out baseline).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Key

from lilo_jax.simulation.rollouts import Answers
from lilo_jax.simulation.world import World
from lilo_jax.types import Array


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """A student and its optimiser."""

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.32
    gradient_noise: float = 8.0
    """sigma"""
    ability: float = 0.0
    """theta at the start, in every skill"""

    def build(self) -> optax.GradientTransformation:
        """The optimiser, which descends: it is given the negative of g."""
        return {"adam": optax.adam, "sgd": optax.sgd}[self.optimizer](self.learning_rate)


def leave_one_out(given: Answers) -> Float[Array, "groups rollouts"]:
    """A_ij = r_ij - mean of the others = n (r_ij - mean_i) / (n - 1); 0 for a group of one."""
    count = jnp.sum(given.live, axis=1, keepdims=True)
    mean = jnp.sum(given.reward, axis=1, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(given.live, (given.reward - mean) * count / jnp.maximum(count - 1, 1), 0)


def policy_gradient(
    given: Answers,
    advantages: Float[Array, "trained rollouts"],
    place: Int[Array, "trained"],
    world: World,
    success: Float[Array, "pool"],
    key: Key[jax.Array, ""],
    noise: float,
) -> Float[Array, "skills"]:
    """The gradient g of the trained groups; see the head of this file.

    Args:
        given: answers; a group that is not trained on has none that is live.
        advantages: 0 where not live.
        place: of each group's question.
        world, success: the questions, and p_i of the student.
        key: of the noise.
        noise: sigma.
    """
    index = jnp.maximum(place, 0)
    surprise = jnp.where(world.clean[index][:, None], given.correct - success[index][:, None], 0)
    signal = jnp.sum(advantages * surprise, axis=1) @ world.skills[index]
    size = jnp.sqrt(jnp.sum(advantages**2))  # of a sum of independent normal vectors
    noisy = signal + noise * size * jax.random.normal(key, signal.shape)
    return noisy / jnp.maximum(jnp.sum(given.live), 1)
