"""Llama 2 and 3, and the many models of their shape: Rho, TinyLlama, DeepSeekMath, ..."""

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
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of a Llama."""
    common = read_common(fields, context=2048)
    fields.only("mlp_bias", [False])
    fields.only("pretraining_tp", [1])
    return Architecture(
        family="llama",
        **common,
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_bias="all" if fields.take("attention_bias", bool, False) else "none",
        rope=read_rope(fields, common["context_length"]),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Of a Llama."""
    return {
        **write_common(a, whole_heads=True),
        **write_rope(a.rope),
        "hidden_act": WRITTEN_ACTIVATIONS[a.activation],
        "attention_bias": a.attention_bias == "all",
        "mlp_bias": False,
    }


LLAMA = Family("llama", "LlamaForCausalLM", "LlamaForTokenClassification", read, write, NAMES)
