"""Test sets by name: what `--suite` and `--evaluation.suites` mean."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.grading import grader
from lilo_jax.questions import Task
from lilo_jax.storage.classes import class_named
from lilo_jax.tasks import TASKS

TEST_SPLITS = ("test", "validation")
"""The first of these that a task has is its test set."""


def suites(names: Sequence[str], **settings: str | int) -> dict[str, Task]:
    """The tasks of some suites, each with its test set as its one split, `test`.

    Args:
        names: NAME or NAME=PATH, of tasks; a task of one's own is package.module:ClassName.
        settings: template, grader and the like, given to the tasks that have them; "" leaves a task's own.

    Raises:
        UsageError: a name is unknown, repeated or without a test set, or its data cannot be read.
    """
    found: dict[str, Task] = {}
    for each in names:
        name, _, path = each.partition("=")
        spec = class_named("suite", name, TASKS)()
        if name in found:
            raise UsageError(f"suite {name!r} is given twice")
        if path and not hasattr(spec, "path"):
            raise UsageError(f"the task {name} is generated and has no path")
        found[name] = evaluation_task(with_settings(spec, path=path, **settings))
    return found


def inherited(spec: Any, *, template: str, grader: str) -> dict[str, str]:
    """The prompt style and grader of suites beside a task: those given, as by a protocol, or else the task's."""
    return {
        "template": template or getattr(spec, "template", ""),
        "grader": grader or getattr(spec, "grader", ""),
    }


def with_settings(spec: Any, **settings: str | int) -> Any:
    """A task's settings with those of `settings` that it has and that are not empty."""
    return dataclasses.replace(spec, **{k: v for k, v in settings.items() if v and hasattr(spec, k)})


def evaluation_task(spec: Any) -> Task:
    """A task with its test set as its one split, `test`; of a data set no other split is read, if that can be."""
    lone = hasattr(spec, "test_questions") and not getattr(spec, "shots", 0)
    questions = spec.test_questions() if lone else None
    if questions is None:
        return only_test(spec.build(0))
    return Task({"test": questions}, (), grader(spec.grader), unique_answers=False)


def only_test(task: Task) -> Task:
    """The task with its test set as its one split, `test`."""
    for split in TEST_SPLITS:
        if task.splits.get(split):
            return task._replace(splits={"test": task.splits[split]}, demonstrations=())
    raise UsageError("the task has no test set")
