"""Rounds: in how many proposals a step's rollouts are asked for.

A choice is a function (state, collected, key, k) -> (places, mask) of questions that have no group in this step.
Each of these turns a choice into a curriculum's `propose`; groups collected earlier in the step decide what follows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Key

from lilo_jax.curriculum.buffers import Ready
from lilo_jax.curriculum.gates import Gate
from lilo_jax.curriculum.selectors import top_k
from lilo_jax.types import Array, CurriculumState, GroupStatistics, Proposal

Choose = Callable[
    [CurriculumState, GroupStatistics, Key[jax.Array, ""], int], tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]
]


class Rounds(NamedTuple):
    """How a step asks.

    Attributes:
        propose: (choose, state, collected, key) -> Proposal.
        most: proposals in one step.
        samples: rollouts that a group can reach.
    """

    propose: Callable[[Choose, CurriculumState, GroupStatistics, Key[jax.Array, ""]], Proposal]
    most: int
    samples: int


def current_round(collected: GroupStatistics) -> Int[Array, ""]:
    """How many rounds have opened groups so far; exact where every round opens at least one."""
    return jnp.max(collected.round, initial=-1) + 1


def once(count: int, samples: int) -> Rounds:
    """One round: `count` questions, `samples` rollouts each."""

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        places, mask = choose(state, collected, key, count)
        return Proposal.opening(places, samples, mask)

    return Rounds(propose, 1, samples)


def allocated(
    count: int,
    most: int,
    allocate: Callable[[CurriculumState, Int[Array, "questions"], Key[jax.Array, ""]], Int[Array, "questions"]],
) -> Rounds:
    """One round: `count` questions, each with rollouts of its own.

    Args:
        count: questions.
        most: rollouts that one can get.
        allocate: (state, places, key) -> rollouts of each.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        choice_key, own = jax.random.split(key)
        places, mask = choose(state, collected, choice_key, count)
        samples = allocate(state, places, own)
        return Proposal.opening(places, samples, mask & (samples > 0))

    return Rounds(propose, 1, most)


def refill(count: int, samples: int, *, gate: Gate, needed: int, most: int) -> Rounds:
    """Rounds of `count` questions until `needed` groups pass the gate (DAPO's dynamic sampling).

    Args:
        count: questions a round.
        samples: rollouts each.
        gate: which groups count.
        needed: how many of them end the step.
        most: rounds at most; the step then trains on what it has.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        passed = jnp.sum(~jnp.isnan(gate(collected)))
        places, mask = choose(state, collected, key, count)
        return Proposal.opening(places, samples, mask & (passed < needed))

    return Rounds(propose, most, samples)


def top_up(count: int, samples: int, *, gate: Gate, needed: int, most: int, later: Choose | None = None) -> Rounds:
    """As `refill`, but every round asks for as many questions as are missing, and no more.

    Args:
        count, samples, gate, needed, most: as `refill`.
        later: the choice of all rounds but the first, if it is another.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        missing = needed - jnp.sum(~jnp.isnan(gate(collected)))
        first_key, later_key = jax.random.split(key)
        places, mask = choose(state, collected, first_key, count)
        if later is not None:
            opened = current_round(collected) > 0
            places, mask = jax.tree.map(
                lambda a, b: jnp.where(opened, a, b), later(state, collected, later_key, count), (places, mask)
            )
        return Proposal.opening(places, samples, mask & (jnp.arange(count) < missing))

    return Rounds(propose, most, samples)


