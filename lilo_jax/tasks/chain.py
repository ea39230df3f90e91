"""A generated task on which the choice of questions matters: chains of digit operations, most too easy or too hard.

A state is a digit.  Verb k of ten (letters a to j) maps x to (x + SHIFTS[k]) mod 10.  A prompt is a start digit, the
verbs, filler to a fixed width, and "="; the answer is the state after every verb.  A response is correct iff it is
exactly the answer, so p(success) is the product of the probabilities of its steps and the pool is bimodal.

Demonstrations are deliberately noisy: verbs 0-3 are always shown right, verb k >= 4 with probability
`RELIABILITY[k]` and else with a fixed wrong shift.  A model fine-tuned on them has latent skills of graded strength,
as a pre-trained model has; reinforcement learning sharpens them.  Questions of level j contain verb j and verbs below
it, so a level opens only when the lower ones are sharp: the frontier moves outward.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from lilo_jax.bounds import Generated
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.tasks.steps import every_character

SHIFTS = (1, 3, 7, 9, 2, 4, 6, 8, 5, 0)
VERBS = "abcdefghij"
FIRST_HARD_VERB = 4
RELIABILITY = {4: 0.60, 5: 0.42, 6: 0.30, 7: 0.20, 8: 0.12, 9: 0.06}
WRONG_SHIFTS = {4: 5, 5: 1, 6: 3, 7: 6, 8: 7, 9: 8}
EASY_SHARE = 0.45
MAX_VERBS = 10
LONGER_VERBS = (11, 14)
WIDTH = LONGER_VERBS[1]
FILLER = "."
EVALUATION_SEED = 20_250_219


@dataclasses.dataclass(frozen=True)
class Chain:
    """Sizes of the generated sets."""

    pool: Generated = 2000
    """training questions, drawn anew for every seed"""
    validation: Generated = 512
    """validation questions, the same for all seeds"""
    test: Generated = 1024
    """test questions, the same for all seeds"""
    longer: Generated = 256
    """out-of-distribution questions with 11 to 14 verbs, the same for all seeds"""
    demonstrations: Generated = 20_000
    """noisy examples for supervised fine-tuning, drawn anew for every seed"""

    def build(self, seed: int) -> Task:
        """Generates the sets: no prompt occurs twice within or across them."""
        taken: set[str] = set()
        shared, own = np.random.default_rng(EVALUATION_SEED), np.random.default_rng([EVALUATION_SEED, seed])
        splits = {
            "test": distinct(self.test, shared, _mixture, taken),
            "validation": distinct(self.validation, shared, _mixture, taken),
            "longer": distinct(self.longer, shared, _long, taken),
            "train": distinct(self.pool, own, _mixture, taken),
        }
        demonstrations = [_demonstration(own) for _ in range(self.demonstrations)]
        return Task(splits, demonstrations, grade, unique_answers=True, steps=every_character)


def grade(question: Question, response: str) -> Verdict:
    """Correct iff the response is the answer, character for character."""
    if not response:
        return Verdict.NO_ANSWER
    return Verdict.CORRECT if response == question.answer else Verdict.WRONG


def solve(start: int, verbs: list[int], shifts: tuple[int, ...] = SHIFTS) -> str:
    """The states after each verb, as a string of digits."""
    states, state = [], start
    for verb in verbs:
        state = (state + shifts[verb]) % 10
        states.append(str(state))
    return "".join(states)


def render(start: int, verbs: list[int]) -> str:
    """The prompt: start digit, verbs, filler up to a fixed width, "="."""
    return f"{start}{''.join(VERBS[verb] for verb in verbs):{FILLER}<{WIDTH}}="


def _question(start: int, verbs: list[int]) -> Question:
    level = max(max(verbs), FIRST_HARD_VERB - 1)
    return Question(prompt=render(start, verbs), answer=solve(start, verbs), difficulty=level)


def _mixture(rng: np.random.Generator) -> Question:
    """45% easy draws (verbs 0-3, length 1-8), 55% of a level uniform in 4..9 (length 6-10).

    Dropping repeated prompts thins out the short easy ones: about 38% of a pool are easy.
    """
    start = int(rng.integers(10))
    if rng.random() < EASY_SHARE:
        return _question(start, rng.integers(FIRST_HARD_VERB, size=rng.integers(1, 9)).tolist())
    return _question(start, _hard_verbs(rng, length=int(rng.integers(6, MAX_VERBS + 1))))


def _long(rng: np.random.Generator) -> Question:
    length = int(rng.integers(LONGER_VERBS[0], LONGER_VERBS[1] + 1))
    return _question(int(rng.integers(10)), _hard_verbs(rng, length))


def _hard_verbs(rng: np.random.Generator, length: int) -> list[int]:
    """1 to 6 positions hold the level's verb, the others any verb below it."""
    level = int(rng.integers(FIRST_HARD_VERB, len(VERBS)))
    verbs = rng.integers(level, size=length)
    verbs[rng.choice(length, size=rng.integers(1, 7), replace=False)] = level
    return verbs.tolist()


def distinct(
    count: int, rng: np.random.Generator, make: Callable[[np.random.Generator], Question], taken: set[str]
) -> list[Question]:
    """`count` questions whose prompts are not in `taken`, to which they are added."""
    questions: list[Question] = []
    while len(questions) < count:
        question = make(rng)
        if question.prompt not in taken:
            taken.add(question.prompt)
            questions.append(question)
    return questions


def _demonstration(rng: np.random.Generator) -> tuple[str, str]:
    """A prompt of 1-10 verbs (30% of them easy verbs only) with an answer that errs as the reliabilities say."""
    start, length = int(rng.integers(10)), int(rng.integers(1, MAX_VERBS + 1))
    verbs = rng.integers(FIRST_HARD_VERB if rng.random() < 0.3 else len(VERBS), size=length).tolist()
    states, state = [], start
    for verb in verbs:
        right = verb < FIRST_HARD_VERB or rng.random() < RELIABILITY[verb]
        state = (state + (SHIFTS[verb] if right else WRONG_SHIFTS[verb])) % 10
        states.append(str(state))
    return render(start, verbs), "".join(states)
