"""Questions of a simulated world, as item-response theory has them.

    p_i(theta) = sigmoid(a_i . theta - b_i)          for a clean question
    p_i        = 1/2, whatever theta                 for a coin flip
    p_i        = 0, whatever theta                   for one that nobody solves: no solution, or a wrong key

with ability theta [K], skills a_i [K] and difficulty b_i.  Source: Birnbaum 1968 (two-parameter logistic model), in
its compensatory multidimensional form (Reckase 2009).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Wants
from lilo_jax.keys import stream_key
from lilo_jax.types import Array, Facts

LEVELS = 10
"""Levels of difficulty that a generator is said to have."""


@dataclasses.dataclass(frozen=True)
class WorldSettings:
    """How the questions are drawn."""

    pool_size: int = 6000
    """M: training questions"""
    held_out: int = 2000
    """clean questions on which accuracy is measured"""
    skills: int = 16
    """K"""
    others: float = 2.0
    """expected number of skills that a question asks for beside its dominant one"""
    difficulty: float = 2.5
    """mean of b"""
    spread: float = 2.2
    """standard deviation of b about its mode"""
    gap: float = 0.0
    """distance between the two modes of b; 0: one mode"""
    coin_flips: float = 0.08
    """share of questions whose verdict is a coin flip"""
    unsolvable: float = 0.10
    """share of questions that nobody solves"""
    verdict_noise: float = 0.0
    """probability that a verdict is turned round"""
    length: float = 400.0
    """median tokens of a correct answer to a question of mean difficulty"""
    length_rise: float = 0.6
    """by how much log length rises per standard deviation of b"""
    length_noise: float = 0.4
    """standard deviation of log length between the answers to one question"""
    wrong_length: float = 1.4
    """a wrong answer is so many times longer"""
    skill_noise: float = 0.3
    """of the skills that features show"""
    difficulty_noise: float = 1.0
    """of the difficulty that they show"""


class World(flax.struct.PyTreeNode):
    """Questions.

    Attributes:
        skills: a_i.
        difficulty: b_i.
        coin_flip, unsolvable: which are.
        log_length: log of the median tokens of a correct answer.
        dominant: the skill that a question asks for most.
        shown: noisy skills and difficulty: what features are made of.
    """

    skills: Float[Array, "pool skills"]
    difficulty: Float[Array, "pool"]
    coin_flip: Bool[Array, "pool"]
    unsolvable: Bool[Array, "pool"]
    log_length: Float[Array, "pool"]
    dominant: Int[Array, "pool"]
    shown: Float[Array, "pool shown"]

    def success(self, ability: Float[Array, "skills"]) -> Float[Array, "pool"]:
        """p_i(theta)."""
        p = jax.nn.sigmoid(self.skills @ ability - self.difficulty)
        return jnp.where(self.unsolvable, 0, jnp.where(self.coin_flip, 0.5, p))

    @property
    def clean(self) -> Bool[Array, "pool"]:
        """Questions that teach."""
        return ~(self.coin_flip | self.unsolvable)


def draw_world(key: Key[jax.Array, ""], settings: WorldSettings, count: int) -> World:
    """`count` questions; a function of the key."""
    keys = jax.random.split(key, 10)
    shape = (count, settings.skills)
    dominant = jax.random.randint(keys[0], (count,), 0, settings.skills, dtype=jnp.int32)
    asked = jax.random.uniform(keys[1], shape) < settings.others / max(settings.skills - 1, 1)
    weak = jnp.where(asked, 0.3 * jnp.abs(jax.random.normal(keys[2], shape)), 0)
    strong = jnp.exp(0.2 * jax.random.normal(keys[3], (count, 1)))
    skills = jnp.where(jax.nn.one_hot(dominant, settings.skills, dtype=bool), strong, weak)
    side = jnp.where(jax.random.bernoulli(keys[4], shape=(count,)), 0.5, -0.5)
    centred = settings.gap * side + settings.spread * jax.random.normal(keys[5], (count,))
    difficulty = settings.difficulty + centred
    flaw = jax.random.uniform(keys[6], (count,))
    total_spread = (settings.spread**2 + settings.gap**2 / 4) ** 0.5
    own_length = 0.2 * jax.random.normal(keys[7], (count,))
    return World(
        skills=skills,
        difficulty=difficulty,
        coin_flip=flaw < settings.coin_flips,
        unsolvable=(flaw >= settings.coin_flips) & (flaw < settings.coin_flips + settings.unsolvable),
        log_length=jnp.log(settings.length) + settings.length_rise * centred / total_spread + own_length,
        dominant=dominant,
        shown=jnp.concatenate(
            [
                skills + settings.skill_noise * jax.random.normal(keys[8], shape),
                (difficulty + settings.difficulty_noise * jax.random.normal(keys[9], (count,)))[:, None],
            ],
            axis=1,
        ),
    )


def features(world: World, blocks: tuple[int, ...]) -> Float[Array, "pool features"] | None:
    """What a question shows, through fixed random projections; None without blocks.

    Every block but the last, which is the constant, shows the same in directions of its own, scaled as
    `lilo_jax.curriculum.features.standardized` scales.

    Args:
        world: the questions.
        blocks: widths, `Wants.blocks`.
    """
    if not blocks:
        return None
    shown = _standard(world.shown)
    made = [jnp.ones((shown.shape[0], 1))]
    for i, width in reversed(list(enumerate(blocks[:-1]))):
        projection = jax.random.normal(stream_key(0, "projection", i), (shown.shape[1], width))
        made.insert(0, _standard(shown @ projection) / max(width, 1) ** 0.5)
    return jnp.concatenate(made, axis=1)


def _standard(columns: Float[Array, "pool columns"]) -> Float[Array, "pool columns"]:
    return (columns - jnp.mean(columns, axis=0)[None]) / jnp.maximum(jnp.std(columns, axis=0), 1e-6)[None]


def facts(world: World, wants: Wants, grade: Float[Array, "pool"]) -> Facts:
    """What a curriculum is told before the first step.

    Categories are dominant skills, levels are quantiles of difficulty, text and hidden state show the same.
    """
    rank = jnp.argsort(jnp.argsort(world.difficulty))
    return Facts(
        features=features(world, wants.blocks),
        grade=grade,
        category=world.dominant,
        level=(rank * LEVELS // rank.shape[0]).astype(jnp.int32),
    )
