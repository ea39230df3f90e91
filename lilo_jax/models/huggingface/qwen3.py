"""Qwen 3: queries and keys are normalised per head, and heads have a size of their own."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import (
    ACTIVATIONS,
    NAMES,
    WRITTEN_ACTIVATIONS,
    Family,
    read_common,
    write_common,
)
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.qwen2 import read_upper_windows, write_upper_windows
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of a Qwen 3."""
    common = read_common(fields, context=32_768, kv_heads=32, head_dim=128)
    return Architecture(
        family="qwen3",
        **common,
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_bias="all" if fields.take("attention_bias", bool, False) else "none",
        query_key_norm="head",
        windows=read_upper_windows(fields, common["num_layers"]),
        rope=read_rope(fields, common["context_length"]),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Of a Qwen 3."""
    return {
        **write_common(a),
        **write_rope(a.rope),
        **write_upper_windows(a),
        "hidden_act": WRITTEN_ACTIVATIONS[a.activation],
        "attention_bias": a.attention_bias == "all",
    }


QWEN3 = Family("qwen3", "Qwen3ForCausalLM", "Qwen3ForTokenClassification", read, write, NAMES)
