"""Text to token ids and back: SentencePiece models and `tokenizer.json` behind one protocol, and chat templates."""

from lilo_jax.tokenizers.chat import Chat, end_id, lint, prompt_ids, turns
from lilo_jax.tokenizers.pretrained import has_tokenizer, load_tokenizer
from lilo_jax.tokenizers.protocol import Tokenizer
from lilo_jax.tokenizers.sentence_piece import SentencePiece
from lilo_jax.tokenizers.tokenizer_json import TokenizerJson

__all__ = [
    "Chat",
    "SentencePiece",
    "Tokenizer",
    "TokenizerJson",
    "end_id",
    "has_tokenizer",
    "lint",
    "load_tokenizer",
    "prompt_ids",
    "turns",
]
