"""SentencePiece models: those of published checkpoints, and those that are trained on a task's own text."""

import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import sentencepiece

from lilo_jax.bounds import Count
from lilo_jax.errors import UsageError
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers.protocol import check_text
from lilo_jax.tokenizers.settings import Files, read_settings, special_ids, write_files

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "\n")
"""Pieces that every tokenizer has that is trained here."""
LOST = {"\t", "\x1f"}
"""Characters that sentencepiece 0.2.2 or 0.2.3 makes unknown, unless they are pieces from the start."""


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The model's own tokenizer where it has one; else a SentencePiece model that is trained on the task's text."""

    kind: Literal["auto", "char", "bpe"] = "auto"
    """if trained: a token per character, or byte-pair merges; auto takes char for a task with unique answers"""
    vocab_size: Count = 512
    """if trained: upper bound on the number of ids"""
    chat: bool = False
    """prompts are put as a user's turn into the model's chat template"""
    system: str = ""
    """content of a system's turn before it, if the template knows one"""


class SentencePiece:
    """See `Tokenizer`."""

    def __init__(self, files: Files) -> None:
        """From the files of a directory, `tokenizer.model` among them; what they leave open, the model says.

        Raises:
            UsageError: a file is broken.
        """
        self._files = dict(files)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=files["tokenizer.model"])
        except Exception as error:  # the library raises several
            raise UsageError(f"tokenizer.model cannot be read ({' '.join(str(error).split())}): get it again") from None
        model, settings = self._processor, read_settings(files)
        self.vocab_size = model.vocab_size()
        ids_of = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "pad_token": model.pad_id()}
        own = {name: model.id_to_piece(i) for name, i in ids_of.items() if i >= 0}
        tokens = own | dict(settings.tokens)
        chat = settings.chat and dataclasses.replace(settings.chat, tokens=tuple(sorted(tokens.items())))
        settings = dataclasses.replace(settings, tokens=tokens, chat=chat)
        begin = (model.bos_id(),) if model.bos_id() >= 0 else ()
        ids = special_ids(settings, self._id_of, begin=begin, size=self.vocab_size)
        self.begin_ids, self.end_ids, self.pad_id, self.pad_rule = ids.begin, ids.end, ids.pad, ids.pad_rule
        self.chat = settings.chat
        pieces = range(self.vocab_size)
        self._special = {i for i in pieces if model.is_control(i) or model.is_unknown(i)}
        self._names = {model.id_to_piece(i): i for i in pieces if model.is_control(i)}
        self._marks = re.compile("(" + "|".join(map(re.escape, sorted(self._names, key=len, reverse=True))) + ")")
        self.unique_segmentation = all(
            i in self._special or (len(model.id_to_piece(i)) == 1 and not model.is_byte(i)) for i in pieces
        )

    def __reduce__(self) -> tuple:
        return SentencePiece, (self._files,)

    def _id_of(self, piece: str) -> int | None:
        found = self._processor.piece_to_id(piece)
        return found if self._processor.id_to_piece(found) == piece else None

    @classmethod
    def train(cls, texts: Iterable[str], *, kind: Literal["char", "bpe"], vocab_size: int) -> "SentencePiece":
        """Trains a tokenizer that reproduces its input exactly; the same texts give the same bytes.

        Args:
            texts: training text; every character in it becomes known.
            kind: "char" for a token per character, "bpe" for byte-pair merges with byte fallback.
            vocab_size: upper bound on the number of ids.

        Raises:
            UsageError: there are more characters, each of which takes an id, as does each byte of "bpe".
        """
        texts, model = list(texts), io.BytesIO()
        characters = set().union(*texts)
        needed = len(SPECIAL) + len(characters - set(SPECIAL)) + (256 if kind == "bpe" else 0)
        if vocab_size < needed:
            raise UsageError(
                f"--tokenizer.vocab-size is {vocab_size}, but the characters of the task's texts take {needed}: give "
                f"at least {needed}"
            )
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=kind == "bpe",
            split_digits=True,
            character_coverage=1.0,
            max_sentence_length=2**30,  # by default texts of more than 4192 bytes are left out
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            user_defined_symbols=["\n", *sorted(characters & LOST)],
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            minloglevel=2,
            num_threads=1,
        )
        return cls({"tokenizer.model": model.getvalue()})

    def encode(self, text: str) -> list[int]:
        """Ids of a text; where there is a chat template, the special tokens that it writes become their ids.

        The library itself reads them as plain text, and so does this class for a model without chats.
        """
        check_text(text)
        if self.chat is None or not self._names:
            return self._processor.encode(text)
        ids: list[int] = []
        for part in self._marks.split(text):
            ids += [self._names[part]] if part in self._names else self._processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens appear as their names, and so do ids that a wider model has and we have not."""
        pieces: list[str] = []
        plain: list[int] = []
        for i in [int(i) for i in ids]:
            if i in self._special or i >= self.vocab_size:
                name = self._processor.id_to_piece(i) if i < self.vocab_size else f"<unused{i}>"
                pieces += [self._processor.decode(plain), name]
                plain = []
            else:
                plain.append(i)
        return "".join([*pieces, self._processor.decode(plain)])

    def token_bytes(self) -> list[bytes]:
        """What each id adds to a text, in UTF-8: «▁» is a space, <0xNN> one byte; b"" for special tokens."""

        def added(i: int) -> bytes:
            piece = self._processor.id_to_piece(i)
            if i in self._special:
                return b""
            if self._processor.is_byte(i):
                return bytes([int(piece[1:-1], 16)])
            return piece.replace("▁", " ").encode()

        return [added(i) for i in range(self.vocab_size)]

    def save(self, directory: AnyPath) -> None:
        """Writes the files that it was made from."""
        write_files(self._files, directory)
