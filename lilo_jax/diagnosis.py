"""What `lilo doctor --model` says of a model: its shape, its tokenizer, a rendered prompt, and what looks wrong."""

import math
from collections.abc import Sequence

import jax

from lilo_jax.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.pretrained import decoder_config, open_model
from lilo_jax.tokenizers import Tokenizer, lint, prompt_ids


def model_lines(path: str, prompt: str) -> list[str]:
    """Lines about a model, its tokenizer and how it renders `prompt`, warnings last.

    Args:
        path: Hugging Face directory, hub id or run directory.
        prompt: a question.
    """
    source = open_model(path)
    config, tokenizer = decoder_config(source), source.tokenizer()
    shapes = jax.eval_shape(build_model(config, unconstrained).init, jax.random.key(0))
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    plain = fields_of(Architecture, Architecture(family=config.family))
    shape = {name: value for name, value in fields_of(Architecture, config).items() if value != plain[name]}
    unused = config.vocab_size - tokenizer.vocab_size
    lines = [
        f"model {path}: {config.family}, {weights:,} weights, {4 * weights / 2**30:.2f} GiB as float32",
        *(f"  {name} {value}" for name, value in shape.items()),
        f"tokenizer: {type(tokenizer).__name__}, {tokenizer.vocab_size} ids"
        + (f"; the {unused} rows of the embedding beyond them are never sampled" if unused else ""),
        f"begins with: {_named(tokenizer, tokenizer.begin_ids) or 'nothing'}",
        f"ends with any of: {_named(tokenizer, tokenizer.end_ids)}",
        f"padding: {tokenizer.pad_rule}",
        *_rendered("prompt", tokenizer, prompt, chat=False),
    ]
    if tokenizer.chat is None:
        return [*lines, "chat template: none"]
    warnings = [f"warning: {text}" for text in lint(tokenizer)]
    return [*lines, *_rendered("chat prompt", tokenizer, prompt, chat=True), *warnings]


def _rendered(name: str, tokenizer: Tokenizer, prompt: str, *, chat: bool) -> list[str]:
    ids = prompt_ids(tokenizer, prompt, chat=chat)
    return [f"{name}: {tokenizer.decode(ids)!r}", f"{name} ids: {' '.join(map(str, ids))}"]


def _named(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return ", ".join(f"{tokenizer.decode([i])} ({i})" for i in ids)
