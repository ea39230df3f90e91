"""Gemma 2: norms on both sides, capped scores and logits, windows in every other layer, scaled embeddings."""

import math
from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import (
    ACTIVATIONS,
    NAMES,
    WRITTEN_ACTIVATIONS,
    Family,
    both_norms,
    read_common,
    read_windows,
    write_common,
    write_windows,
)
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of a Gemma 2."""
    common = read_gemma(fields, context=8192)
    return Architecture(
        family="gemma2",
        **common,
        attention_softcap=read_softcap(fields, "attn_logit_softcapping", 50.0),
        logit_softcap=read_softcap(fields, "final_logit_softcapping", 30.0),
        windows=read_windows(fields, common["num_layers"], read_window(fields), lambda i: i % 2 == 0),
        rope=read_rope(fields, common["context_length"]),
    )


def read_gemma(fields: Fields, *, context: int) -> dict[str, Any]:
    """What Gemma 2 and 3 share, as fields of `Architecture`."""
    common = read_common(fields, context=context, kv_heads=4, head_dim=256, tied=True)
    activation = fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    fields.only("hidden_act", [name for name, ours in ACTIVATIONS.items() if ours == activation])  # not read by others
    fields.only("use_bidirectional_attention", [False])
    return common | {
        "activation": activation,
        "attention_bias": "all" if fields.take("attention_bias", bool, False) else "none",
        "embedding_scale": math.sqrt(common["embed_dim"]),
        "score_scale": fields.positive("query_pre_attn_scalar", 256) ** -0.5,
        "norm_placement": "both",
        "norm_offset": 1.0,
    }


def read_softcap(fields: Fields, name: str, default: float) -> float:
    """A cap; null means none."""
    none = fields.says_null(name) or (not default and not fields.has(name))
    return 0.0 if none else fields.positive(name, default)


def read_window(fields: Fields) -> int | None:
    """Of the layers that have one; null means none."""
    return None if fields.says_null("sliding_window") else fields.size("sliding_window", 4096)


def write_gemma(a: Architecture) -> dict[str, Any]:
    """The inverse of `read_gemma`."""
    scalar = round(a.score_scale**-2) if a.score_scale else a.head_dim  # transformers takes a whole number only
    return {
        **write_common(a, whole_heads=True),
        "hidden_activation": WRITTEN_ACTIVATIONS[a.activation],
        "attention_bias": a.attention_bias == "all",
        "query_pre_attn_scalar": max(scalar, 1),
        "attn_logit_softcapping": a.attention_softcap or None,
        "final_logit_softcapping": a.logit_softcap or None,
        **write_windows(a),
    }


def write(a: Architecture) -> dict[str, Any]:
    """Of a Gemma 2."""
    return write_gemma(a) | write_rope(a.rope)


GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "Gemma2ForTokenClassification", read, write, both_norms(NAMES))
