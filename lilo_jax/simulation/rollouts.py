"""Answers of a simulated student, served to a curriculum as `lilo_jax.training.collection` serves those of a model.

The random numbers of an answer belong to its place: group and number within the group.  A group that is continued in a
later round therefore keeps what it has, and its statistics are a function of the places that are filled.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.simulation.world import World, WorldSettings
from lilo_jax.types import Array, CurriculumState, GroupStatistics, Proposal


class Groups(flax.struct.PyTreeNode):
    """What has been asked in a step.

    Attributes:
        place, round: -1 in an empty entry.
        rollouts: of each.
    """

    place: Int[Array, "groups"]
    round: Int[Array, "groups"]
    rollouts: Int[Array, "groups"]

    @classmethod
    def none(cls, size: int) -> "Groups":
        """Empty entries."""
        empty = jnp.full(size, -1, jnp.int32)
        return cls(place=empty, round=empty, rollouts=jnp.zeros(size, jnp.int32))


class Answers(flax.struct.PyTreeNode):
    """Rollouts by place.

    Attributes:
        live: places that are filled.
        correct: what the student did.
        reward: what the verifier made of it; 0 where not live.
        length: tokens; 0 where not live.
    """

    live: Bool[Array, "groups rollouts"]
    correct: Bool[Array, "groups rollouts"]
    reward: Float[Array, "groups rollouts"]
    length: Float[Array, "groups rollouts"]


def answers(
    groups: Groups,
    world: World,
    success: Float[Array, "pool"],
    key: Key[jax.Array, ""],
    settings: WorldSettings,
    samples: int,
) -> Answers:
    """The answers at all filled places.

    Args:
        groups: K of them.
        world: the questions.
        success: p_i of the student.
        key: of the step: the same place gets the same answer from the same key.
        settings: noise of verdicts and lengths.
        samples: G, static, places of a group.
    """
    outcome_key, verdict_key, length_key = jax.random.split(key, 3)
    shape = (groups.place.shape[0], samples)
    index = jnp.maximum(groups.place, 0)
    live = jnp.arange(samples)[None] < groups.rollouts[:, None]
    correct = jax.random.uniform(outcome_key, shape) < success[index][:, None]
    verdict = correct
    if settings.verdict_noise:
        verdict = correct ^ (jax.random.uniform(verdict_key, shape) < settings.verdict_noise)
    log_length = world.log_length[index][:, None] + settings.length_noise * jax.random.normal(length_key, shape)
    length = jnp.ceil(jnp.exp(log_length) * jnp.where(correct, 1, settings.wrong_length))
    return Answers(
        live=live, correct=correct, reward=jnp.where(live & verdict, 1.0, 0.0), length=jnp.where(live, length, 0)
    )


def measured(groups: Groups, given: Answers) -> GroupStatistics:
    """Statistics of the groups so far."""
    successes, rollouts = jnp.sum(given.reward, axis=1), groups.rollouts.astype(jnp.float32)
    return GroupStatistics(
        place=groups.place,
        round=groups.round,
        attempts=rollouts,
        successes=successes,
        reward_sum=successes,
        length_sum=jnp.sum(given.length, axis=1),
        rollouts=rollouts,
    )


def served(groups: Groups, proposal: Proposal, round: Int[Array, ""], samples: int) -> Groups:
    """The groups after a proposal: opened ones take the next free entries, in its order."""
    size = groups.place.shape[0]
    opens = proposal.mask & (proposal.continues < 0)
    first_free = jnp.sum(groups.place >= 0)
    group = jnp.where(opens, first_free + jnp.cumsum(opens) - 1, proposal.continues)
    group = jnp.where(proposal.mask, group, size)  # out of range: dropped
    return Groups(
        place=jnp.asarray(groups.place).at[group].set(proposal.places, mode="drop"),
        round=jnp.asarray(groups.round).at[jnp.where(opens, group, size)].set(round, mode="drop"),
        rollouts=jnp.minimum(jnp.asarray(groups.rollouts).at[group].add(proposal.samples, mode="drop"), samples),
    )


def collect(
    curriculum: Curriculum,
    state: CurriculumState,
    world: World,
    success: Float[Array, "pool"],
    key: Key[jax.Array, ""],
    settings: WorldSettings,
) -> tuple[GroupStatistics, Answers]:
    """Serves a curriculum's proposals for one step, until one is empty or all its rounds are used."""
    propose_key, answer_key = jax.random.split(key)
    samples = curriculum.max_samples
    width = jax.eval_shape(
        curriculum.propose, state, measured(Groups.none(1), _no_answers(1, samples)), key
    ).places.shape

    def seen(groups: Groups) -> tuple[GroupStatistics, Answers]:
        given = answers(groups, world, success, answer_key, settings, samples)
        return measured(groups, given), given

    def serve(carry: tuple[Groups, Int[Array, ""], Bool[Array, ""]]) -> tuple[Groups, Int[Array, ""], Bool[Array, ""]]:
        groups, round, _ = carry
        proposal = curriculum.propose(state, seen(groups)[0], jax.random.fold_in(propose_key, round))
        return served(groups, proposal, round, samples), round + 1, jnp.any(proposal.mask)

    def goes_on(carry: tuple[Groups, Int[Array, ""], Bool[Array, ""]]) -> Bool[Array, ""]:
        return (carry[1] < curriculum.max_rounds) & carry[2]

    start = (Groups.none(width[0] * curriculum.max_rounds), jnp.int32(0), jnp.bool_(True))
    groups, _, _ = serve(start) if curriculum.max_rounds == 1 else jax.lax.while_loop(goes_on, serve, start)
    return seen(groups)


def _no_answers(size: int, samples: int) -> Answers:
    zeros = jnp.zeros((size, samples))
    return Answers(live=zeros > 0, correct=zeros > 0, reward=zeros, length=zeros)
