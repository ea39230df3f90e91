"""Procedural questions of `reasoning-gym` (Stojanovski et al. 2025): over a hundred generators.

They come with the extra `tasks`: pip install "lilo-jax[tasks]".  Its own scorer grades; only a full score is correct,
as p(1 - p) is about right and wrong.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any, ClassVar

from lilo_jax.bounds import Generated
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.grading.extraction import extract
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.storage.json_lines import to_json
from lilo_jax.tasks.prompts import prompt_style

STRIDE = 1_000_000
"""Between the seeds of two sets: a generator makes its item i from the seed plus i; nearer sets would share items."""


@dataclasses.dataclass(frozen=True)
class ReasoningGym:
    """A generator and how many questions of it."""

    name: str = "chain_sum"
    """generator"""
    options: str = "{}"
    """its options as JSON, such as {"min_digits": 2}"""
    pool: Generated = 2000
    """training questions, drawn anew for every seed"""
    validation: Generated = 200
    test: Generated = 500
    template: str = "qwen_math"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""

    NEW_TOKENS: ClassVar[int] = 256

    def build(self, seed: int) -> Task:
        """Generates the sets; a question of the test is not trained on."""
        render = prompt_style(self.template)
        # The held-out sets are the same for all seeds.
        sizes = {"test": (self.test, 0), "validation": (self.validation, STRIDE)}
        sizes["train"] = (self.pool, (2 + seed) * STRIDE)
        splits: dict[str, list[Question]] = {}
        seen: set[str] = set()
        for name, (size, first) in sizes.items():
            made = [_question(entry, render) for entry in _generator(self.name, self.options, size, first)]
            questions = [q for asked, q in {q.asked: q for q in made}.items() if asked not in seen]
            if not questions:
                raise UsageError(f"the generator {self.name!r} has too few different questions for these sizes")
            seen |= {question.asked for question in questions}
            splits[name] = questions
        demonstrations = [(q.prompt, q.answer) for q in splits["train"]]
        return Task(splits, demonstrations, Score(self.name, self.options), unique_answers=False)


def _question(entry: dict[str, Any], render: Callable[[str], str]) -> Question:
    text = entry["question"]
    return Question(render(text), str(entry["answer"]), text=text, solution=to_json(entry, default=str))


@dataclasses.dataclass(frozen=True)
class Score:
    """The generator's own scorer as a `Task.grade`."""

    name: str
    options: str

    def __call__(self, question: Question, response: str) -> Verdict:
        """Correct for a full score of the answer within the response."""
        found = extract(response)
        if found is None:
            return Verdict.NO_ANSWER
        score = _generator(self.name, self.options, 1, 0).score_answer(found.text, entry=json.loads(question.solution))
        return Verdict.CORRECT if score >= 1 else Verdict.WRONG


@functools.lru_cache(maxsize=16)
def _generator(name: str, options: str, size: int, seed: int) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UsageError("reasoning-gym is not installed: pip install 'lilo-jax[tasks]'") from None
    if name not in DATASETS:
        raise unknown_name("generator", name, DATASETS)
    try:
        return reasoning_gym.create_dataset(name, size=size, seed=seed, **json.loads(options))
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"--task.options {options} do not fit the generator {name!r}: {error}") from None
