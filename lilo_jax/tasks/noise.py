"""Flaws planted into training questions, to see what a curriculum makes of them; held-out questions stay clean.

A question with a wrong key is graded against another question's answer.  A coin-flip question is correct half of the
time, whatever is answered: its p(1 - p) is as high as can be, for ever, and there is nothing to learn.  Label noise
turns any verdict round at a given rate.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lilo_jax.bounds import Share
from lilo_jax.errors import UsageError
from lilo_jax.questions import Question, Verdict

WRONG_KEY, COIN_FLIP = "wrong_key", "coin_flip"
ROLLOUT, FOLLOW_UP, GRADE, AUDIT = 0, 1, 2, 3
"""Which phase of a step a draw of noise belongs to."""
_STREAM = 0x6E6F6973


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """How many training questions are flawed; none as it stands."""

    wrong_keys: Share = 0.0
    """share of training questions with another question's answer as their gold one"""
    coin_flips: Share = 0.0
    """share of training questions whose verdict is a fair coin's"""
    label_noise: Share = 0.0
    """rate at which a training verdict is turned round, correct to wrong and back"""

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))


def plant(questions: Sequence[Question], noise: NoiseConfig, seed: int) -> list[Question]:
    """The questions with the flaws that a share of them is given, which `Question.trap` names.

    Args:
        questions: of the training pool.
        noise: which shares.
        seed: decides which questions.

    Raises:
        UsageError: the shares are more than 1 together, or no other answer can be had.
    """
    if noise.wrong_keys + noise.coin_flips > 1:
        raise UsageError("--noise.wrong-keys and --noise.coin-flips together must be at most 1")
    planted, rng = list(questions), np.random.default_rng([seed, _STREAM])
    order = rng.permutation(len(planted))
    keys, coins = (round(share * len(planted)) for share in (noise.wrong_keys, noise.coin_flips))
    for i in order[:keys]:
        others = [q for q in questions if q.answer != questions[i].answer]
        if not others:
            raise UsageError("--noise.wrong-keys needs questions with different answers")
        other = others[int(rng.integers(len(others)))]
        planted[i] = dataclasses.replace(planted[i], answer=other.answer, solution=other.solution, trap=WRONG_KEY)
    for i in order[keys : keys + coins]:
        planted[i] = dataclasses.replace(planted[i], trap=COIN_FLIP)
    return planted


def disturbed(verdict: Verdict, question: Question, noise: NoiseConfig, draw: Sequence[int]) -> Verdict:
    """The verdict that training sees; a failure of the grader stays one.

    Args:
        verdict: of the grader.
        question: as planted.
        noise: how much.
        draw: numbers that name this rollout's random numbers: seed, step, phase, request.
    """
    if not noise or verdict.is_failure:
        return verdict
    coin, flip = np.random.default_rng([*draw, _STREAM]).random(2)
    if question.trap == COIN_FLIP:
        verdict = Verdict.CORRECT if coin < 0.5 else Verdict.WRONG
    if flip < noise.label_noise:
        verdict = Verdict.WRONG if verdict is Verdict.CORRECT else Verdict.CORRECT
    return verdict
