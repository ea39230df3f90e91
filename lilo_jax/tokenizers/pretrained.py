"""The tokenizer in a directory: one of Hugging Face's layout, or one that `save` wrote."""

import json
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.storage.hub import refuse_pointer
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers.protocol import Tokenizer
from lilo_jax.tokenizers.sentence_piece import SentencePiece
from lilo_jax.tokenizers.settings import SETTINGS, generation_config
from lilo_jax.tokenizers.tokenizer_json import TokenizerJson

KEPT = ("tokenizer.json", "tokenizer.model", *SETTINGS, "added_tokens.json", "vocab.json", "merges.txt")
"""Files that belong to a tokenizer, and go wherever it goes."""


def has_tokenizer(directory: AnyPath) -> bool:
    """Whether there is a file that `load_tokenizer` can begin with."""
    return any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))


def load_tokenizer(directory: AnyPath) -> Tokenizer:
    """The tokenizer of `tokenizer.json`, or else of `tokenizer.model`.

    Raises:
        UsageError: there is neither, or a file is broken.
    """
    there = [directory / name for name in KEPT if (directory / name).is_file()]
    for path in there:
        refuse_pointer(path)
    files = {path.name: path.read_bytes() for path in there}
    try:
        if (generation := generation_config(files, _model_config(directory))) is not None:
            files["generation_config.json"] = generation
        if "tokenizer.json" in files:
            return TokenizerJson(files)
        if "tokenizer.model" in files:
            return SentencePiece(files)
    except UsageError as error:
        raise UsageError(f"the tokenizer in {directory}: {error}") from None
    raise UsageError(f"no tokenizer in {directory}: it needs tokenizer.json or tokenizer.model")


def _model_config(directory: AnyPath) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"config.json is not valid JSON: {error}") from None
    return values if isinstance(values, dict) else {}
