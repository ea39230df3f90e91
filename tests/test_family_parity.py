"""Every family beside its implementation in transformers, on random weights: logits, gradients, generation."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_models import tensors_of, write_all

from lilo_jax.device.mesh import MeshConfig, make_mesh, unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.huggingface import FAMILIES, read_architecture, write_config
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles
from lilo_jax.models.huggingface.weights import places, to_ours
from lilo_jax.models.segments import Segments
from lilo_jax.pretrained.sources import decoder_config, open_model
from lilo_jax.sampling import TokenRule, sample
from lilo_jax.types import Prompts, Requests

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB = 61
SHARED = {
    "vocab_size": VOCAB,
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def scaled(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 500.0, **parameters}


LINEAR = scaled("linear", factor=3.0)
DYNAMIC = scaled("dynamic", factor=2.0)
LLAMA3 = scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = scaled("yarn", factor=4.0, original_max_position_embeddings=32)
GEMMA3_ROPES = {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, head size 10, tied, biases, linear": (
        "Llama",
        {"head_dim": 10, "tie_word_embeddings": True, "attention_bias": True, "rope_parameters": LINEAR},
    ),
    "llama, llama3": ("Llama", {"rope_parameters": LLAMA3, "num_key_value_heads": 1}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN, "num_key_value_heads": 4}),
    "llama, dynamic": ("Llama", {"rope_parameters": DYNAMIC}),
    "mistral, window": ("Mistral", {"sliding_window": 5}),
    "mistral, no window, head size 6": ("Mistral", {"sliding_window": None, "head_dim": 6, "num_key_value_heads": 4}),
    "qwen2": ("Qwen2", {}),
    "qwen2, tied, windows above, yarn": (
        "Qwen2",
        {
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 2,
            "rope_parameters": YARN,
        },
    ),
    "qwen3": ("Qwen3", {"head_dim": 10}),
    "qwen3, tied, biases, windows": (
        "Qwen3",
        {
            "head_dim": 6,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
        },
    ),
    "gemma2": ("Gemma2", {"head_dim": 8, "query_pre_attn_scalar": 20, "sliding_window": 5}),
    "gemma2, untied, tight caps": (
        "Gemma2",
        {
            "head_dim": 6,
            "query_pre_attn_scalar": 6,
            "tie_word_embeddings": False,
            "sliding_window": 3,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 4.0,
            "num_hidden_layers": 5,
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "rope_parameters": GEMMA3_ROPES},
    ),
    "gemma3, head size 10, eight layers": (
        "Gemma3Text",
        {
            "head_dim": 10,
            "query_pre_attn_scalar": 30,
            "sliding_window": 6,
            "num_hidden_layers": 8,
            "num_key_value_heads": 1,
            "final_logit_softcapping": 10.0,
        },
    ),
    "olmo2": ("Olmo2", {}),
    "olmo2, tied, biases": (
        "Olmo2",
        {"num_key_value_heads": 4, "tie_word_embeddings": True, "attention_bias": True, "rope_parameters": LINEAR},
    ),
}


NETWORK_FIELDS = [
    *("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "attention_bias"),
    *("sliding_window", "layer_types", "query_pre_attn_scalar", "max_position_embeddings"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
]


class Pair(NamedTuple):
    """A model of transformers and the same of ours, read from the files that the former wrote."""

    theirs: Any
    config: Any
    params: Any
    path: Any


@functools.cache
def model_of(config):
    return build_model(config, unconstrained)


@functools.cache
def logits_of(config):
    model = model_of(config)
    return jax.jit(lambda params, *inputs: model.logits(params, model.hidden(params, *inputs)))


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    kind, changes = CASES[request.param]
    class_name = {"Gemma3Text": "Gemma3ForCausalLM"}.get(kind, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(**SHARED | changes)
    theirs = getattr(transformers, class_name)._from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():  # nothing keeps a value at which leaving it out would not show
        for name, weight in theirs.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                weight.add_(0.3 * torch.randn(weight.shape))
    path = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(path)
    source = open_model(str(path))
    config = decoder_config(source)
    return Pair(theirs, config, source.weights(model_of(config), make_mesh(MeshConfig())), path)


def random_tokens(rows, slots, seed=0):
    return np.random.default_rng(seed).integers(3, VOCAB, size=(rows, slots)).astype(np.int32)


def their_logits(model, tokens, **inputs):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens)), **inputs).logits.float().numpy()


@pytest.mark.slow
def test_logits_are_equal(pair):
    tokens = random_tokens(3, 40)
    expected = their_logits(pair.theirs, tokens)
    assert expected.std() > 0.3
    for layers in ("unrolled", "scanned"):
        config = dataclasses.replace(pair.config, train_layers=layers)
        error = np.abs(logits_of(config)(pair.params, tokens) - expected)
        assert error.max() < 1e-4
        assert error.mean() < 1e-5


def test_dynamic_wavelengths_beyond_the_trained_length(tmp_path):
    """Theirs follow the length of what they are given; ours are set for a longest sequence, here the same."""
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(**SHARED | {"max_position_embeddings": 16, "rope_parameters": DYNAMIC})
    theirs = transformers.LlamaForCausalLM._from_config(settings, attn_implementation="eager").eval()
    theirs.save_pretrained(tmp_path)
    source = open_model(str(tmp_path))
    config = decoder_config(source)
    params, tokens = source.weights(model_of(config), make_mesh(MeshConfig())), random_tokens(2, 40)
    expected = their_logits(theirs, tokens)
    longer = dataclasses.replace(config, context_length=40)
    np.testing.assert_allclose(logits_of(longer)(params, tokens), expected, atol=1e-4)
    assert np.abs(logits_of(config)(params, tokens) - expected).max() > 0.1


@pytest.mark.slow
def test_rows_may_be_ragged_and_padded_on_either_side(pair):
    """Theirs are padded on the left; ours on the right, where nothing sees the padding, and on the left as segments."""
    lengths, slots = np.array([5, 17, 40]), 40
    rows = [random_tokens(1, length, seed=length)[0] for length in lengths]
    left = np.zeros((3, slots), np.int32)
    right = np.zeros((3, slots), np.int32)
    for i, row in enumerate(rows):
        left[i, slots - len(row) :], right[i, : len(row)] = row, row
    mask = np.arange(slots) >= slots - lengths[:, None]
    positions = np.maximum(np.arange(slots) - (slots - lengths[:, None]), 0)
    expected = their_logits(
        pair.theirs, left, attention_mask=torch.tensor(mask).long(), position_ids=torch.tensor(positions)
    )
    found_right = np.asarray(logits_of(pair.config)(pair.params, right))
    found_left = np.asarray(
        logits_of(pair.config)(pair.params, left, Segments(mask.astype(np.int32), positions.astype(np.int32)))
    )
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(found_right[i, :length], expected[i, slots - length :], atol=1e-4)
        np.testing.assert_allclose(found_left[i, slots - length :], expected[i, slots - length :], atol=1e-4)


@pytest.mark.slow
def test_gradients_are_equal(pair):
    tokens = random_tokens(2, 20)
    their_loss = pair.theirs(torch.tensor(tokens), labels=torch.tensor(tokens).long()).loss
    pair.theirs.zero_grad()
    their_loss.backward()
    model = model_of(pair.config)

    def loss(params):
        logprobs = jax.nn.log_softmax(model.logits(params, model.hidden(params, tokens))[:, :-1])
        return -jnp.mean(jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1))

    value, gradient = jax.jit(jax.value_and_grad(loss))(pair.params)
    np.testing.assert_allclose(value, their_loss.item(), rtol=1e-5)
    by_name = dict(pair.theirs.named_parameters())
    squared_error = squared_norm = 0.0
    for name, place in places(FAMILIES[pair.config.family], pair.params).items():
        ours = gradient
        for step in place.path:
            ours = ours[step]
        ours = np.asarray(ours if place.layer is None else ours[place.layer])
        expected = to_ours(by_name[name].grad.numpy(), place)
        error, norm = np.linalg.norm(ours - expected), np.linalg.norm(expected)
        assert norm > 0, name
        assert error < 1e-3 * norm + 1e-6, name
        squared_error, squared_norm = squared_error + error**2, squared_norm + norm**2
    assert squared_error**0.5 < 1e-4 * squared_norm**0.5


@pytest.mark.slow
def test_greedy_generation_of_64_tokens_is_equal(pair):
    prompts = random_tokens(3, 9, seed=5)
    lengths = np.array([9, 6, 4], np.int32)
    requests = Requests(
        prompt=np.arange(3, dtype=np.int32),
        prefix_length=lengths,
        id=np.arange(3, dtype=np.int32),
        budget=np.full(3, 64, np.int32),
        expected_length=np.zeros(3, np.float32),
    )
    run = functools.partial(
        sample, model_of(pair.config), max_new_tokens=64, rule=TokenRule(temperature=0), end_ids=(2,), min_new_tokens=64
    )
    found = jax.jit(run)(pair.params, Prompts(tokens=prompts, lengths=lengths), requests, jax.random.key(0))
    for row, length, ours in zip(prompts, lengths, np.asarray(found.tokens), strict=True):
        whole = pair.theirs.generate(
            torch.tensor(row[None, :length]).long(),
            attention_mask=torch.ones(1, int(length)).long(),
            do_sample=False,
            min_new_tokens=64,
            max_new_tokens=64,
        )
        assert ours.tolist() == whole[0, length:].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["unrolled", "scanned"])
def test_incremental_decoding_equals_the_full_pass(pair, layers):
    config = dataclasses.replace(pair.config, decode_layers=layers)
    model, tokens = model_of(config), random_tokens(3, 40)  # one shape in all tests: compiled once
    expected = np.asarray(logits_of(pair.config)(pair.params, tokens))
    weights = jax.jit(model.decoding_weights)(pair.params)
    _, cache = jax.jit(model.extend)(weights, tokens[:, :10], np.int32(0), model.init_cache(3, 24))
    decode = jax.jit(model.decode)
    for t in range(10, 24):
        found, cache = decode(weights, tokens[:, t], np.full(3, t, np.int32), cache)
        np.testing.assert_allclose(found, expected[:, t], atol=5e-5)


@pytest.mark.slow
def test_bfloat16_is_as_near_to_float32_as_theirs(pair):
    tokens = random_tokens(3, 40)
    exact = np.asarray(logits_of(pair.config)(pair.params, tokens))
    ours = np.asarray(logits_of(dataclasses.replace(pair.config, compute_dtype="bfloat16"))(pair.params, tokens))
    rounded = type(pair.theirs).from_pretrained(pair.path, dtype=torch.bfloat16, attn_implementation="eager")
    theirs = their_logits(rounded, tokens)
    our_error, their_error = (np.sqrt(np.mean((x - exact) ** 2)) for x in (ours, theirs))
    assert 0 < our_error < 1.5 * their_error


@pytest.mark.slow
def test_import_export_import_is_byte_equal(pair, tmp_path):
    """In the stored type and layout: every tensor of the new files has the bytes of the old."""
    family = FAMILIES[pair.config.family]
    write_all(tmp_path, tensors_of(pair.params, family), shard_bytes=20_000)
    old, new = SafetensorsFiles(pair.path), SafetensorsFiles(tmp_path)
    assert old.shapes == new.shapes
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    for name in old.shapes:
        assert old.tensor(name).tobytes() == new.tensor(name).tobytes(), name


def test_a_written_config_is_read_as_the_same_by_both(pair, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(pair.config)))
    assert read_architecture(tmp_path) == read_architecture(pair.path)
    old, new = transformers.AutoConfig.from_pretrained(pair.path), transformers.AutoConfig.from_pretrained(tmp_path)
    for name in NETWORK_FIELDS:
        if hasattr(old, name):
            assert getattr(new, name) == getattr(old, name), name
    model = getattr(transformers, old.architectures[0])._from_config(new, attn_implementation="eager").eval()
    model.load_state_dict(pair.theirs.state_dict())
    tokens = random_tokens(2, 20)
    np.testing.assert_allclose(their_logits(model, tokens), their_logits(pair.theirs, tokens), atol=1e-6)
