"""A simulated run: a student, a curriculum, steps and evaluations; a function of its seed."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.statistics import is_mixed
from lilo_jax.keys import stream_key
from lilo_jax.simulation.rollouts import Answers, Groups, answers, collect, measured
from lilo_jax.simulation.student import StudentSettings, leave_one_out, policy_gradient
from lilo_jax.simulation.world import World, WorldSettings, draw_world, facts
from lilo_jax.types import Array, CurriculumState, GroupSignals, GroupStatistics, PyTree


@dataclasses.dataclass(frozen=True)
class Privileges:
    """What only a simulator can grant a rule, for arms that say how much there is to be had."""

    knows_flaws: bool = False
    """flawed questions have success rate 0 for a rule that wants the truth"""
    free_screening: bool = False
    """only tokens that are trained on are counted"""
    shuffled_features: bool = False
    """every question has the features of another"""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything of a run but its curriculum and its seed."""

    world: WorldSettings = WorldSettings()
    student: StudentSettings = StudentSettings()
    privileges: Privileges = Privileges()
    steps: int = 300
    every: int = 10
    """steps between evaluations; divides `steps`"""


class StepRecord(flax.struct.PyTreeNode):
    """What one step cost and looked like.

    Attributes:
        generated: tokens of all rollouts, rejected ones included.
        trained: tokens of those trained on.
        collected, collected_flat: groups rolled out, and those of them without variance.
        groups, flat, coin_flips: groups trained on, those without variance, those of a coin flip.
    """

    generated: Float[Array, "*steps"]
    trained: Float[Array, "*steps"]
    collected: Float[Array, "*steps"]
    collected_flat: Float[Array, "*steps"]
    groups: Float[Array, "*steps"]
    flat: Float[Array, "*steps"]
    coin_flips: Float[Array, "*steps"]


class Trace(flax.struct.PyTreeNode):
    """A run.

    Attributes:
        accuracy: mean p of held-out questions, at the start and every so many steps.
        steps: a record of each.
        graded: tokens that measured the starting student.
    """

    accuracy: Float[Array, "evaluations"]
    steps: StepRecord
    graded: Float[Array, ""]


class _Learner(flax.struct.PyTreeNode):
    """What a step changes.

    Attributes:
        ability: theta.
        optimizer: its state.
        curriculum: the rule's.
    """

    ability: Float[Array, "skills"]
    optimizer: PyTree
    curriculum: CurriculumState


def simulate(seed: Int[Array, ""], *, curriculum: Curriculum, settings: RunSettings) -> Trace:
    """One run.  Runs of a seed share world and start whatever the rule, so that they can be compared in pairs."""
    world = draw_world(stream_key(seed, "world"), settings.world, settings.world.pool_size)
    flawless = dataclasses.replace(settings.world, coin_flips=0.0, unsolvable=0.0)
    held_out = draw_world(stream_key(seed, "held out"), flawless, settings.world.held_out)
    learner, graded = _start(seed, curriculum, world, settings)

    def steps(learner: _Learner, first: Int[jax.Array, ""]) -> tuple[_Learner, tuple[StepRecord, Float[Array, ""]]]:
        def one(learner: _Learner, step: Int[jax.Array, ""]) -> tuple[_Learner, StepRecord]:
            return _step(learner, step, stream_key(seed, "step", step), curriculum, world, settings)

        learner, records = jax.lax.scan(one, learner, first + jnp.arange(settings.every))
        return learner, (records, jnp.mean(held_out.success(learner.ability)))

    before = jnp.mean(held_out.success(learner.ability))
    _, (records, after) = jax.lax.scan(steps, learner, jnp.arange(0, settings.steps, settings.every))
    return Trace(
        accuracy=jnp.concatenate([before[None], after]),
        steps=jax.tree.map(lambda x: x.reshape(-1), records),
        graded=graded,
    )


