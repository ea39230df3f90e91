"""Qwen 2 and 2.5: a Llama with biases on queries, keys and values, and windows in its upper layers if switched on."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import (
    ACTIVATIONS,
    NAMES,
    WRITTEN_ACTIVATIONS,
    Family,
    read_common,
    read_windows,
    write_common,
    write_windows,
)
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of a Qwen 2."""
    common = read_common(fields, context=32_768, kv_heads=32)
    return Architecture(
        family="qwen2",
        **common,
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_bias="qkv",
        windows=read_upper_windows(fields, common["num_layers"]),
        rope=read_rope(fields, common["context_length"]),
    )


def read_upper_windows(fields: Fields, num_layers: int) -> tuple[int, ...]:
    """The layers from `max_window_layers` on have the window, if it is used at all."""
    used, null = fields.take("use_sliding_window", bool, False), fields.says_null("sliding_window")
    window, first = fields.size("sliding_window", 4096), fields.take("max_window_layers", int, 28)
    if null or not used:
        return read_windows(fields, num_layers, None, lambda i: False)
    return read_windows(fields, num_layers, window, lambda i: i >= first)


def write_upper_windows(a: Architecture) -> dict[str, Any]:
    """The inverse of `read_upper_windows`."""
    found = write_windows(a)
    first = next((i for i, window in enumerate(a.windows) if window), a.num_layers)
    return found | {"use_sliding_window": found["sliding_window"] is not None, "max_window_layers": first}


def write(a: Architecture) -> dict[str, Any]:
    """Of a Qwen 2."""
    return {
        **write_common(a),
        **write_rope(a.rope),
        **write_upper_windows(a),
        "hidden_act": WRITTEN_ACTIVATIONS[a.activation],
    }


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", "Qwen2ForTokenClassification", read, write, NAMES)
