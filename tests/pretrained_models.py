"""Small random models in the exact on-disk form of published ones: saved by transformers, tokenizers trained here."""

import pathlib
import random

import numpy as np
import pytest
from flax import traverse_util

from lilo_jax.models.huggingface.safetensors_files import write_tensors
from lilo_jax.models.huggingface.weights import named_tensors

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def texts() -> list[str]:
    """Training text of the tokenizers: sums, words, and what the chain task is made of."""
    rng = random.Random(0)
    sums = [
        f"What is {rng.randrange(100)} plus {rng.randrange(100)}? The answer is {rng.randrange(200)}."
        for _ in range(200)
    ]
    chains = [
        f"{rng.randrange(10)}{''.join(rng.choices('abcdefghij', k=8))}......={rng.randrange(10**8)}" for _ in range(400)
    ]
    return sums + chains


def byte_level_tokenizer(specials: list[str], vocab_size: int):
    """A byte-level BPE as Qwen 2 and Llama 3 have."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def write_qwen2(path: pathlib.Path, **changes) -> pathlib.Path:
    """A Qwen 2 with a ChatML template, no BOS, two EOS ids, and more rows of the embedding than ids."""
    transformers = pytest.importorskip("transformers")
    tokenizer = byte_level_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], 300)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    fast.save_pretrained(path)
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
        "tie_word_embeddings": True, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    _save(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**sizes | changes), path, eos_token_id=[2, 0])
    return path


def write_llama(path: pathlib.Path, **changes) -> pathlib.Path:
    """A Llama 3 with a BOS token, llama3 wavelengths and an output projection of its own."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = byte_level_tokenizer(["<|begin_of_text|>", "<|end_of_text|>"], 290)
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, 0)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token="<|end_of_text|>"
    )
    fast.save_pretrained(path)
    scaling = {
        "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    sizes = {
        "vocab_size": 290, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2, "rope_parameters": scaling,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    _save(transformers.LlamaForCausalLM, transformers.LlamaConfig(**sizes | changes), path, eos_token_id=1)
    return path


def _save(kind, config, path: pathlib.Path, *, eos_token_id) -> None:
    import torch

    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():  # norms and biases scatter too, so that leaving one out would show
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight") or name.endswith("bias"):
                weight.add_(0.2 * torch.randn(weight.shape))
    model.generation_config.eos_token_id = eos_token_id
    model.save_pretrained(path)


def tensors_of(params, family):
    """Our weights under the names and in the layout of a family."""
    stream = ((path, None, np.asarray(leaf)) for path, leaf in traverse_util.flatten_dict(params).items())
    return dict(named_tensors(stream, family, params))


def write_all(directory, tensors, **how):
    """Writes tensors, by name, as safetensors."""
    write_tensors(directory, {name: tensor.shape for name, tensor in tensors.items()}, tensors.items(), **how)
