"""A family of models: how its `config.json` is read and written, and what its tensors are called.

The common part of both directions stands here; a family's file adds what is its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lilo_jax.errors import UsageError
from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.fields import REQUIRED, Fields

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
"""Their name for an activation, and ours."""
WRITTEN_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}

_LAYER = "model.layers.{layer}."
NAMES = {
    "trunk/embedding": "model.embed_tokens.weight",
    "trunk/norm/scale": "model.norm.weight",
    "head": "lm_head.weight",
    **{
        f"trunk/layers/attention/{ours}{suffix}": f"{_LAYER}self_attn.{theirs}_proj.{kind}"
        for ours, theirs in {"query": "q", "key": "k", "value": "v", "output": "o"}.items()
        for suffix, kind in {"": "weight", "_bias": "bias"}.items()
    },
    "trunk/layers/attention/query_norm/scale": f"{_LAYER}self_attn.q_norm.weight",
    "trunk/layers/attention/key_norm/scale": f"{_LAYER}self_attn.k_norm.weight",
    **{f"trunk/layers/mlp/{name}": f"{_LAYER}mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    "trunk/layers/attention_norm/scale": f"{_LAYER}input_layernorm.weight",
    "trunk/layers/mlp_norm/scale": f"{_LAYER}post_attention_layernorm.weight",
}
"""Our path of a weight, and its name in the files of Llama; most families differ in norms only."""
CRITIC_NAMES = {"head": "score.weight", "bias": "score.bias"}
"""The head of a token classifier, which is what a critic is to others."""


def both_norms(names: Mapping[str, str]) -> dict[str, str]:
    """The names of families with norms before and after attention and MLP."""
    return dict(names) | {
        "trunk/layers/attention_post_norm/scale": f"{_LAYER}post_attention_layernorm.weight",
        "trunk/layers/mlp_norm/scale": f"{_LAYER}pre_feedforward_layernorm.weight",
        "trunk/layers/mlp_post_norm/scale": f"{_LAYER}post_feedforward_layernorm.weight",
    }


class Family(NamedTuple):
    """One `model_type`.

    Attributes:
        model_type: its name in `config.json`.
        language_model: class of transformers that loads a policy.
        classifier: class of transformers that loads a critic.
        read: takes the family's fields and returns its architecture.
        write: (architecture) -> the fields, which `read` must turn into the same architecture.
        names: our path of a weight -> name of its tensor, with {layer} in those of a layer.
    """

    model_type: str
    language_model: str
    classifier: str
    read: Callable[[Fields], Architecture]
    write: Callable[[Architecture], dict[str, Any]]
    names: Mapping[str, str]


def read_common(
    fields: Fields,
    *,
    context: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    epsilon: float = 1e-6,
    tied: bool = False,
) -> dict[str, Any]:
    """What all families have, as fields of `Architecture`.

    Args:
        fields: of the config.
        context, kv_heads, head_dim, epsilon, tied: the family's defaults; None: as many as heads, and width / heads.
    """
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    default_kv_heads = heads if fields.says_null("num_key_value_heads") else kv_heads or heads
    default_head_dim = head_dim or (width // heads if width % heads == 0 else REQUIRED)
    return {
        "num_layers": fields.size("num_hidden_layers", most=MOST_LAYERS),
        "embed_dim": width,
        "num_heads": heads,
        "num_kv_heads": fields.size("num_key_value_heads", default_kv_heads),
        "head_dim": fields.size("head_dim", default_head_dim),
        "mlp_dim": fields.size("intermediate_size"),
        "vocab_size": fields.size("vocab_size"),
        "context_length": fields.size("max_position_embeddings", context),
        "norm_epsilon": fields.positive("rms_norm_eps", epsilon),
        "tie_embeddings": fields.take("tie_word_embeddings", bool, tied),
    }


def write_common(a: Architecture, *, whole_heads: bool = False) -> dict[str, Any]:
    """The inverse of `read_common`; `whole_heads`: transformers wants the width to be a multiple of the heads."""
    if whole_heads and a.embed_dim % a.num_heads:
        raise UsageError(f"embed_dim {a.embed_dim}, as it is no multiple of num_heads {a.num_heads}")
    # Stretched by «dynamic», the trained length is what others call the longest.
    longest = a.rope.original_length if a.rope.scaling == "dynamic" else a.context_length
    return {
        "vocab_size": a.vocab_size,
        "hidden_size": a.embed_dim,
        "intermediate_size": a.mlp_dim,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_heads,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "max_position_embeddings": longest or UNBOUNDED,
        "rms_norm_eps": a.norm_epsilon,
        "tie_word_embeddings": a.tie_embeddings,
        "attention_dropout": 0.0,
    }


MOST_LAYERS = 10_000
"""More than any model has: what is done for each layer must end."""
UNBOUNDED = 1 << 20
"""Written as the longest sequence of a model that has no bound."""


def read_windows(
    fields: Fields, num_layers: int, window: int | None, is_local: Callable[[int], bool]
) -> tuple[int, ...]:
    """The window of each layer, from `layer_types` or else by the family's rule.

    Args:
        fields: of the config.
        num_layers: of the model.
        window: of local layers; None: there are none.
        is_local: the rule, by layer.
    """
    default = ["sliding_attention" if is_local(i) else "full_attention" for i in range(num_layers)]
    types = fields.take("layer_types", list, default)
    unknown = [kind for kind in types if kind not in ("sliding_attention", "full_attention")]
    if unknown:
        raise fields.unsupported("layer_types", unknown[0], "layers are full_attention or sliding_attention")
    if len(types) != num_layers:
        raise UsageError(f"{fields.where}: layer_types names {len(types)} layers of {num_layers}")
    if window is None and "sliding_attention" in types:
        raise UsageError(
            f"{fields.where}: layers are sliding_attention, but sliding_window is not set: set it, or make all of "
            f"layer_types full_attention"
        )
    windows = tuple(int(window or 0) if kind == "sliding_attention" else 0 for kind in types)
    return windows if any(windows) else ()


def write_windows(a: Architecture) -> dict[str, Any]:
    """The inverse of `read_windows`; several different windows have no form."""
    windows = a.windows or (0,) * a.num_layers
    return {
        "sliding_window": max(windows) or None,
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
    }
