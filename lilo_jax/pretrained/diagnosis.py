"""What `lilo doctor --model` says of a model: its shape, its tokenizer, a rendered prompt, and what looks wrong."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from lilo_jax.errors import UsageError
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.pretrained.sources import PretrainedModel, decoder_config, open_model, weight_shapes
from lilo_jax.tokenizers import Tokenizer, lint, prompt_ids


class Diagnosis(NamedTuple):
    """What there is to say of a model.

    Attributes:
        lines: about it, warnings and errors last.
        errors: why it cannot be used; empty if it can.
    """

    lines: list[str]
    errors: list[str]


def diagnose(path: str, prompt: str) -> Diagnosis:
    """Looks at all of a model, its weights too; what cannot be read hides nothing else.

    Args:
        path: Hugging Face directory, hub id or run directory.
        prompt: a question, which is shown rendered.
    """
    source = open_model(path)
    looks: list[Callable[[], list[str]]] = [
        lambda: _shape(path, source),
        lambda: _weights(source),
        lambda: _tokenizer(source),
        lambda: _rendered("prompt", source.tokenizer(), prompt, chat=False),
        lambda: _chat(source.tokenizer(), prompt),
    ]
    lines, errors = [], []
    for look in looks:
        try:
            lines += look()
        except UsageError as error:
            errors.append(str(error))
    errors = list(dict.fromkeys(errors))
    return Diagnosis([*lines, *(f"error: {error}" for error in errors)], errors)


def _shape(path: str, source: PretrainedModel) -> list[str]:
    config = decoder_config(source)
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weight_shapes(config)))
    plain = fields_of(Architecture, Architecture(family=config.family))
    shape = {name: value for name, value in fields_of(Architecture, config).items() if value != plain[name]}
    return [
        f"model {path}: {config.family}, {weights:,} weights, {4 * weights / 2**30:.2f} GiB as float32",
        *(f"  {name} {value}" for name, value in shape.items()),
    ]


def _tokenizer(source: PretrainedModel) -> list[str]:
    tokenizer = source.tokenizer()
    unused = source.architecture().vocab_size - tokenizer.vocab_size
    return [
        f"tokenizer: {type(tokenizer).__name__}, {tokenizer.vocab_size} ids"
        + (f"; the {unused} rows of the embedding beyond them are never sampled" if unused > 0 else ""),
        f"begins with: {_named(tokenizer, tokenizer.begin_ids) or 'nothing'}",
        f"ends with any of: {_named(tokenizer, tokenizer.end_ids)}",
        f"padding: {tokenizer.pad_rule}",
    ]


def _chat(tokenizer: Tokenizer, prompt: str) -> list[str]:
    if tokenizer.chat is None:
        return ["chat template: none"]
    warnings = [f"warning: {text}" for text in lint(tokenizer)]
    return [*_rendered("chat prompt", tokenizer, prompt, chat=True), *warnings]


def _weights(source: PretrainedModel) -> list[str]:
    source.check()
    source.read_through()
    return ["weights: all there, all finite"]


def _rendered(name: str, tokenizer: Tokenizer, prompt: str, *, chat: bool) -> list[str]:
    ids = prompt_ids(tokenizer, prompt, chat=chat)
    return [f"{name}: {tokenizer.decode(ids)!r}", f"{name} ids: {' '.join(map(str, ids))}"]


def _named(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return ", ".join(f"{tokenizer.decode([i])} ({i})" for i in ids)
