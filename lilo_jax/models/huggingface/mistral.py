"""Mistral: a Llama in which every layer may have a window."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import (
    ACTIVATIONS,
    NAMES,
    WRITTEN_ACTIVATIONS,
    Family,
    read_common,
    write_common,
    write_windows,
)
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of a Mistral; without `sliding_window` it is 4096, null means none."""
    common = read_common(fields, context=131_072, kv_heads=8)
    windowless = fields.says_null("sliding_window")
    window = fields.size("sliding_window", 4096)
    return Architecture(
        family="mistral",
        **common,
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        windows=() if windowless else (window,) * common["num_layers"],
        rope=read_rope(fields, common["context_length"]),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Of a Mistral."""
    return {
        **write_common(a),
        **write_rope(a.rope),
        "hidden_act": WRITTEN_ACTIVATIONS[a.activation],
        "sliding_window": write_windows(a)["sliding_window"],
    }


MISTRAL = Family("mistral", "MistralForCausalLM", "MistralForTokenClassification", read, write, NAMES)
