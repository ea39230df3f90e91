"""Prompts that a model has no room for are refused, by the name of the question."""

import dataclasses
from collections.abc import Mapping, Sequence

from lilo_jax.errors import UsageError
from lilo_jax.questions import Question
from lilo_jax.tokenizers.chat import Chat
from lilo_jax.tokenizers.encoding import question_ids
from lilo_jax.tokenizers.protocol import Tokenizer

UNBOUNDED = 8192
"""Tokens of a prompt or demonstration that are taken where the model's context is not bounded."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A set of questions whose lengths are to be checked.

    Attributes:
        questions: in their order.
        new_tokens: that follow a prompt.
        option: that sets how many follow.
        bounded: whether --task.longest leaves some of them out.
    """

    questions: Sequence[Question]
    new_tokens: int
    option: str
    bounded: bool


def check_lengths(tokenizer: Tokenizer, sets: Mapping[str, Asked], context: int, *, chat: Chat = False) -> None:
    """Raises `UsageError` at the longest prompt of a set that the model has no room for.

    Args:
        tokenizer: of the model.
        sets: by name.
        context: tokens that the model can hold; 0: there is no bound, and a very long prompt is still refused.
        chat: as in `prompt_ids`.
    """
    for name, asked in sets.items():
        lengths = [len(question_ids(tokenizer, question, chat=chat)) for question in asked.questions]
        longest = max(lengths, default=0)
        if longest + bool(context) * asked.new_tokens > (context or UNBOUNDED):
            question = asked.questions[lengths.index(longest)]
            raise UsageError(
                f"{question.name}: its prompt, the longest of {name!r}, has {_cure(asked, longest, context)}"
            )


def _cure(asked: Asked, longest: int, context: int) -> str:
    room = context - asked.new_tokens
    leave = (
        f"set --task.longest {room if context else UNBOUNDED}, which leaves longer ones out"
        if asked.bounded
        else "leave it out"
    )
    if not context:
        return (
            f"{longest} tokens, and more than {UNBOUNDED} are taken only by a model that is said to have room for them "
            f"(--model.context-length): {leave}"
        )
    fits = f"{longest} tokens, with {asked.new_tokens} new ones more than the {context} of the model's context"
    if room < 1:
        return f"{fits}: lower {asked.option}"
    if longest > context:
        return f"{longest} tokens, by itself more than the {context} of the model's context: {leave}"
    return f"{fits}: lower {asked.option}, or {leave}"
