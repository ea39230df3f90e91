"""Worked examples before a question: taken out of the training questions, never out of those that are evaluated.

They stand in front of the text of a prompt, or as turns in front of it where prompts are put into a chat template.
"""

import dataclasses
from collections.abc import Sequence

from lilo_jax.questions import Question, Task

BETWEEN = "\n\n"
"""What stands between worked examples, and before the question."""


def with_shots(task: Task, *, chat: bool) -> Task:
    """The task with its worked examples in the text of every prompt; as it is if they are turns of a chat."""
    if chat or not task.shots:
        return task
    before = shown(task.shots)
    return task._replace(
        splits={name: preceded(questions, before) for name, questions in task.splits.items()},
        demonstrations=[(before + prompt, response) for prompt, response in task.demonstrations],
    )


def asked_after(task: Task, questions: Sequence[Question], *, chat: bool) -> Sequence[Question]:
    """Other questions, asked after the worked examples of a task."""
    return questions if chat or not task.shots else preceded(questions, shown(task.shots))


def preceded(questions: Sequence[Question], before: str) -> list[Question]:
    """The questions with a text before their prompts; their identities stay."""
    return [dataclasses.replace(question, prompt=before + question.prompt) for question in questions]


def shown(shots: Sequence[tuple[str, str]]) -> str:
    """Worked examples as text, ready for a prompt to follow."""
    return "".join(
        f"{prompt}{'' if prompt[-1:].isspace() else ' '}{response.strip()}{BETWEEN}" for prompt, response in shots
    )
