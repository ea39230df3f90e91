"""From a question's prompt to the ids that a model is given, plain or as a turn of a chat; and what may be wrong."""

import re
from collections.abc import Sequence

from lilo_jax.errors import UsageError
from lilo_jax.tokenizers.protocol import Tokenizer
from lilo_jax.tokenizers.template import ChatTemplate, Message

MARKER = re.compile(r"<[|｜][^|｜<>]+[|｜]>|</?s>|<(?:start|end)_of_turn>")
"""What looks like a special token in a rendered prompt; [INST] does not: Llama 2 was trained on its letters."""


Chat = bool | Sequence[Message]
"""Whether a prompt is a user's turn of a chat; or the turns that come before it."""


def prompt_ids(tokenizer: Tokenizer, text: str, *, chat: Chat = False) -> list[int]:
    """Ids of a prompt.

    Args:
        tokenizer: of the model.
        text: the prompt.
        chat: whether it is rendered as a user's turn, followed by the beginning of the assistant's; begin ids are then
            added only if the template does not write them itself.  Turns, from `turns`, come before the user's.

    Raises:
        UsageError: there is no chat template, or it refuses.
    """
    begin = list(tokenizer.begin_ids)
    if chat is False:
        return begin + tokenizer.encode(text)
    ids = tokenizer.encode(_rendered(tokenizer, text, () if chat is True else chat))
    return ids if ids[: len(begin)] == begin else begin + ids


def _template(tokenizer: Tokenizer) -> ChatTemplate:
    if tokenizer.chat is None:
        raise UsageError(
            "the model has no chat template: leave out --tokenizer.chat or --chat, or add one to its files"
        )
    return tokenizer.chat


def _rendered(tokenizer: Tokenizer, text: str, before: Sequence[Message] = ()) -> str:
    return _template(tokenizer).render([*before, {"role": "user", "content": text}], add_generation_prompt=True)


def turns(*, chat: bool, system: str = "", shots: Sequence[tuple[str, str]] = ()) -> Chat:
    """How prompts are put into a chat template: after a system prompt and worked examples, if there are any.

    Args:
        chat: whether they are.
        system: content of the system's turn; "" for none, which leaves it to the template.
        shots: what users asked and assistants answered before.
    """
    if not chat:
        return False
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    for asked, answered in shots:
        before += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return before or True


def end_id(tokenizer: Tokenizer, *, chat: Chat = False) -> int:
    """The id that fine-tuning puts after a response: the first end id, or that with which a chat template ends a turn.

    Args:
        tokenizer: of the model.
        chat: whether prompts are rendered by its chat template; what that ends a turn with must be among the end ids.
    """
    after = _after_answer(tokenizer) if chat else []
    return after[0] if after and after[0] in tokenizer.end_ids else tokenizer.end_ids[0]


def lint(tokenizer: Tokenizer) -> list[str]:
    """What looks wrong about a chat template and its tokenizer, in words; empty if nothing does."""
    user = {"role": "user", "content": "Hello"}
    asked = _rendered(tokenizer, "Hello")
    found = []
    if asked == _template(tokenizer).render([user], add_generation_prompt=False):
        found.append("the template writes nothing before an assistant's answer: add_generation_prompt changes nothing")
    begin, ids = list(tokenizer.begin_ids), tokenizer.encode(asked)
    if begin and ids[: 2 * len(begin)] == 2 * begin:
        found.append("the template writes the begin token twice")
    found += _end_of_turn(tokenizer)
    unknown = sorted({mark for mark in MARKER.findall(asked) if len(tokenizer.encode(mark)) > 1})
    if unknown:
        found.append(
            f"{', '.join(unknown)} in the rendered prompt is no token of the vocabulary: it becomes plain text"
        )
    return found


def _end_of_turn(tokenizer: Tokenizer) -> list[str]:
    """Warns if a model that writes what the template puts after an answer would not stop there."""
    try:
        ids = _after_answer(tokenizer)
    except UsageError as error:
        return [f"an assistant's answer cannot be rendered: {error}"]
    if not ids:
        return ["the template writes nothing after an assistant's answer: nothing shows where it ends"]
    if ids[0] in tokenizer.end_ids:
        return []
    name = tokenizer.decode(ids[:1])
    return [f"an answer is followed by {name!r} ({ids[0]}), which is no end token: completions would run on"]


def _after_answer(tokenizer: Tokenizer) -> list[int]:
    """Ids of what the template writes after an assistant's answer, leading white space left out."""
    answer = "Good morning."
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": answer}]
    whole = _template(tokenizer).render(turns, add_generation_prompt=False)
    after = whole.rpartition(answer)[2].lstrip()
    return tokenizer.encode(after) if after else []
