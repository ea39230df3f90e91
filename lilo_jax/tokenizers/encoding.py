"""Questions and demonstrations as token ids."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.questions import Question
from lilo_jax.tokenizers.chat import Chat, end_id, prompt_ids
from lilo_jax.tokenizers.protocol import Tokenizer
from lilo_jax.types import Sequences


@dataclasses.dataclass(frozen=True)
class EncodedQuestions:
    """Questions with their prompts as token ids.

    Attributes:
        questions: N questions.
        tokens: int32 [N, P], right-padded.
        lengths: int32 [N].
    """

    questions: Sequence[Question]
    tokens: np.ndarray
    lengths: np.ndarray


def encode_prompts(tokenizer: Tokenizer, questions: Sequence[Question], *, chat: Chat = False) -> EncodedQuestions:
    """Prompt tokens of each question, as `prompt_ids` makes them, padded to the longest."""
    rows = [question_ids(tokenizer, question, chat=chat) for question in questions]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max(initial=1)), tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return EncodedQuestions(questions=questions, tokens=tokens, lengths=lengths)


def question_ids(tokenizer: Tokenizer, question: Question, *, chat: Chat) -> list[int]:
    """Prompt tokens of a question; an error of a chat template names it."""
    try:
        return prompt_ids(tokenizer, question.prompt, chat=chat)
    except UsageError as error:  # of a chat template
        raise UsageError(f"{question.name}: {error}") from None


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, chat: Chat = False) -> Sequences:
    """Prompts with their responses and the end token, as host arrays."""
    end = end_id(tokenizer, chat=chat)
    rows: list[list[int]] = []
    starts: list[int] = []
    for prompt, response in pairs:
        ids = prompt_ids(tokenizer, prompt, chat=chat)
        rows.append([*ids, *tokenizer.encode(response), end])
        starts.append(len(ids))
    tokens = np.full((len(rows), max(map(len, rows))), tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    prompt_lengths = np.array(starts, np.int32)
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(tokens=tokens, prompt_lengths=prompt_lengths, completion_lengths=lengths - prompt_lengths)
