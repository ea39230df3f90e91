"""OLMo 2: norms on the outputs of attention and MLP, queries and keys normalised over all heads together."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import (
    ACTIVATIONS,
    NAMES,
    WRITTEN_ACTIVATIONS,
    Family,
    both_norms,
    read_common,
    write_common,
)
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.rope import read_rope, write_rope


def read(fields: Fields) -> Architecture:
    """Of an OLMo 2."""
    common = read_common(fields, context=2048, epsilon=1e-5)
    return Architecture(
        family="olmo2",
        **common,
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_bias="all" if fields.take("attention_bias", bool, False) else "none",
        query_key_norm="projection",
        norm_placement="after",
        rope=read_rope(fields, common["context_length"]),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Of an OLMo 2."""
    return {
        **write_common(a),
        **write_rope(a.rope),
        "hidden_act": WRITTEN_ACTIVATIONS[a.activation],
        "attention_bias": a.attention_bias == "all",
    }


OLMO2 = Family("olmo2", "Olmo2ForCausalLM", "Olmo2ForSequenceClassification", read, write, both_norms(NAMES))
