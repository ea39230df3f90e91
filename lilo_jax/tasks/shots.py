"""Worked examples before a question: taken out of the training questions, never out of those that are evaluated.

They stand in front of the text of a prompt, or as turns in front of it where prompts are put into a chat template.
"""

import dataclasses
from collections.abc import Sequence

from lilo_jax.questions import Task

BETWEEN = "\n\n"
"""What stands between worked examples, and before the question."""


def with_shots(task: Task, *, chat: bool) -> Task:
    """The task with its worked examples in the text of every prompt; as it is if they are turns of a chat."""
    if chat or not task.shots:
        return task
    before = shown(task.shots)
    splits = {
        name: [dataclasses.replace(question, prompt=before + question.prompt) for question in questions]
        for name, questions in task.splits.items()
    }
    return task._replace(
        splits=splits,
        demonstrations=[(before + prompt, response) for prompt, response in task.demonstrations],
    )


def shown(shots: Sequence[tuple[str, str]]) -> str:
    """Worked examples as text, ready for a prompt to follow."""
    return "".join(
        f"{prompt}{'' if prompt[-1:].isspace() else ' '}{response.strip()}{BETWEEN}" for prompt, response in shots
    )
