"""What the rest of the project needs of a tokenizer."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from lilo_jax.errors import UsageError
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers.template import ChatTemplate


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids that a tokenizer's settings give a meaning.

    Attributes:
        begin: put before a text.
        end: end a completion.
        pad: fills rows; since masks go by length it may be an end id too.
        pad_rule: where it comes from, in words.
    """

    begin: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    pad_rule: str


def check_text(text: str) -> None:
    """Raises `UsageError` if a text cannot be written in UTF-8, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0) : error.end + 20]
        raise UsageError(f"{around!r} is no text, as it holds half of a pair of surrogates: correct it") from None


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
        vocab_size: largest id + 1.
        pad_id, pad_rule, begin_ids, end_ids: see `SpecialIds`.
        unique_segmentation: whether every text has exactly one sequence of ids.
        chat: the model's chat template, or None.
    """

    vocab_size: int
    pad_id: int
    pad_rule: str
    begin_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    unique_segmentation: bool
    chat: ChatTemplate | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, to which no special token is added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids.  Special tokens stay visible, so that a response that contains one is not mistaken for its
        text alone; and so do ids that a wider model has and the tokenizer has not.
        """
        ...

    def token_bytes(self) -> list[bytes]:
        """What each id adds to a text, in UTF-8; b"" for special tokens.  A token may hold a part of a character."""
        ...

    def save(self, directory: AnyPath) -> None:
        """Writes files from which `load_tokenizer` makes an equal tokenizer."""
        ...