def _start(
    seed: Int[Array, ""], curriculum: Curriculum, world: World, settings: RunSettings
) -> tuple[_Learner, Float[Array, ""]]:
    """The learner before the first step, and what grading cost."""
    ability = jnp.full(settings.world.skills, settings.student.ability)
    grade: Array = jnp.full(world.difficulty.shape, jnp.nan)
    cost = jnp.float32(0)
    if wanted := curriculum.wants.grade:
        everyone = jnp.arange(world.difficulty.shape[0], dtype=jnp.int32)
        groups = Groups(everyone, jnp.zeros_like(everyone), jnp.full_like(everyone, wanted))
        key = stream_key(seed, "grade")
        statistics = measured(groups, answers(groups, world, world.success(ability), key, settings.world, wanted))
        grade, cost = statistics.successes / wanted, jnp.sum(statistics.length_sum)
    known = facts(world, curriculum.wants, grade)
    if settings.privileges.shuffled_features:
        known = known.replace(features=jax.random.permutation(stream_key(seed, "shuffle"), known.wanted_features))
    return _Learner(ability, settings.student.build().init(ability), curriculum.init(known)), cost


def _step(
    learner: _Learner,
    step: Int[Array, ""],
    key: Key[jax.Array, ""],
    curriculum: Curriculum,
    world: World,
    settings: RunSettings,
) -> tuple[_Learner, StepRecord]:
    """Collect, admit, observe, learn, feed back: the order of `lilo_jax.training.trainer`."""
    collect_key, admit_key, noise_key = jax.random.split(key, 3)
    success = world.success(learner.ability)
    state = learner.curriculum
    if curriculum.wants.truth:
        known = jnp.where(world.clean, success, 0) if settings.privileges.knows_flaws else success
        state = state.replace(facts=state.facts.replace(grade=known))
    collected, given = collect(curriculum, state, world, success, collect_key, settings.world)
    admission = curriculum.admit(state, collected, admit_key)
    state = curriculum.observe(state, collected, step)

    trained = jax.tree.map(lambda x: x[admission.indices], given)
    trained = jax.tree.map(lambda x: jnp.where(admission.mask[:, None], x, 0).astype(x.dtype), trained)
    place = jnp.where(admission.mask, collected.place[admission.indices], -1)
    advantages = leave_one_out(trained)
    gradient = policy_gradient(trained, advantages, place, world, success, noise_key, settings.student.gradient_noise)
    change, optimizer = settings.student.build().update(-gradient, learner.optimizer)
    signals = _signals(trained, advantages, success[jnp.maximum(place, 0)])
    state = curriculum.feedback(state, place, admission.mask, signals, step)
    learner = _Learner(optax.apply_updates(learner.ability, change), optimizer, state)
    return learner, _record(collected, trained, place, advantages, world, settings.privileges)


def _signals(
    trained: Answers, advantages: Float[Array, "trained rollouts"], success: Float[Array, "trained"]
) -> GroupSignals:
    """Means over tokens, as `lilo_jax.curriculum.statistics.group_signals` has them; the critic is one that knows p."""
    tokens = jnp.maximum(jnp.sum(trained.length, axis=1), 1)
    error = (trained.reward - success[:, None]) ** 2
    return GroupSignals(
        advantage_abs=jnp.sum(jnp.abs(advantages) * trained.length, axis=1) / tokens,
        value_loss=jnp.sum(error * trained.length, axis=1) / tokens,
    )


def _record(
    collected: GroupStatistics,
    trained: Answers,
    place: Int[Array, "trained"],
    advantages: Float[Array, "trained rollouts"],
    world: World,
    privileges: Privileges,
) -> StepRecord:
    tokens, live = jnp.sum(trained.length), jnp.any(trained.live, axis=1)

    def count(where: Bool[Array, "*groups"]) -> Float[Array, ""]:
        return jnp.sum(where, dtype=jnp.float32)

    return StepRecord(
        generated=tokens if privileges.free_screening else jnp.sum(collected.length_sum),
        trained=tokens,
        collected=count(collected.attempts > 0),
        collected_flat=count((collected.attempts > 0) & ~is_mixed(collected)),
        groups=count(live),
        flat=count(live & jnp.all(advantages == 0, axis=1)),
        coin_flips=count(live & world.coin_flip[jnp.maximum(place, 0)]),
    )
