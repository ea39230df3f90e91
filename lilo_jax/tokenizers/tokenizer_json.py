"""Tokenizers of a `tokenizer.json`, run by the `tokenizers` library."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers

from lilo_jax.errors import UsageError
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers.protocol import check_text
from lilo_jax.tokenizers.settings import Files, read_settings, special_ids, write_files


class TokenizerJson:
    """See `Tokenizer`."""

    unique_segmentation = False

    def __init__(self, files: Files) -> None:
        """From the files of a directory, `tokenizer.json` among them.

        Raises:
            UsageError: a file is broken, or nothing says what ends a text.
        """
        self._files = dict(files)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
        except Exception as error:  # the library has no class of its own for it
            said = " ".join(str(error).split())
            raise UsageError(f"tokenizer.json cannot be read ({said}): get it again") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not self.vocab_size:
            raise UsageError("tokenizer.json holds no token: get it again")
        settings = read_settings(files)
        ids = special_ids(settings, self._tokenizer.token_to_id, begin=self._added_before(), size=self.vocab_size)
        self.begin_ids, self.end_ids, self.pad_id, self.pad_rule = ids.begin, ids.end, ids.pad, ids.pad_rule
        self.chat = settings.chat

    def __reduce__(self) -> tuple:
        return TokenizerJson, (self._files,)

    def _added_before(self) -> tuple[int, ...]:
        """The ids that the file's own post-processor puts before a text."""
        ordinary = self.encode("a")
        whole = self._tokenizer.encode("a").ids
        starts = (i for i in range(len(whole)) if whole[i : i + len(ordinary)] == ordinary)
        return tuple(whole[: next(starts, 0)])

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens that stand in it become their ids."""
        check_text(text)
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _is_known(self, i: int) -> bool:
        return self._tokenizer.id_to_token(i) is not None  # a vocabulary may have gaps

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens appear as their names, and so do ids that a wider model has and we have not."""
        text = ""
        for known, group in itertools.groupby(map(int, ids), key=self._is_known):
            part = list(group)
            text += self._tokenizer.decode(part, skip_special_tokens=False) if known else "".join(map(_unused, part))
        return text

    def token_bytes(self) -> list[bytes]:
        """What each id adds to a text, in UTF-8.

        Raises:
            UsageError: it is neither a byte-level tokenizer nor one in the manner of SentencePiece.
        """
        spec = json.loads(self._files["tokenizer.json"])
        parts = [*_parts(spec.get("decoder")), *_parts(spec.get("pre_tokenizer"))]
        kinds = {part["type"] for part in parts}
        spaced = "ByteLevel" not in kinds
        if spaced and not kinds & {"ByteFallback", "Metaspace"}:
            raise UsageError("stop strings need a byte-level tokenizer or one in the manner of SentencePiece")
        table = [b""] * self.vocab_size
        for token, i in self._tokenizer.get_vocab(with_added_tokens=True).items():
            table[i] = _sentence_piece(token) if spaced else _byte_level(token)
        for i, added in self._tokenizer.get_added_tokens_decoder().items():
            # Symbols that a SentencePiece model was given by its makers, such as runs of spaces, are among these.
            content = added.content.replace("▁", " ") if spaced else added.content
            table[i] = b"" if added.special else content.encode()
        return table

    def save(self, directory: AnyPath) -> None:
        """Writes the files that it was made from."""
        write_files(self._files, directory)


def _unused(i: int) -> str:
    return f"<unused{i}>"


def _parts(spec: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a decoder or pre-tokenizer, sequences taken apart."""
    if spec is None:
        return
    yield spec
    for inner in spec.get("decoders", spec.get("pretokenizers", [])):
        yield from _parts(inner)


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies.

    Printable characters of Latin-1 stand for themselves, the n-th other byte for the character 256 + n (Radford et al.
    2019, GPT-2's released code).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token) if all(c in _BYTES for c in token) else token.encode()


def _sentence_piece(token: str) -> bytes:
    if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode()
