"""From completion tokens to text and judgement."""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from lilo_jax.grading.extraction import complete
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.workers import Grade, GradingWorkers
from lilo_jax.processes import hosts
from lilo_jax.questions import Question, Verdict
from lilo_jax.sampling import cut_at_stop, stop_table
from lilo_jax.tokenizers import Tokenizer

TRUNCATED = Judgement(Verdict.NO_ANSWER, reason="the response was cut off before its answer was complete")


class Answer(NamedTuple):
    """A completion to be graded; `ended` is False if it was truncated."""

    question: Question
    ids: list[int]
    ended: bool


class Graded(NamedTuple):
    """A response with the judgement to come; None if another process of the run grades it."""

    response: str
    judgement: Future[Judgement] | None


def settled(submitted: Sequence[Graded]) -> list[Judgement]:
    """The judgements of responses, when all are there: each was made by one process and is known to all.

    All processes must call it with the same responses.
    """
    own = {i: one.judgement.result() for i, one in enumerate(submitted) if one.judgement is not None}
    merged: dict[int, Judgement] = {}
    for part in hosts.gathered(own):
        merged |= part
    return [merged[i] for i in range(len(submitted))]


@dataclasses.dataclass(frozen=True)
class ResponseGrader:
    """Reads completions and has them graded in the background.

    Attributes:
        workers: that grade.
        tokenizer: of the model.
        stop: strings at which a response ends.
    """

    workers: GradingWorkers
    tokenizer: Tokenizer
    stop: tuple[str, ...] = ()

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
        """What each id adds to a text, in UTF-8."""
        return self.tokenizer.token_bytes()

    def submit(self, grade: Grade, answers: Sequence[Answer]) -> list[Graded]:
        """Responses with judgements to come, in the order of the answers, which the processes of a run share out."""
        return [self._submit(grade, answer, hosts.is_mine(i)) for i, answer in enumerate(answers)]

    def text(self, answer: Answer) -> str:
        """The response: without the end token, up to the first stop string."""
        return response_text(self.tokenizer, answer.ids, ended=answer.ended, stop=self.stop)

    def _submit(self, grade: Grade, answer: Answer, mine: bool) -> Graded:
        response = self.text(answer)
        if not mine:
            return Graded(response, None)
        return Graded(response, judgement_of(self.workers, grade, answer.question, response, ended=answer.ended))


def judgement_of(
    workers: GradingWorkers, grade: Grade, question: Question, response: str, *, ended: bool
) -> Future[Judgement]:
    """The judgement to come; of a response that was cut off, on what was complete by then."""
    text = response if ended else complete(response)
    if text or ended:
        return workers.submit(grade, question, text)
    judgement: Future[Judgement] = Future()
    judgement.set_result(TRUNCATED)
    return judgement


def response_text(tokenizer: Tokenizer, ids: Sequence[int], *, ended: bool, stop: Sequence[str]) -> str:
    """The text of a completion: without the end token, if it ended with one, up to the first stop string."""
    ended_by_token = ended and ids[-1] in tokenizer.end_ids
    return cut_at_stop(tokenizer.decode(ids[:-1] if ended_by_token else ids), stop)


def stop_automaton(tokenizer: Tokenizer, stop: Sequence[str], vocab_size: int) -> np.ndarray | None:
    """The automaton of the stop strings over the model's ids, or None without any."""
    if not stop:
        return None
    token_bytes = tokenizer.token_bytes()
    return stop_table([*token_bytes, *[b""] * (vocab_size - len(token_bytes))], stop)
