"""Questions, verdicts and tasks: the records in which text lives, on the host."""

import dataclasses
import enum
import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


def normalised(text: str) -> str:
    """The text without what makes no other question of it: white space, case, the Unicode form of its letters.

    Caseless matching as Unicode defines it for canonical equivalents (D145), in form NFC.  The compatibility forms,
    NFKC, would make x2 of x², which is another question.
    """
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()).split())


@dataclasses.dataclass(frozen=True)
class Question:
    """One verifiable question, with an identity that lasts over shuffled, moved and longer files.

    Attributes:
        prompt: the text given to the model, already rendered.
        answer: the gold answer that the grader compares with.
        difficulty: the generator's own level if it has one (for reports only: no curriculum may read it).
        text: the question itself, as it stands in the prompt; graders may read what it asks for.
        solution: a worked solution that holds the gold answer, or what else a grader needs, as text.
        trap: why the question's outcome is not to be trusted, if that was planted ("wrong_key", "coin_flip"); for
            reports only.
        category: what the data set says it belongs to (a subject, a generator); "" for nothing.
        level: of the difficulty knob of a generator that a curriculum may turn; None: there is no such knob.
        id: what its file calls it; left empty, `content` when it was made: planting a flaw changes no id.
        where: file and line that it was read from, for messages; "" if it was generated.  No part of the question.

    Example: white space, case and place change no identity, the answer does.

        >>> Question(prompt="2+3=", answer="5").id == Question(prompt=" 2+3= ", answer="5").id
        True
        >>> Question(prompt="2+3=", answer="6").id == Question(prompt="2+3=", answer="5").id
        False
    """

    prompt: str
    answer: str
    difficulty: float | None = None
    text: str = ""
    solution: str = ""
    trap: str = ""
    category: str = ""
    level: int | None = None
    id: str = ""
    where: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.content)

    @property
    def asked(self) -> str:
        """What is asked, normalised: questions that share it are one."""
        return normalised(self.text or self.prompt)

    @property
    def content(self) -> str:
        """Hash of what is asked and of the gold answer."""
        return hashlib.sha256(json.dumps([self.asked, self.answer], allow_nan=False).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.where or f"question `{self.id}`"


class Verdict(enum.Enum):
    """What a grader found.  TIMEOUT and ERROR are failures of the grader and never count as wrong answers.

    >>> Verdict.WRONG.is_failure, Verdict.TIMEOUT.is_failure
    (False, True)
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def is_failure(self) -> bool:
        """Whether the grader failed, so that nothing is known of the answer."""
        return self in (Verdict.TIMEOUT, Verdict.ERROR)


class Task(NamedTuple):
    """Questions in, verdicts out.

    Attributes:
        splits: split name to questions; `train` is the pool that a curriculum chooses from.
        demonstrations: (prompt, response) pairs for supervised fine-tuning.
        grade: (question, response text) to a verdict.
        unique_answers: True if exactly one token sequence per question is graded correct, so that the success
            rate at temperature 1 is the probability of that sequence and needs no sampling.
        steps: (response text) to the offsets at which its reasoning steps begin, of which the first is 0; None: every
            line is a step.  See `lilo_jax.tasks.steps`.
        left_out: questions of any split that are not asked, as their prompts are too long; see `--task.longest`.
        shots: (prompt, response) pairs that stand before every question; see `lilo_jax.tasks.shots`.

    Example: one question, graded as it is spelt.

        >>> def grade(question, response):
        ...     return Verdict.CORRECT if response == question.answer else Verdict.WRONG
        >>> asked = Question(prompt="2+3=", answer="5")
        >>> task = Task({"train": [asked], "test": []}, [("2+3=", "5")], grade, unique_answers=True)
        >>> task.grade(task.splits["train"][0], "5")
        <Verdict.CORRECT: 'correct'>
    """

    splits: Mapping[str, Sequence[Question]]
    demonstrations: Sequence[tuple[str, str]]
    grade: Callable[[Question, str], Verdict]
    unique_answers: bool
    steps: Callable[[str], Sequence[int]] | None = None
    left_out: Sequence[Question] = ()
    shots: Sequence[tuple[str, str]] = ()