def expecting(first: int, count: int, samples: int, *, gate: Gate, needed: int, most: int, margin: float) -> Rounds:
    """A first round of `first` questions, then rounds of as many as the share that passed so far lets one expect to
    be enough (GRESO's adaptive batch size).

        size = min(count, ceil(margin * missing / share)),  share = passed / groups so far

    Args:
        first: questions of the first round.
        count: questions of a later round, at most; not below `first`.
        samples, gate, needed, most: as `refill`.
        margin: how many more than expected.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        groups, passed = jnp.sum(collected.attempts > 0), jnp.sum(~jnp.isnan(gate(collected)))
        size = jnp.ceil(margin * (needed - passed) * groups / jnp.maximum(passed, 1e-6))
        size = jnp.where(current_round(collected) > 0, size, first)
        places, mask = choose(state, collected, key, count)
        return Proposal.opening(places, samples, mask & (jnp.arange(count) < size) & (passed < needed))

    return Rounds(propose, most, samples)


def screened(
    due: Callable[[CurriculumState], Bool[Array, ""]],
    screen: Choose,
    candidates: int,
    attempts: int,
    *,
    count: int,
    samples: int,
) -> Rounds:
    """One round of `count` questions; where it is due, a round of other questions before it that are only measured.

    Args:
        due: (state) -> whether the step screens.
        screen: which questions it screens.
        candidates, attempts: how many, and the rollouts of each.
        count, samples: questions that are trained on, and the rollouts of each.
    """
    size = max(candidates, count)

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        screen_key, own = jax.random.split(key)
        opened = current_round(collected)
        screening = due(state) & (opened == 0)
        over = opened > due(state)
        chosen = screen(state, collected, screen_key, candidates), choose(state, collected, own, count)
        first, then = jax.tree.map(lambda x: jnp.pad(x, (0, size - x.shape[0])), chosen)
        places, mask = jax.tree.map(lambda a, b: jnp.where(screening, a, b), first, then)
        return Proposal.opening(places, jnp.where(screening, attempts, samples), mask & ~over)

    return Rounds(propose, 2, max(attempts, samples))


def screen_then_continue(candidates: int, screen: int, samples: int, *, gate: Gate, keep: int) -> Rounds:
    """`screen` rollouts for every candidate; those that pass the gate, at most `keep`, go on to `samples` (SPEED).

    Args:
        candidates: questions screened.
        screen: rollouts that screen.
        samples: rollouts of a group that goes on, those of its screening included.
        gate: on the screened groups; of more than `keep` those of highest merit go on.
        keep: groups that go on.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        choice_key, own = jax.random.split(key)
        screened = current_round(collected) > 0
        places, mask = choose(state, collected, choice_key, candidates)
        groups, passed = top_k(gate(collected), own, k=keep)
        groups, passed = jnp.pad(groups, (0, candidates - keep)), jnp.pad(passed, (0, candidates - keep))
        go_on = passed & (collected.rollouts[groups] <= screen)
        return Proposal(
            places=jnp.where(screened, collected.place[groups], places),
            samples=jnp.where(screened, samples - screen, jnp.full(candidates, screen)).astype(jnp.int32),
            mask=jnp.where(screened, go_on, mask),
            continues=jnp.where(screened, groups, -1).astype(jnp.int32),
        )

    return Rounds(propose, 2, samples)


def pilot_then_commit(candidates: int, screen: int, samples: int, *, ready: Ready, count: int, most: int) -> Rounds:
    """`screen_then_continue`, but what passes and finds no place waits for the steps to come (Pilot-Commit).

    The first round screens `candidates`.  The next completes the `count` best of what waits now: a group of this step
    goes on to `samples`, a question of an earlier one is rolled out anew.  Where too few wait, it screens as many more.

    Args:
        candidates: questions screened a round.
        screen: rollouts that screen.
        samples: rollouts of a complete group.
        ready: of `buffers.waiting`.
        count: groups that are completed.
        most: rounds at most; the step then trains on what it has.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        choice_key, own = jax.random.split(key)
        opened = current_round(collected) > 0
        missing = count - jnp.sum(collected.rollouts > screen)
        places, mask = choose(state, collected, choice_key, candidates)
        best, waits = top_k(ready(state, collected), own, k=count)
        completes = waits & opened & (jnp.arange(count) < missing)
        screens = mask & (missing > 0) & ~(opened & (jnp.sum(completes) >= missing))
        own_group = best[:, None] == collected.place[None]
        continues = jnp.where(jnp.any(own_group, axis=1), jnp.argmax(own_group, axis=1), -1).astype(jnp.int32)
        left = jnp.where(continues >= 0, samples - screen, samples).astype(jnp.int32)
        return Proposal(
            places=jnp.concatenate([places, best]),
            samples=jnp.concatenate([jnp.full(candidates, screen, jnp.int32), left]),
            mask=jnp.concatenate([screens, completes]),
            continues=jnp.concatenate([jnp.full(candidates, -1, jnp.int32), continues]),
        )

    return Rounds(propose, most, samples)


def successive(
    count: int,
    first: int,
    more: int,
    *,
    most: int,
    go_on: Callable[[GroupStatistics, Key[jax.Array, ""]], Bool[Array, "groups"]],
) -> Rounds:
    """`first` rollouts for each of `count` questions, then rounds of `more` for those that go on.

    Args:
        count: questions.
        first, more: rollouts of the first round, and of each later one.
        most: rounds in all.
        go_on: (collected, key) -> which groups get more.
    """

    def propose(
        choose: Choose, state: CurriculumState, collected: GroupStatistics, key: Key[jax.Array, ""]
    ) -> Proposal:
        choice_key, own = jax.random.split(key)
        opened = current_round(collected) > 0
        places, mask = choose(state, collected, choice_key, count)
        groups = jnp.arange(count, dtype=jnp.int32)  # groups stand in the order in which they were opened
        wanted = (go_on(collected, own) & (collected.place >= 0))[:count]
        wanted = jnp.pad(wanted, (0, count - wanted.shape[0]))
        known = jnp.pad(collected.place, (0, max(count - collected.place.shape[0], 0)))[:count]
        return Proposal(
            places=jnp.where(opened, known, places),
            samples=jnp.where(opened, more, jnp.full(count, first)).astype(jnp.int32),
            mask=jnp.where(opened, wanted, mask),
            continues=jnp.where(opened, groups, -1),
        )

    return Rounds(propose, most, first + (most - 1) * more)
