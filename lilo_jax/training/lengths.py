"""The lengths of a run's questions in tokens: what is too long is left out, or refused before anything is trained."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence

from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.pretrained.sources import open_model
from lilo_jax.questions import Question, Task
from lilo_jax.tokenizers import Chat, SentencePiece, Tokenizer, prompt_ids, turns
from lilo_jax.tokenizers.encoding import question_ids
from lilo_jax.tokenizers.lengths import UNBOUNDED


def tokenizer_of(config: Config, task: Task) -> Tokenizer:
    """That of the model to start from, or what will be trained."""
    path = config.model.path
    return open_model(path, config.model.revision).tokenizer() if path else train_tokenizer(config, task)


def chat_of(config: Config, task: Task) -> Chat:
    """How the run puts prompts into a chat template, if it does."""
    return turns(chat=config.tokenizer.chat, system=config.tokenizer.system, shots=task.shots)


def train_tokenizer(config: Config, task: Task) -> Tokenizer:
    """A tokenizer trained on the task's demonstrations and training prompts."""
    kind = config.tokenizer.kind
    if kind == "auto":
        kind = "char" if task.unique_answers else "bpe"
    texts = [prompt + response for prompt, response in task.demonstrations]
    texts += [question.prompt for question in task.splits["train"]]
    return SentencePiece.train(texts, kind=kind, vocab_size=config.tokenizer.vocab_size)


def without_longer(config: Config, task: Task) -> Task:
    """The task without the prompts that its settings find too long.

    A tokenizer is trained on what is left, and may make other tokens of it: so again, until nothing is too long.
    """
    most = getattr(config.task, "longest", 0)
    while most and longest_bytes(config, task.splits.values()) > most:
        questions = [question for split in task.splits.values() for question in split]
        tokenizer, chat = tokenizer_of(config, task), chat_of(config, task)
        long = [question for question in questions if len(question_ids(tokenizer, question, chat=chat)) > most]
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


def prompt_tokens(config: Config, task: Task) -> tuple[int, int]:
    """About how many tokens the longest training prompt has, and how many all of them begin with.

    The longest is that of most bytes, by the tokenizer of the model to start from; without a model its bytes, of which
    a token has one or more.
    """
    questions = task.splits["train"]
    longest = max(questions, key=lambda question: len(question.prompt.encode()))
    ends = [choose(questions, key=lambda question: question.prompt) for choose in (min, max)]  # the least alike
    if config.model.path:
        tokenizer, chat = tokenizer_of(config, task), chat_of(config, task)
        rows = [list(question_ids(tokenizer, question, chat=chat)) for question in (longest, *ends)]
    else:
        rows = [[0, *question.prompt.encode()] for question in (longest, *ends)]
    common = next((n for n, alike in enumerate(zip(*rows, strict=False)) if len(set(alike)) > 1), min(map(len, rows)))
    return len(rows[0]), common


def check_demonstrations(tokenizer: Callable[[], Tokenizer], task: Task, context: int, *, chat: Chat = False) -> None:
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
