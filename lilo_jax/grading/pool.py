"""Grading in processes that are killed when they take too long, and started anew.

What costs little is told where it is asked.  The rest goes to worker processes, one answer at a time, each with a
deadline: a hung answer costs its deadline and one worker's start, and nobody else's verdict.  Which worker does what,
in which order, and how many there are, changes no verdict.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from lilo_jax.errors import UsageError
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.symbolic import warm_up
from lilo_jax.types import Question, Verdict

Grade = Callable[[Question, str], Verdict]
"""A task's `grade`: a plain function, or a `Grader`."""
DEADLINE = 3.0
"""Seconds for one answer."""
MOST_LOSSES = 2
"""Times that an answer may be lost with its worker before it is blamed on the grader."""
REMEMBERED = 100_000
"""Judgements kept: the answers of a group are often the same."""


@dataclasses.dataclass
class Counts:
    """What happened since the last time it was asked.

    Attributes:
        answers: that were to be graded.
        at_once: told without a worker.
        remembered: the same answer to the same question, graded before.
        timeouts: workers killed at the deadline.
        lost: workers that died on their own, with the answer they were at.
        graded_again: answers given to another worker after that.
    """

    answers: int = 0
    at_once: int = 0
    remembered: int = 0
    timeouts: int = 0
    lost: int = 0
    graded_again: int = 0


class GradingPool:
    """Grades answers in the background.  No process is started before one is needed."""

    def __init__(self, *, workers: int = 0, deadline: float = DEADLINE) -> None:
        """Sets it up.

        Args:
            workers: processes; 0 for one per core, and for plain functions none: they are then called here.
            deadline: seconds for one answer.
        """
        self._workers, self._deadline = workers, deadline
        self._pool: ProcessPool | None = None
        self._counts = Counts()
        self._known: dict[tuple[bytes, Question, str], Judgement] = {}

    def submit(self, grade: Grade, question: Question, response: str) -> Future[Judgement]:
        """The judgement to come."""
        self._counts.answers += 1
        told = self._at_once(grade, question, response)
        if told is not None:
            self._counts.at_once += 1
            return _done(told)
        key = (_pickled(grade), question, response)
        if (known := self._known.get(key)) is not None:
            self._counts.remembered += 1
            return _done(known)
        result: Future[Judgement] = Future()
        self._start(key, result, losses=0)
        return result

    def take_counts(self) -> Counts:
        """What happened since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _at_once(self, grade: Grade, question: Question, response: str) -> Judgement | None:
        try:
            if hasattr(grade, "quick"):
                return _timed(grade.quick, question, response)
            return None if self._workers else _timed(grade, question, response)
        except Exception as error:  # whatever a user's grader raises
            return _failure(error)

    def _start(self, key: tuple[bytes, Question, str], result: Future[Judgement], *, losses: int) -> None:
        try:
            running = self._processes().schedule(_judge, args=key, timeout=self._deadline)
        except RuntimeError as error:  # the pool was stopped
            result.set_result(_failure(error))
            return
        running.add_done_callback(functools.partial(self._finish, key, result, losses))

    def _finish(
        self, key: tuple[bytes, Question, str], result: Future[Judgement], losses: int, running: Future[Judgement]
    ) -> None:
        """Called in a thread of the pool."""
        try:
            judgement = running.result()
        except (TimeoutError, concurrent.futures.TimeoutError):
            self._counts.timeouts += 1
            reason = f"not done after {self._deadline:g} seconds; its process was ended"
            result.set_result(Judgement(Verdict.TIMEOUT, reason=reason, seconds=self._deadline))
        except ProcessExpired as error:
            self._counts.lost += 1
            if losses + 1 < MOST_LOSSES:
                self._counts.graded_again += 1
                self._start(key, result, losses=losses + 1)
            else:
                result.set_result(_failure(error))
        except BaseException as error:
            result.set_result(_failure(error))
        else:
            self._known[key] = judgement
            if len(self._known) > REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            result.set_result(judgement)

    def _processes(self) -> ProcessPool:
        if self._pool is None:
            # Never forked from this process, which may hold a device; a server that has loaded everything is.
            server = "forkserver" in multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("forkserver" if server else "spawn")
            context.set_forkserver_preload([__name__])
            self._pool = ProcessPool(self._workers or os.cpu_count() or 1, context=context, initializer=_start_worker)
        return self._pool

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None


def check_grade(grade: Grade) -> None:
    """Raises `UsageError` if a grader cannot be sent to a worker."""
    try:
        _pickled(grade)
    except Exception as error:
        raise UsageError(
            f"the task's grade function cannot be sent to a grading process ({error}): make it a function of a module, "
            f"or leave out --graders"
        ) from None


@functools.lru_cache(maxsize=64)
def _pickled(grade: Grade) -> bytes:
    return pickle.dumps(grade)


@functools.lru_cache(maxsize=64)
def _unpickled(grade: bytes) -> Grade:
    return pickle.loads(grade)


def _start_worker() -> None:
    warm_up()


def _judge(grade: bytes, question: Question, response: str) -> Judgement:
    """Runs in a worker."""
    function = _unpickled(grade)
    judgement = _timed(getattr(function, "judge", function), question, response)
    assert judgement is not None
    return judgement


def _timed(grade: Callable[[Question, str], Judgement | Verdict | None], question: Question, response: str) -> Any:
    """The judgement, with the time that it took."""
    started = time.perf_counter()
    found = grade(question, response)
    if found is None:
        return None
    judgement = found if isinstance(found, Judgement) else Judgement(found)
    return judgement._replace(seconds=time.perf_counter() - started)


def _failure(error: BaseException) -> Judgement:
    return Judgement(Verdict.ERROR, reason=f"the grader failed: {type(error).__name__}: {error}")


def _done(judgement: Judgement) -> Future[Judgement]:
    future: Future[Judgement] = Future()
    future.set_result(judgement)
    return future


def judge_all(pool: GradingPool, grade: Grade, answers: Iterable[tuple[Question, str]]) -> list[Judgement]:
    """Judgements of (question, response) pairs, in their order."""
    futures = [pool.submit(grade, question, response) for question, response in answers]
    return [future.result() for future in futures]
