"""From completion tokens to text and verdict, in processes of their own, so that the device need not wait."""

import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple

from lilo_jax.sampling.stopping import cut_at_stop
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.types import Question, Verdict


class Answer(NamedTuple):
    """A completion to be graded; `ended` is False if it was truncated."""

    question: Question
    ids: list[int]
    ended: bool


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads completions of one task.

    Attributes:
        grade: the task's grader.
        tokenizer: of the model.
        stop: strings at which a response ends.
    """

    grade: Callable[[Question, str], Verdict]
    tokenizer: Tokenizer
    stop: tuple[str, ...] = ()

    def read(self, answer: Answer) -> tuple[str, Verdict]:
        """Response and verdict; a truncated completion has no answer, and a grader that raises is no wrong answer."""
        ended_by_token = answer.ended and answer.ids[-1] in self.tokenizer.end_ids
        response = self.tokenizer.decode(answer.ids[:-1] if ended_by_token else answer.ids)
        response = cut_at_stop(response, self.stop)
        if not answer.ended:
            return response, Verdict.NO_ANSWER
        try:
            return response, self.grade(answer.question, response)
        except Exception:  # whatever a user's grader raises
            return response, Verdict.ERROR

    def read_all(self, answers: Sequence[Answer]) -> list[tuple[str, Verdict]]:
        """Response and verdict of each."""
        return [self.read(answer) for answer in answers]


_reader: Reader | None = None
"""Of a worker process."""


def _start_worker(task: Any, seed: int, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
    global _reader
    _reader = Reader(task.build(seed).grade, tokenizer, stop)


def _read_in_worker(answers: Sequence[Answer]) -> list[tuple[str, Verdict]]:
    assert _reader is not None
    return _reader.read_all(answers)


class Graders:
    """Grades in worker processes, or at once in this one if there are none.

    A worker is started with the task's settings and builds the task itself, so that a grader need not be picklable.
    """

    def __init__(self, reader: Reader, *, task: Any, seed: int, workers: int) -> None:
        """Starts nothing before the first answers are submitted.

        Args:
            reader: used if there are no workers; they have its tokenizer and stop strings.
            task: settings of the task; used with workers.
            seed: that the task is built with.
            workers: processes; 0 for none.
        """
        self._reader, self._workers = reader, workers
        self._arguments = (task, seed, reader.tokenizer, reader.stop)
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def submit(self, answers: Sequence[Answer]) -> list[Future[list[tuple[str, Verdict]]]]:
        """Grades answers in the background; the results of the futures, end to end, are in the answers' order."""
        if not self._workers:
            done: Future = Future()
            done.set_result(self._reader.read_all(answers))
            return [done]
        if self._pool is None:
            # Spawned, not forked: a copy of a process that holds a device may hang.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=self._arguments,
            )
        size = max(-(-len(answers) // self._workers), 1)
        return [
            self._pool.submit(_read_in_worker, answers[start : start + size]) for start in range(0, len(answers), size)
        ]

    def __enter__(self) -> "Graders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
