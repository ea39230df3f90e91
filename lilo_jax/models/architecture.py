"""What a decoder computes: every difference between the model families, as numbers and names."""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, MultipleOf

from lilo_jax.bounds import Count, NotNegative, Number, Positive, Whole
from lilo_jax.models.rope import Rope


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a decoder and the few ways in which families differ; what a published `config.json` fixes."""

    family: str = "llama"
    """how it is written for others: llama, mistral, qwen2, qwen3, gemma2, gemma3_text, olmo2"""
    num_layers: Count = 2
    embed_dim: Count = 64
    num_heads: Count = 4
    num_kv_heads: Count = 2
    """key and value heads; divides num_heads"""
    head_dim: Annotated[int, Ge(4), MultipleOf(2)] = 16
    """even"""
    mlp_dim: Count = 128
    vocab_size: Whole = 0
    """0: the tokenizer's"""
    context_length: Whole = 0
    """longest sequence in tokens; 0: any"""
    tie_embeddings: bool = False
    """the output projection is the embedding table"""
    embedding_scale: Positive = 1.0
    """embeddings are multiplied by it"""
    rope: Rope = Rope()
    """rotation of queries and keys"""
    local_rope_theta: NotNegative = 0.0
    """base of the wavelengths, unstretched, in layers with a window; 0: rope there too"""
    windows: tuple[Whole, ...] = ()
    """of each layer: how many tokens a query sees, its own included, 0 for all; empty: all in every layer"""
    attention_bias: Literal["none", "qkv", "all"] = "none"
    """which projections of attention add a bias: none, queries keys and values, or the output too"""
    query_key_norm: Literal["none", "head", "projection"] = "none"
    """RMS norm of queries and keys before rotation: over each head, or over all heads together"""
    score_scale: NotNegative = 0.0
    """q k^T is multiplied by it; 0: 1 / sqrt(head_dim)"""
    attention_softcap: NotNegative = 0.0
    """scores become cap tanh(score / cap); 0: they do not"""
    logit_softcap: NotNegative = 0.0
    """the same for logits"""
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    """of the gate"""
    norm_placement: Literal["before", "after", "both"] = "before"
    """norms before attention and MLP, on their outputs, or both"""
    norm_epsilon: NotNegative = 1e-6
    norm_offset: Number = 0.0
    """added to the stored scales of norms: Gemma stores scale - 1"""


def fields_of(cls: type, values: object) -> dict[str, Any]:
    """The fields of a dataclass `cls`, read from an object that has them, and maybe more."""
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(cls)}


class LayerKind(NamedTuple):
    """What distinguishes a layer from others of the same decoder.

    Attributes:
        window: tokens that a query sees, its own included; 0: all.
        rope: rotation of queries and keys.
    """

    window: int
    rope: Rope


def layer_kinds(config: Architecture) -> tuple[LayerKind, ...]:
    """The kind of each layer."""
    local_rope = Rope(theta=config.local_rope_theta) if config.local_rope_theta else config.rope
    windows = config.windows or (0,) * config.num_layers
    return tuple(LayerKind(window, local_rope if window else config.rope) for window in windows)


def query_scale(config: Architecture) -> float:
    """What queries are multiplied by so that attention, which divides by sqrt(H), scales scores as the config says."""
    return config.score_scale * math.sqrt(config.head_dim) if config.score_scale else 1.0


def plain_attention(config: Architecture) -> bool:
    """Whether no layer has a window or capped scores."""
    return not any(config.windows) and not config.attention_softcap


def check_architecture(config: Architecture) -> None:
    """Raises ValueError, in one sentence with the cure, if the numbers do not fit together."""
    if config.num_heads % config.num_kv_heads:
        raise ValueError("--model.num-kv-heads must divide --model.num-heads")
    if len(config.windows) not in (0, config.num_layers):
        raise ValueError("--model.windows must name one window per layer (0: the layer sees all), or none at all")
    if config.rope.scaling in ("dynamic", "llama3", "yarn") and config.rope.original_length < 1:
        raise ValueError(f"--model.rope.scaling {config.rope.scaling} needs --model.rope.original-length")
