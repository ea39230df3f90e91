"""ASDiv and SVAMP together: real word problems of one or two steps, for a small language model.

SVAMP is made from questions of ASDiv; what a later split repeats of an earlier one is left out of it.
"""

import dataclasses

from lilo_jax.questions import Question, Task
from lilo_jax.tasks.asdiv import Asdiv
from lilo_jax.tasks.stories import TEMPLATE
from lilo_jax.tasks.svamp import Svamp


@dataclasses.dataclass(frozen=True)
class AsdivSvamp:
    """Both sets, each split the two splits of that name."""

    asdiv: str = ""
    """where ASDiv is, as --task.path of the task asdiv"""
    svamp: str = ""
    """where SVAMP is, as --task.path of the task svamp"""
    template: str = TEMPLATE
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    grader: str = "default"
    """default, paper, exact or math_verify"""

    def build(self, seed: int) -> Task:
        """The three splits, the same for every seed."""
        asdiv = Asdiv(path=self.asdiv, template=self.template, grader=self.grader)
        svamp = Svamp(path=self.svamp, template=self.template, grader=self.grader)
        parts = {"asdiv": asdiv.build(seed).splits, "svamp": svamp.build(seed).splits}
        splits = {}
        for split in ("train", "validation", "test"):
            named = (_named(question, name) for name, part in parts.items() for question in part[split])
            splits[split] = list({question.asked: question for question in named}.values())
        return asdiv.task(splits)


def _named(question: Question, name: str) -> Question:
    """The question with an id that no question of the other set has."""
    return dataclasses.replace(question, id=f"{name}/{question.id}")
