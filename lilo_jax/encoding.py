"""Questions and demonstrations as token ids; what is too long for that is said before anything is padded or trained."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.pretrained import open_model
from lilo_jax.questions import Question, Task
from lilo_jax.tokenizers import SentencePiece, Tokenizer, end_id, prompt_ids
from lilo_jax.types import Sequences

UNBOUNDED = 8192
"""Tokens of a prompt or demonstration that are taken where the model's context is not bounded."""


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


def tokenizer_of(config: Config, task: Task) -> Tokenizer:
    """That of the model to start from, or what will be trained."""
    path = config.model.path
    return open_model(path, config.model.revision).tokenizer() if path else train_tokenizer(config, task)


def train_tokenizer(config: Config, task: Task) -> Tokenizer:
    """A tokenizer trained on the task's demonstrations and training prompts."""
    kind = config.tokenizer.kind
    if kind == "auto":
        kind = "char" if task.unique_answers else "bpe"
    texts = [prompt + response for prompt, response in task.demonstrations]
    texts += [question.prompt for question in task.splits["train"]]
    return SentencePiece.train(texts, kind=kind, vocab_size=config.tokenizer.vocab_size)


def encode_prompts(tokenizer: Tokenizer, questions: Sequence[Question], *, chat: bool = False) -> EncodedQuestions:
    """Prompt tokens of each question, as `prompt_ids` makes them, padded to the longest."""
    rows = [_prompt_ids(tokenizer, question, chat=chat) for question in questions]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max(initial=1)), tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return EncodedQuestions(questions=questions, tokens=tokens, lengths=lengths)


def _prompt_ids(tokenizer: Tokenizer, question: Question, *, chat: bool) -> list[int]:
    try:
        return prompt_ids(tokenizer, question.prompt, chat=chat)
    except UsageError as error:  # of a chat template
        raise UsageError(f"{question.name}: {error}") from None


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, chat: bool = False) -> Sequences:
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


def without_longer(config: Config, task: Task) -> Task:
    """The task without the prompts that its settings find too long.

    A tokenizer is trained on what is left, and may make other tokens of it: so again, until nothing is too long.
    """
    most = getattr(config.task, "longest", 0)
    while most and longest_bytes(config, task.splits.values()) > most:
        questions = [question for split in task.splits.values() for question in split]
        tokenizer, chat = tokenizer_of(config, task), config.tokenizer.chat
        long = [question for question in questions if len(_prompt_ids(tokenizer, question, chat=chat)) > most]
        if not long:
            break
        task = _without(task, long)
    if left := task.left_out:
        first = f"{len(left)} questions, first {left[0].name}"
        print(f"left out: {first}: their prompts have more than {most} tokens (--task.longest)", file=sys.stderr)
    return task


def _without(task: Task, questions: Sequence[Question]) -> Task:
    """The task without some of its questions, and without their demonstrations.

    Raises:
        UsageError: a split would be left empty.
    """
    asked, prompts = {q.asked for q in questions}, {q.prompt for q in questions}
    splits = {name: [q for q in split if q.asked not in asked] for name, split in task.splits.items()}
    for name, split in splits.items():
        if task.splits[name] and not split:
            raise UsageError(f"--task.longest leaves no question of {name!r}: raise it")
    demonstrations = [pair for pair in task.demonstrations if pair[0] not in prompts]
    return task._replace(splits=splits, demonstrations=demonstrations, left_out=(*task.left_out, *questions))


def longest_bytes(config: Config, sets: Iterable[Sequence[Question]]) -> float:
    """What no prompt has more tokens than: those of a tokenizer that is trained here are a byte or more each."""
    if config.model.path:
        return math.inf
    return 1 + max(len(question.prompt.encode()) for questions in sets for question in questions)


def check_lengths(tokenizer: Tokenizer, sets: Mapping[str, Asked], context: int, *, chat: bool = False) -> None:
    """Raises `UsageError` at the longest prompt of a set that the model has no room for.

    Args:
        tokenizer: of the model.
        sets: by name.
        context: tokens that the model can hold; 0: there is no bound, and a very long prompt is still refused.
        chat: as in `prompt_ids`.
    """
    for name, asked in sets.items():
        lengths = [len(_prompt_ids(tokenizer, question, chat=chat)) for question in asked.questions]
        longest = max(lengths, default=0)
        if longest + bool(context) * asked.new_tokens > (context or UNBOUNDED):
            question = asked.questions[lengths.index(longest)]
            raise UsageError(
                f"{question.name}: its prompt, the longest of {name!r}, has {_cure(asked, longest, context)}"
            )


def check_demonstrations(tokenizer: Callable[[], Tokenizer], task: Task, context: int, *, chat: bool = False) -> None:
    """Raises `UsageError` at a demonstration that is too long to be padded to.

    Args:
        tokenizer: gives that of the model; only called if a demonstration may be too long.
        task: whose demonstrations are meant.
        context: as in `check_lengths`.
        chat: as in `prompt_ids`.
    """
    most = max(context, UNBOUNDED)
    long = [pair for pair in task.demonstrations if len("".join(pair).encode()) > most]
    used = tokenizer() if long else None
    for prompt, response in long:
        assert used
        tokens = len(prompt_ids(used, prompt, chat=chat)) + len(used.encode(response))
        if tokens > most:
            named = [question.name for question in task.splits["train"] if question.prompt == prompt]
            raise UsageError(
                f"{(*named, 'a demonstration')[0]}: its prompt and solution have {tokens} tokens, and fine-tuning "
                f"takes at most {most}: leave it out, shorten its solution, or set --sft.steps 0"
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
