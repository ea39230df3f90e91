"""The weights that every contender runs, and their form as a Hugging Face checkpoint."""

import json
from pathlib import Path

import numpy as np

from benchmarks.workload import BOS, EOS, PAD, UNKNOWN, Shape

DEVIATION = 0.02


def weights(shape: Shape) -> dict[str, np.ndarray]:
    """Random float32 weights under their Hugging Face names; matrices are [out, in], norm scales scatter around 1."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(DEVIATION)

    def scale() -> np.ndarray:
        return 1 + rng.standard_normal(shape.embed_dim, dtype=np.float32) * np.float32(DEVIATION)

    width, query_width, key_width = (
        shape.embed_dim,
        *(n * shape.head_dim for n in (shape.num_heads, shape.num_kv_heads)),
    )
    named = {"model.embed_tokens.weight": matrix(shape.vocab_size, width), "model.norm.weight": scale()}
    for i in range(shape.num_layers):
        layer = {
            "self_attn.q_proj": matrix(query_width, width),
            "self_attn.k_proj": matrix(key_width, width),
            "self_attn.v_proj": matrix(key_width, width),
            "self_attn.o_proj": matrix(width, query_width),
            "mlp.gate_proj": matrix(shape.mlp_dim, width),
            "mlp.up_proj": matrix(shape.mlp_dim, width),
            "mlp.down_proj": matrix(width, shape.mlp_dim),
            "input_layernorm": scale(),
            "post_attention_layernorm": scale(),
        }
        named |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    return named


def model_config(shape: Shape) -> dict:
    """The `config.json` of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.embed_dim,
        "intermediate_size": shape.mlp_dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_theta,  # transformers 4 and Tunix
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},  # transformers 5
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
        "dtype": "float32",
    }


def write(shape: Shape, directory: Path) -> None:
    """Writes config, weights and a word-level tokenizer ("w17" is token 17).  Needs safetensors and tokenizers."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    (directory / "config.json").write_text(json.dumps(model_config(shape), indent=2, allow_nan=False))
    save_file(weights(shape), directory / "model.safetensors", metadata={"format": "pt"})
    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS, "<unk>": UNKNOWN}
    words |= {f"w{i}": i for i in range(len(words), shape.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, allow_nan=False))
