"""Text to token ids and back."""

import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import sentencepiece

from lilo_jax.errors import UsageError


class Tokenizer(Protocol):
    """What the rest of the project needs of a tokenizer."""

    vocab_size: int
    pad_id: int
    bos_id: int
    end_ids: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids.  Special tokens stay visible, so that a response that contains one is not mistaken for its
        text alone.
        """
        ...

    def token_bytes(self) -> list[bytes]:
        """What each id adds to a text, in UTF-8; b"" for special tokens.  A token may hold a part of a character."""
        ...

    def save(self, path: pathlib.Path) -> None:
        """Writes the tokenizer to a file."""
        ...


class SentencePiece:
    """A SentencePiece model with ids for padding, unknown, begin and end."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()
        self.pad_id, self.bos_id = self._processor.pad_id(), self._processor.bos_id()
        self.end_ids: tuple[int, ...] = (self._processor.eos_id(),)
        self._special = {
            i for i in range(self.vocab_size) if self._processor.is_control(i) or self._processor.is_unknown(i)
        }

    def __reduce__(self) -> tuple:
        return SentencePiece, (self._model,)

    @classmethod
    def load(cls, path: pathlib.Path) -> "SentencePiece":
        """Reads a `.model` file."""
        if not path.is_file():
            raise UsageError(f"no SentencePiece model at {path}")
        return cls(path.read_bytes())

    @classmethod
    def train(cls, texts: Iterable[str], *, kind: Literal["char", "bpe"], vocab_size: int) -> "SentencePiece":
        """Trains a tokenizer that reproduces its input exactly; the same texts give the same bytes.

        Args:
            texts: training text; every character in it becomes known.
            kind: "char" for a token per character, "bpe" for byte-pair merges with byte fallback.
            vocab_size: upper bound on the number of ids.
        """
        model = io.BytesIO()
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
            user_defined_symbols=["\n"],
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            minloglevel=2,
            num_threads=1,
        )
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token."""
        return self._processor.encode(text)

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

    def save(self, path: pathlib.Path) -> None:
        """Writes the `.model` file."""
        path.write_bytes(self._model)
