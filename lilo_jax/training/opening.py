"""Opening a run's directory: who may go on with it, with which config and questions, one writer at a time."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lilo_jax import config as configuration
from lilo_jax.config import TABLES, Config
from lilo_jax.errors import UsageError
from lilo_jax.processes import hosts
from lilo_jax.questions import Question
from lilo_jax.storage import questions_file
from lilo_jax.storage.checked_files import CHECKSUMS
from lilo_jax.storage.files import TEMPORARY, remove_unfinished
from lilo_jax.storage.locks import LOCK, lock
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import CONFIG, DESCRIPTION, QUESTIONS, RunDirectory, SilentRunDirectory

BEGUN = {LOCK, CHECKSUMS, "log.txt", "FAILED", *DESCRIPTION}
"""What a run that was killed before it had a config may have left."""
MAY_MOVE = ("mesh", "task.path", "task.revision")
"""Fields that may differ from the run's so far: where it computes, and where its questions lie."""


@contextlib.contextmanager
def open_run(
    path: AnyPath | str, config: Config, resume: str, questions: Mapping[str, Sequence[Question]]
) -> Iterator[RunDirectory]:
    """The directory of a run, new or to be gone on with, locked until the block ends; refuses what does not belong.

    A run that is done is not locked, and nothing is written.

    Args:
        path: of the directory.
        config: of the run.  It may differ from the stored one in `MAY_MOVE`, and in more steps if the schedule of the
            learning rate does not depend on their number; then it is stored instead.
        resume: as in `Launch.resume`.
        questions: all that the run depends on, by split.

    Raises:
        UsageError: the directory holds something else, another process writes there, or nobody may.
    """
    if not hosts.is_first():
        yield _opened_by_the_first(path)
        return
    directory = RunDirectory(path)
    with _told_to_others(), _trouble_with(path):
        _check(directory, config, resume, questions)
        done = directory.done_steps() == config.num_steps and directory.newest_step() == config.num_steps
    if done:
        hosts.gathered("")
        yield directory
        return
    with _told_to_others(), _trouble_with(path):
        directory.path.mkdir(parents=True, exist_ok=True)
        held = lock(directory.path)
        directory.files.guard = held.check
    try:
        with _told_to_others(), _trouble_with(path):
            _check(directory, config, "auto" if resume == "never" else resume, questions)
            _begin(directory, config, questions)
        hosts.gathered("")
        yield directory
    finally:
        held.release()


def _opened_by_the_first(path: AnyPath | str) -> RunDirectory:
    """The directory when the first process has opened it; raises what kept that one from it."""
    if refused := hosts.gathered("")[0]:
        raise UsageError(refused)
    return SilentRunDirectory(path)


@contextlib.contextmanager
def _told_to_others() -> Iterator[None]:
    """Tells the other processes, which wait for it, why the directory can't be used."""
    try:
        yield
    except Exception as error:
        hosts.gathered(str(error))
        raise


@contextlib.contextmanager
def _trouble_with(path: AnyPath | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be used ({error.strerror or error}): pass another --output-dir") from None


def _begin(directory: RunDirectory, config: Config, questions: Mapping[str, Sequence[Question]]) -> None:
    """Leaves a directory that says what the run is, and nothing of an earlier end."""
    for folder in (directory.path, *(p for p in directory.path.iterdir() if p.is_dir())):
        remove_unfinished(folder)
    (directory.path / "FAILED").unlink(missing_ok=True)
    if directory.done_steps() not in (None, config.num_steps):
        (directory.path / "DONE").unlink()
    if not directory.files.known or directory.files.read(CONFIG) is None:
        directory.describe(configuration.to_dict(config), questions_file.lines(questions))
    elif configuration.of_run(directory) != config:
        directory.store_config(configuration.to_dict(config))


def _check(directory: RunDirectory, config: Config, resume: str, questions: Mapping[str, Sequence[Question]]) -> None:
    path = directory.path
    if path.is_file():
        raise UsageError(f"{path} is a file; pass another --output-dir")
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to nothing; pass another --output-dir")
    if not directory.config_path.exists():
        if path.exists() and any(p.name not in BEGUN and not p.name.startswith(TEMPORARY) for p in path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no run; pass another --output-dir")
        if resume == "must":
            raise UsageError(f"--resume must, but there is no run in {path}")
        return
    if resume == "never":
        raise UsageError(f"{path} already holds a run; pass another --output-dir, or --resume auto to go on with it")
    _check_config(directory, config)
    stored = _stored(directory, QUESTIONS)
    if stored is not None and (different := questions_file.differences(stored, questions)):
        raise UsageError(
            f"the questions are not those of the run in {path}: {different}; give back the questions that it was "
            f"started with, or pass another --output-dir"
        )


def _check_config(directory: RunDirectory, config: Config) -> None:
    content = _stored(directory, CONFIG)
    stored = configuration.to_dict(configuration.from_text(content or b"", directory.config_path))
    differences = differing(stored, configuration.to_dict(config))
    if config.num_steps > stored["num_steps"] > 0 and config.optimizer.schedule == "constant":
        differences.pop("num_steps", None)
    if differences:
        named = [f"{name} is {there!r} there and {here!r} here" for name, (there, here) in differences.items()]
        raise UsageError(
            f"{directory.path} holds a run of another config ({'; '.join(named[:4])}); pass another --output-dir, or "
            f"the config of that run to go on with it"
        )


def _stored(directory: RunDirectory, name: str) -> bytes | None:
    """A file of the description; as it is where the checksums are lost, which a checkpoint then makes good."""
    written = directory.files.read(name) if directory.files.known else None
    path = directory.path / name
    return path.read_bytes() if written is None and path.exists() else written


def differing(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values there and here of the fields that must be equal and are not, what was chosen by name first.

    The settings of something else that was chosen are not compared.
    """
    found = {
        field: (stored[field]["name"], asked[field]["name"])
        for field in TABLES
        if stored[field]["name"] != asked[field]["name"]
    }
    there, here = configuration.flat(stored), configuration.flat(asked)
    for name in sorted(there.keys() | here.keys()):
        group = name.partition(".")[0]
        if group in found or name in MAY_MOVE or group in MAY_MOVE or there.get(name) == here.get(name):
            continue
        found[name] = there.get(name), here.get(name)
    return found
