"""Test sets by name: what `--suite` and `--evaluation.suites` mean."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.tasks import TASKS
from lilo_jax.types import Task

TEST_SPLITS = ("test", "validation")
"""The first of these that a task has is its test set."""


def suites(names: Sequence[str], **settings: str) -> dict[str, Task]:
    """The tasks of some suites, each with its test set as its one split, `test`.

    Args:
        names: NAME or NAME=PATH, of tasks.
        settings: template, grader and the like, given to the tasks that have them; "" leaves a task's own.

    Raises:
        UsageError: a name is unknown, repeated or without a test set, or its data cannot be read.
    """
    found: dict[str, Task] = {}
    for each in names:
        name, _, path = each.partition("=")
        if name not in TASKS:
            raise unknown_name("suite", name, TASKS)
        if name in found:
            raise UsageError(f"suite {name!r} is given twice")
        found[name] = test_set(configured(TASKS[name], path=path, **settings).build(0))
    return found


def configured(cls: type, **settings: str) -> Any:
    """A task's settings with those of `settings` that it has and that are not empty."""
    fields = {field.name for field in dataclasses.fields(cls)}
    if settings.get("path") and "path" not in fields:
        raise UsageError(f"the task {cls.__name__.lower()} is generated and has no path")
    return cls(**{name: value for name, value in settings.items() if value and name in fields})


def test_set(task: Task) -> Task:
    """The task with its test set as its one split, `test`."""
    for split in TEST_SPLITS:
        if split in task.splits:
            return task._replace(splits={"test": task.splits[split]}, demonstrations=())
    raise UsageError("the task has no test set")
