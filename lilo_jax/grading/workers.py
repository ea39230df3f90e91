"""Grading in processes that are killed when they take too long, and started anew.

What costs little is told where it is asked.  The rest goes to worker processes, one answer at a time, each with a
deadline: a hung answer costs its deadline and one worker's start, and nobody else's verdict.  Which worker does what,
in which order, and how many there are, changes no verdict.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from lilo_jax.errors import UsageError
from lilo_jax.grading.journal import Asked, Journal
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.symbolic import warm_up
from lilo_jax.processes.lifetime import MortalForkServerProcess, MortalSpawnProcess, context_of
from lilo_jax.questions import Question, Verdict

Grade = Callable[[Question, str], Verdict]
"""A task's `grade`: a plain function, or a `Grader`."""
DEADLINE = 3.0
"""Seconds for one answer."""
MOST_LOSSES = 2
"""Times that an answer may be lost with its worker before it is blamed on the grader."""
MOST_RENEWALS = 3
"""Times that an answer may find all workers gone, as they are when an idle worker dies."""
REMEMBERED = 10_000
"""Judgements kept, those still to come included: equal responses to a question are graded once."""
MOST_WORKERS = 16
"""Workers that are started where their number is not given."""


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
        seconds: spent grading, of all processes together; what was ended at the deadline had taken that long.
    """

    answers: int = 0
    at_once: int = 0
    remembered: int = 0
    timeouts: int = 0
    lost: int = 0
    graded_again: int = 0
    seconds: float = 0.0


class GradingWorkers:
    """Grades answers in the background.  No process is started before one is needed."""

    def __init__(self, *, count: int = 0, deadline: float = DEADLINE) -> None:
        """Sets it up.

        Args:
            count: of processes; 0 for one per core, and for plain functions none: they are then called here.
            deadline: seconds for one answer.
        """
        self._asked, self._deadline = count, deadline
        self._running: ProcessPool | None = None
        self._counts = Counts()
        self._known: dict[tuple[bytes, Question, str], Future[Judgement]] = {}
        self._journal: Journal | None = None
        self._lock, self._closed = threading.RLock(), False

    def submit(self, grade: Grade, question: Question, response: str) -> Future[Judgement]:
        """The judgement to come."""
        self._counts.answers += 1
        told = self._at_once(grade, question, response)
        if told is not None:
            self._counts.at_once += 1
            self._counts.seconds += told.seconds
            return _done(told)
        try:
            key = (_pickled(grade), question, response)
        except Exception as error:  # whatever pickle finds in a user's grader
            return _done(_failure(error))
        asked = None if self._journal is None else self._journal.ask(_name(key))
        found = self._journal.known(asked) if self._journal and asked else None
        if found is None and (known := self._known.get(key)) is not None:
            self._counts.remembered += 1
            return self._on_record(asked, known, again=True)
        result: Future[Judgement] = Future() if found is None else _done(found)
        if found is None or not found.verdict.is_failure:
            self._remember(key, result)
        if found is not None:
            self._counts.seconds += found.seconds
            return result
        self._start(_Task(key, result))
        return self._on_record(asked, result)

    def keep(self, journal: Journal) -> None:
        """Writes verdicts of processes into a journal from now on, and believes those that stand in it."""
        self._journal = journal

    def start(self, grade: Grade) -> None:
        """Starts the processes that this grade will need, and waits until they are ready."""
        if self._asked or hasattr(grade, "quick"):
            processes = self._processes(_pickled(grade))
            ready: set[int] = set()
            with contextlib.suppress(BrokenProcessPool, ProcessExpired, RuntimeError):  # the first answer tells it
                while len(ready) < self._count:
                    ready |= {one.result() for one in [processes.schedule(_process) for _ in range(self._count)]}

    def _on_record(self, asked: Asked | None, result: Future[Judgement], *, again: bool = False) -> Future[Judgement]:
        """The judgement, told when it stands in the journal; the error if it cannot be written there."""
        journal = self._journal
        if journal is None or asked is None:
            return result
        told: Future[Judgement] = Future()

        def write(done: Future[Judgement]) -> None:
            try:
                found = done.result()
                journal.write(asked, found._replace(seconds=0.0) if again else found)  # the time was spent once
            except OSError as error:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        result.add_done_callback(write)
        return told

    def take_counts(self) -> Counts:
        """What happened since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _at_once(self, grade: Grade, question: Question, response: str) -> Judgement | None:
        try:
            if hasattr(grade, "quick"):
                return _timed(grade.quick, question, response)
            return None if self._asked else _timed(grade, question, response)
        except Exception as error:  # whatever a user's grader raises
            return _failure(error)

    def _remember(self, key: tuple[bytes, Question, str], result: Future[Judgement]) -> None:
        with self._lock:
            self._known[key] = result
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]

    def _start(self, task: "_Task") -> None:
        try:
            running = self._processes(task.key[0]).schedule(_judge, args=task.key, timeout=self._deadline)
        except RuntimeError as error:  # they are gone, or were stopped
            self._broken(task, error)
        else:
            running.add_done_callback(functools.partial(self._finish, task))

    def _finish(self, task: "_Task", running: Future[Judgement]) -> None:
        """Called in a thread of its own."""
        try:
            judgement = running.result()
        except (TimeoutError, concurrent.futures.TimeoutError):
            self._counts.timeouts += 1
            self._counts.seconds += self._deadline
            reason = f"not done after {self._deadline:g} seconds; its process was ended"
            self._forget(task, Judgement(Verdict.TIMEOUT, reason=reason, seconds=self._deadline))
        except BrokenProcessPool as error:
            self._broken(task, error)
        except ProcessExpired as error:
            self._counts.lost += 1
            if task.losses + 1 < MOST_LOSSES:
                self._counts.graded_again += 1
                self._start(dataclasses.replace(task, losses=task.losses + 1))
            else:
                self._forget(task, _failure(error))
        except BaseException as error:
            self._forget(task, _failure(error))
        else:
            self._counts.seconds += judgement.seconds
            task.result.set_result(judgement)

    def _broken(self, task: "_Task", error: BaseException) -> None:
        """Grades by new workers: pebble ends all of them when an idle one dies."""
        if self._closed or task.renewals >= MOST_RENEWALS:
            self._forget(task, _failure(error))
            return
        with self._lock:
            if self._running is not None and not self._running.active:
                self._counts.lost += 1
                threading.Thread(target=_stop, args=(self._running,), daemon=True).start()  # not from its own thread
                self._running = None
        self._counts.graded_again += 1
        self._start(dataclasses.replace(task, renewals=task.renewals + 1))

    def _forget(self, task: "_Task", judgement: Judgement) -> None:
        """A failure is told, but not remembered."""
        with self._lock:
            self._known.pop(task.key, None)
        task.result.set_result(judgement)

    def _processes(self, grade: bytes) -> ProcessPool:
        """Those that run; if none do, new ones, each of which loads this grade before the first deadline begins."""
        with self._lock:
            if self._running is None:
                self._running = ProcessPool(self._count, context=_context(), initializer=_load, initargs=[grade])
            return self._running

    @property
    def _count(self) -> int:
        return self._asked or min(_cores(), MOST_WORKERS)

    def __enter__(self) -> "GradingWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._running is not None:
            _stop(self._running)
            self._running = None


