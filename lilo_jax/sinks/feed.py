"""Feeds a run's records to its sinks: each record once, from the first process alone, and without those that fail."""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lilo_jax.errors import Stopped, UsageError
from lilo_jax.processes import hosts
from lilo_jax.sinks.contract import Sink
from lilo_jax.sinks.entries import EVALUATION, STEP, _Entry, entries, of_evaluation, of_step
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory

LOGGED = "logged.json"
"""What each sink calls the run, and the last evaluation and step that it was given."""


class Feed:
    """The sinks of a run that have not failed."""

    def __init__(self, sinks: Mapping[str, Sink], directory: RunDirectory, logged: Mapping[str, Any]) -> None:
        """Sets it up.

        Args:
            sinks: by name.
            directory: of the run.
            logged: what stands in `LOGGED`.
        """
        self._sinks, self._directory = dict(sinks), directory
        new = {EVALUATION: -1, STEP: -1}
        self._logged = {**logged, **{name: new | logged.get(name, {}) | {"run": s.run} for name, s in sinks.items()}}
        self._say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)

    def catch_up(self, say: Callable[[str], None]) -> None:
        """Gives what the run has recorded and a sink has not had, as one that is new; `say` is told of trouble."""
        self._say = say
        if self._sinks:
            for entry in entries(self._directory):
                self._give(entry)

    def step(
        self, step: int, metrics: Mapping[str, Any], seconds: Mapping[str, float], ledger: Mapping[str, int]
    ) -> None:
        """Gives the records of a step."""
        self._give(of_step(step, metrics, seconds, ledger))

    def evaluation(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Gives the records of an evaluation, one a split."""
        self._give(of_evaluation(records))

    def close(self, *, failed: bool) -> None:
        """Ends all sinks."""
        for name, sink in list(self._sinks.items()):
            with self._without_it_if_it_fails(name):
                sink.close(failed=failed)
        self._sinks.clear()

    def _give(self, entry: _Entry) -> None:
        """Gives an entry to the sinks that have not had it.

        That they have is written down first: a process that is killed in between leaves a gap, and nothing twice.
        """
        new = {name: sink for name, sink in self._sinks.items() if entry.step > self._logged[name][entry.kind]}
        if not new:
            return
        for name in new:
            self._logged[name][entry.kind] = entry.step
        write_whole(self._directory.path / LOGGED, to_json(self._logged, indent=1) + "\n")
        for name, sink in new.items():
            with self._without_it_if_it_fails(name):
                sink.scalars(entry.step, entry.scalars)
                if entry.histograms:
                    sink.histograms(entry.step, entry.histograms)

    @contextlib.contextmanager
    def _without_it_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it raises: no training ends for its tracker
            del self._sinks[name]
            line = f"--log {name} failed, and the run goes on without it: {one_line(error)}"
            self._say(line)
            self._directory.log(line)


@contextlib.contextmanager
def feeding(names: Sequence[str], directory: RunDirectory, steps: int) -> Iterator[Feed]:
    """The sinks of a run, open until the block ends; none in processes other than the first.

    Args:
        names: of `SINKS`.
        directory: of the run; one that is done has nothing more to give.
        steps: of the run; fine-tuning alone has no records of steps.

    Raises:
        UsageError: one cannot be opened.  All processes are told.
    """
    names = names if steps and not directory.is_done() else ()
    feed, trouble = Feed({}, directory, {}), ""
    try:
        if names and hosts.is_first():
            feed = _opened(names, directory)
    except UsageError as error:
        trouble = str(error)
    if names and (trouble := hosts.gathered(trouble)[0]):
        raise UsageError(trouble)
    try:
        yield feed
    except Stopped:
        feed.close(failed=False)
        raise
    except BaseException:
        feed.close(failed=True)
        raise
    feed.close(failed=False)


def _opened(names: Sequence[str], directory: RunDirectory) -> Feed:
    logged, sinks = _read(directory.path / LOGGED), {}
    for name in names:
        module = importlib.import_module(f"lilo_jax.sinks.{name}")
        try:
            sinks[name] = module.open_sink(directory, logged.get(name, {}).get("run", ""))
        except Exception as error:  # whatever it raises: no login, no server, no place to write
            Feed(sinks, directory, logged).close(failed=True)
            raise UsageError(
                f"--log {name} cannot begin: {one_line(error)}; mend that, or leave {name} out of --log"
            ) from None
    return Feed(sinks, directory, logged)


def _read(path: AnyPath) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UsageError(
            f"{path} is damaged: delete it, and the sinks of --log get all records again, in new runs"
        ) from None


def one_line(error: Exception) -> str:
    """What an error says, on one line, without the end of a long one."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
