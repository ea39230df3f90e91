"""The tokenizer of a GGUF file, as the `tokenizer.json` from which it was once made."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lilo_jax.errors import UsageError, unknown_name


class _Vocabulary(NamedTuple):
    """The tokens of a GGUF file.

    Attributes:
        tokens: text of each id.
        kinds: of each id, as numbers of `gguf.TokenType`.
        scores: of each id; empty for byte-level tokenizers.
        merges: pairs, best first; empty if they follow from the scores.
    """

    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[tuple[str, str]]

    def of_kind(self, *kinds: int) -> list[str]:
        """The texts of some kinds of tokens, in the order of their ids."""
        return [token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in kinds]


NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
"""Kinds of tokens in a GGUF file."""


class _Cut(NamedTuple):
    """How a byte-level tokenizer treats a text before it merges.

    Attributes:
        pattern: of words; empty: GPT-2's.
        digits: whether each digit stands alone.
        compose: whether characters are composed first (NFC).
        begin: whether a begin token comes first, if the file does not say.
        whole: whether a word that is a token is not merged from its bytes.
    """

    pattern: str = ""
    digits: bool = False
    compose: bool = False
    begin: bool = False
    whole: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDING = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT4 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _ENDING
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _ENDING
CUTS = {
    "gpt-2": _Cut(),
    "olmo": _Cut(),
    "smollm": _Cut(digits=True),
    "llama-bpe": _Cut(_GPT4, begin=True, whole=True),
    "llama3": _Cut(_GPT4, begin=True, whole=True),
    "dbrx": _Cut(_GPT4),
    "qwen2": _Cut(_QWEN2, compose=True),
}
"""`tokenizer.ggml.pre` -> what it stands for."""
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
"""Tokens that end a completion where the chat template writes them."""


def tokenizer_of(metadata: Mapping[str, Any], where: str) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, and what `tokenizer_config.json` says of it."""
    said = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    vocabulary = _vocabulary(said, where)
    kind = said.get("model")
    if kind == "gpt2":
        if (pre := said.get("pre")) not in CUTS:
            raise unknown_name(f"tokenizer.ggml.pre in {where}:", str(pre), CUTS)
        tokenizer, begins = _byte_level(vocabulary, CUTS[pre]), CUTS[pre].begin
    elif kind == "llama":
        prefix = bool(said.get("add_space_prefix", True))
        tokenizer, begins = _sentence_piece(vocabulary, said.get("unknown_token_id"), prefix=prefix), True
    else:
        raise unknown_name(f"tokenizer.ggml.model in {where}:", str(kind), ("gpt2", "llama"))
    tokenizer.add_special_tokens([_added(token, special=True) for token in vocabulary.of_kind(CONTROL)])
    known = tokenizer.get_vocab()
    own = [_added(token, special=False) for token in vocabulary.of_kind(USER_DEFINED) if token in known]
    tokenizer.add_tokens(own)
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {name: said.get(f"{theirs}_token_id") for name, theirs in names.items()}
    settings: dict[str, Any] = {f"{name}_token": vocabulary.tokens[i] for name, i in ids.items() if i is not None}
    settings["add_bos_token"] = bool(said.get("add_bos_token", begins)) and ids["bos"] is not None
    if settings["add_bos_token"]:
        begin = settings["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, ids["bos"])]
        )
    if template := metadata.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    longest = metadata[f"{metadata['general.architecture']}.context_length"]
    return tokenizer, settings | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}


def _added(token: str, *, special: bool) -> AddedToken:
    return AddedToken(token, normalized=False, special=special)


def _vocabulary(said: Mapping[str, Any], where: str) -> _Vocabulary:
    tokens = said.get("tokens", [])
    kinds, scores = said.get("token_type", [NORMAL] * len(tokens)), said.get("scores", [])
    named = [said[key] for key in said if key.endswith("_token_id")]
    if not tokens or len(kinds) != len(tokens) or any(not 0 <= i < len(tokens) for i in named):
        raise UsageError(f"{where} holds no whole vocabulary: get it again, or take another file")
    while kinds[-1] == UNUSED and tokens[-1] == f"[PAD{len(tokens) - 1}]":  # a row of the embedding without a token
        tokens, kinds = tokens[:-1], kinds[:-1]
    if len(set(tokens)) != len(tokens):
        raise UsageError(f"{where} has two tokens of the same text: take another file")
    merges = [tuple(merge.split(" ")) for merge in said.get("merges", [])]
    if any(len(pair) != 2 for pair in merges) or (said.get("model") == "gpt2" and not merges):
        raise UsageError(f"the merges of {where} are no pairs: get it again, or take another file")
    return _Vocabulary(tokens, kinds, scores[: len(tokens)], [(a, b) for a, b in merges])


def _byte_level(vocabulary: _Vocabulary, cut: _Cut) -> Tokenizer:
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(ids, vocabulary.merges, ignore_merges=cut.whole))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if cut.digits else []
    if cut.pattern:
        steps.append(pre_tokenizers.Split(Regex(cut.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut.pattern))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if cut.compose:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _sentence_piece(vocabulary: _Vocabulary, unknown: int | None, *, prefix: bool) -> Tokenizer:
    """Of a SentencePiece model of pairs; `prefix`: a space is put before a text."""
    # Runs of spaces that the makers added are stored as spaces, and are pieces like others.
    tokens = [token if token.strip(" ") else "▁" * len(token) for token in vocabulary.tokens]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            ids,
            _merges_of_pieces(vocabulary._replace(tokens=tokens)),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=BYTE in vocabulary.kinds,
        )
    )
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _merges_of_pieces(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third: pieces that the makers added first, then by falling score."""
    if vocabulary.merges:
        return vocabulary.merges
    kinds, scores = vocabulary.kinds, vocabulary.scores or [0.0] * len(vocabulary.tokens)
    pieces = [i for i, kind in enumerate(kinds) if kind in (NORMAL, USER_DEFINED)]
    pieces.sort(key=lambda i: (kinds[i] == NORMAL, -scores[i] if kinds[i] == NORMAL else 0.0, i))
    known = {vocabulary.tokens[i] for i in pieces}
    found = []
    for i in pieces:
        piece = vocabulary.tokens[i]
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        found += [(left, right) for left, right in splits if left in known and right in known]
    return found


def special_ids(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The ids of `generation_config.json`: what ends a turn ends a completion too."""
    said = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    ends = [said.get(f"{name}_token_id") for name in ("eos", "eot", "eom")]
    template = said.get("tokenizer.chat_template", "")
    ends += [said["tokens"].index(token) for token in TURN_ENDS if token in template and token in said["tokens"]]
    kept = list(dict.fromkeys(i for i in ends if i is not None))
    if not kept:
        raise UsageError(f"{where} does not say which token ends a text: take another file")
    return {
        "bos_token_id": said.get("bos_token_id"),
        "eos_token_id": kept[0] if len(kept) == 1 else kept,
        "pad_token_id": said.get("padding_token_id"),
    }