@dataclasses.dataclass(frozen=True)
class _Task:
    """An answer on its way: what is graded, where the judgement goes, and how often it was lost."""

    key: tuple[bytes, Question, str]
    result: Future[Judgement]
    losses: int = 0
    renewals: int = 0


def _process() -> int:
    """The worker's id, told so slowly that one which is ready leaves some of the asking to the others."""
    time.sleep(0.1)
    return os.getpid()


def _stop(processes: ProcessPool) -> None:
    processes.stop()
    processes.join()


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
_Process: Any = MortalForkServerProcess if _HAS_SERVER else MortalSpawnProcess


class _WithoutMain(_Process):
    """A process that does not import the main module, which a plain script would run again."""

    def start(self) -> None:
        with _hidden_main():
            super().start()


def _context() -> BaseContext:
    """How workers are started: never forked from this process, which may hold a device.

    Where there is one, a server that has loaded everything is forked.
    """
    own = context_of(_WithoutMain)
    own.set_forkserver_preload([__name__])
    return own


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None} | kept)


def check_grade(grade: Grade) -> None:
    """Raises `UsageError` if a grader cannot be sent to a worker."""
    try:
        _pickled(grade)
    except Exception as error:
        raise UsageError(
            f"the task's grade function cannot be sent to a grading process ({error}): make it a function of a module "
            f"that can be imported, not of the main script"
        ) from None


def _name(key: tuple[bytes, Question, str]) -> str:
    """A hash that names an answer: who grades it, the question's content, the response."""
    grade, question, response = key
    return hashlib.sha256(
        b"\0".join([grade, question.content.encode(), response.encode("utf-8", "replace")])
    ).hexdigest()


def _pickled(grade: Grade) -> bytes:
    if getattr(grade, "__module__", type(grade).__module__) == "__main__":
        raise TypeError("it is defined in the main script")
    return pickle.dumps(grade)


@functools.lru_cache(maxsize=64)
def _unpickled(grade: bytes) -> Grade:
    return pickle.loads(grade)


def _load(grade: bytes) -> None:
    """What the first answer of a worker would load: a grader's module may take longer than a deadline."""
    warm_up()
    with contextlib.suppress(Exception):  # the first answer tells it
        _unpickled(grade)


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
    if not isinstance(found, Judgement | Verdict):
        raise TypeError(f"the grader gave {found!r}, which is no Verdict")
    judgement = found if isinstance(found, Judgement) else Judgement(found)
    return judgement._replace(seconds=time.perf_counter() - started)


def _failure(error: BaseException) -> Judgement:
    return Judgement(Verdict.ERROR, reason=f"the grader failed: {type(error).__name__}: {error}")


def _done(judgement: Judgement) -> Future[Judgement]:
    future: Future[Judgement] = Future()
    future.set_result(judgement)
    return future


def judge_all(workers: GradingWorkers, grade: Grade, answers: Iterable[tuple[Question, str]]) -> list[Judgement]:
    """Judgements of (question, response) pairs, in their order."""
    futures = [workers.submit(grade, question, response) for question, response in answers]
    return [future.result() for future in futures]
