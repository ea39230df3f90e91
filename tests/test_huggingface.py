"""Configs, tensor names and files of Hugging Face's layout: read rightly, or refused by naming what is wrong."""

import dataclasses
import json
import math

import jax
import ml_dtypes
import numpy as np
import pytest
from pretrained_models import tensors_of, write_all
from safetensors.numpy import save_file

from lilo_jax.device.mesh import unconstrained
from lilo_jax.errors import UsageError
from lilo_jax.models import build_model
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import FAMILIES, read_architecture, write_config
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles, write_tensors
from lilo_jax.models.huggingface.weights import places, stream_weights
from lilo_jax.models.rope import Rope
from lilo_jax.storage import hub

BASE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SIZES = {
    "vocab_size": 40, "embed_dim": 16, "mlp_dim": 24, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2,
    "context_length": 64,
}  # fmt: skip


def read(path, model_type, **values):
    """The architecture of a config.json with these values beside the sizes."""
    (path / "config.json").write_text(json.dumps({"model_type": model_type} | BASE | values))
    return read_architecture(path)


# --------------------------------------------------------------------------------------------- configs, both versions
GEMMA = {
    "activation": "gelu_tanh", "embedding_scale": 4.0, "norm_placement": "both", "norm_offset": 1.0,
    "tie_embeddings": True, "head_dim": 8,
}  # fmt: skip
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
LLAMA3_ROPE = Rope(theta=5e5, scaling="llama3", factor=8.0, original_length=32)
YARN_ROPE = Rope(
    theta=1e6, scaling="yarn", factor=4.0, original_length=16, attention_factor=pytest.approx(0.1 * math.log(4) + 1)
)

WRITTEN = {
    "llama 2 as transformers 4 wrote it": (
        "llama",
        {"head_dim": None, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
         "pretraining_tp": 1, "mlp_bias": False, "attention_bias": False, "torch_dtype": "float16", "use_cache": True,
         "tie_word_embeddings": False, "transformers_version": "4.31.0", "_name_or_path": "x", "bos_token_id": 1},
        {"head_dim": 4, "norm_epsilon": 1e-5},
    ),
    "llama 3.1 as transformers 4 wrote it": (
        "llama",
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}, "head_dim": 6, "num_key_value_heads": 4},
        {"head_dim": 6, "num_kv_heads": 4, "rope": LLAMA3_ROPE},
    ),
    "llama 3.1 as transformers 5 writes it": (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}, "dtype": "bfloat16"},
        {"head_dim": 4, "rope": LLAMA3_ROPE},
    ),
    "llama with the older name of the kind": (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "attention_bias": True},
        {"head_dim": 4, "rope": Rope(scaling="linear", factor=2.0), "attention_bias": "all"},
    ),
    "llama, dynamic": (
        "llama",
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"head_dim": 4, "rope": Rope(scaling="dynamic", factor=2.0, original_length=64)},
    ),
    "mistral without a word of its window": ("mistral", {}, {"head_dim": 4, "windows": (4096, 4096)}),
    "mistral with none": ("mistral", {"sliding_window": None}, {"head_dim": 4}),
    "qwen2, windows off": (
        "qwen2",
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1, "rope_theta": 1e6},
        {"head_dim": 4, "attention_bias": "qkv", "rope": Rope(theta=1e6)},
    ),
    "qwen2, windows in the upper layer": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
        {"head_dim": 4, "attention_bias": "qkv", "windows": (0, 8)},
    ),
    "qwen2, yarn": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                             "original_max_position_embeddings": 16}},
        {"head_dim": 4, "attention_bias": "qkv", "rope": YARN_ROPE},
    ),
    "qwen3 has a head size of its own": ("qwen3", {}, {"head_dim": 128, "query_key_norm": "head"}),
    "gemma2 without a word of its caps": (
        "gemma2",
        {"head_dim": 8, "hidden_act": "gelu_pytorch_tanh"},
        GEMMA | {"windows": (4096, 0), "attention_softcap": 50.0, "logit_softcap": 30.0, "score_scale": 1 / 16},
    ),
    "gemma2 with none, and layers named": (
        "gemma2",
        {"head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 4,
         "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3},
        GEMMA | {"windows": (0, 3), "score_scale": 0.5},
    ),
    "gemma3 as transformers 4 wrote it": (
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2, "rope_local_base_freq": 100.0,
         "rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "query_pre_attn_scalar": 4},
        GEMMA | {"windows": (5, 0), "query_key_norm": "head", "score_scale": 0.5, "local_rope_theta": 100.0,
                 "rope": Rope(theta=1e6, scaling="linear", factor=8.0)},
    ),
    "gemma3 as transformers 5 writes it": (
        "gemma3_text",
        {"head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"],
         "query_pre_attn_scalar": 4, "rope_parameters": {
             "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}},
        GEMMA | {"windows": (5, 0), "query_key_norm": "head", "score_scale": 0.5, "local_rope_theta": 100.0,
                 "rope": Rope(theta=1e6, scaling="linear", factor=8.0)},
    ),
    "olmo2": (
        "olmo2",
        {"rope_theta": 5e5},
        {"head_dim": 4, "query_key_norm": "projection", "norm_placement": "after", "norm_epsilon": 1e-5,
         "rope": Rope(theta=5e5)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_configs_are_read_as_they_were_meant(name, tmp_path):
    model_type, values, expected = WRITTEN[name]
    wanted = fields_of(Architecture, Architecture(family=model_type)) | SIZES | expected
    found = fields_of(Architecture, read(tmp_path, model_type, **values))
    rope, wanted_rope = (fields_of(Rope, each.pop("rope")) for each in (found, wanted))
    assert found == wanted
    assert rope == wanted_rope


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_config_reads_back_and_loads_in_transformers(name, tmp_path):
    model_type, values, _ = WRITTEN[name]
    architecture = read(tmp_path, model_type, **values)
    written = write_config(architecture)
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_architecture(tmp_path) == architecture
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == model_type
    assert theirs.num_key_value_heads == architecture.num_kv_heads
    assert theirs.architectures == [FAMILIES[model_type].language_model]


REFUSED = [
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"hidden_act": "relu2"}, "hidden_act"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "longrope"),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "factor"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "spice": 1}}, "spice"),
    ("llama", {"rope_parameters": {"rope_theta": "many"}}, "rope_theta"),
    ("llama", {"attention_multiplier": 0.5}, "attention_multiplier"),
    ("llama", {"num_local_experts": 8}, "num_local_experts"),
    ("llama", {"hidden_size": "16"}, "hidden_size"),
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers"),
    ("llama", {"hidden_size": None}, "hidden_size"),
    ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ("llama", {"num_key_value_heads": 3}, "num-kv-heads"),
    ("llama", {"head_dim": 5}, "head_dim must be at least 4 and a multiple of 2, got 5"),
    ("llama", {"use_cache": True, "tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ("mistral", {"layer_types": ["sliding_attention"] * 2}, "layer_types"),
    ("qwen2", {"layer_types": ["sliding_attention", "full_attention"]}, "sliding_window"),
    ("qwen3", {"layer_types": ["full_attention"]}, "layer_types"),
    ("qwen3", {"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"sliding_window": None}, "sliding_window"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3_text", {"rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_scaling"),
    (
        "gemma3_text",
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}},
        "truncate",
    ),
    ("gemma3", {}, "gemma3_text"),
    ("qwen2_moe", {}, "qwen2"),
    ("", {}, "model_type"),
]


@pytest.mark.parametrize(("model_type", "values", "names"), REFUSED, ids=[f"{m}-{n}" for m, _, n in REFUSED])
def test_what_cannot_be_represented_is_refused_by_name(model_type, values, names, tmp_path):
    with pytest.raises(UsageError, match=names) as caught:
        read(tmp_path, model_type, **values)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_fields_that_say_nothing_of_the_network_are_no_hindrance(tmp_path):
    plain = read(tmp_path, "llama")
    fields = {"unk_token_id": 0, "cls_token_id": 1, "mask_token_id": 2, "eot_token_id": 3, "chat_template": "{{ x }}"}
    assert read(tmp_path, "llama", **fields, model_max_length=64, padding_side="left") == plain


@pytest.mark.parametrize("content", ["{", "[1]", "", "\xff"])
def test_a_config_that_is_no_object_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"config\.json"):
        read_architecture(tmp_path)


def test_what_a_family_cannot_express_names_one_that_can():
    own = Architecture(vocab_size=10, query_key_norm="head")
    with pytest.raises(UsageError, match=r"llama cannot express query_key_norm 'head': set --model.family to qwen3"):
        write_config(own)
    assert write_config(dataclasses.replace(own, family="qwen3"))["model_type"] == "qwen3"
    with pytest.raises(UsageError, match="no family here can"):
        write_config(Architecture(vocab_size=10, norm_placement="both", attention_bias="qkv"))
    with pytest.raises(UsageError, match="did you mean 'mistral'"):
        write_config(Architecture(vocab_size=10, family="mistrall"))


# ------------------------------------------------------------------------------------------------------------- tensors
def small(family, **changes):
    """Shapes of a policy and a critic in a family's architecture."""
    kinds = {
        "qwen2": {"attention_bias": "qkv"},
        "qwen3": {"query_key_norm": "head"},
        "gemma2": {"norm_placement": "both"},
        "gemma3_text": {"norm_placement": "both", "query_key_norm": "head"},
        "olmo2": {"norm_placement": "after", "query_key_norm": "projection"},
    }
    sizes = {"embed_dim": 12, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "mlp_dim": 10, "vocab_size": 11}
    config = DecoderConfig(family=family, **sizes | kinds.get(family, {}) | changes)
    model = build_model(config, unconstrained)
    return tuple(jax.eval_shape(init, jax.random.key(0)) for init in (model.init, model.init_critic))


def stacked(stream, shapes):
    """The tree that a stream of layers makes."""
    tree = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan), shapes)
    for path, layer, array in stream:
        node = tree
        for name in path[:-1]:
            node = node[name]
        node[path[-1]][... if layer is None else layer] = array
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_policy_and_critic_go_out_and_in_unchanged(family, dtype, random_weights, tmp_path):
    for name, shapes in zip(("policy", "critic"), small(family), strict=True):
        params = jax.tree.map(
            lambda w: w.astype(dtype).astype(np.float32) if w.ndim else np.float32(w), random_weights(shapes)
        )
        params = jax.tree.map(lambda w: np.asarray(w).astype(dtype).astype(np.float32), params)
        (directory := tmp_path / name).mkdir()
        write_all(directory, tensors_of(params, FAMILIES[family]), dtype=np.dtype(dtype).name)
        files = SafetensorsFiles(directory)
        assert all(files.tensor(tensor).dtype == dtype for tensor in files.shapes)
        again = stacked(stream_weights(files, FAMILIES[family], shapes), shapes)
        jax.tree.map(np.testing.assert_array_equal, again, params)


def test_layouts_by_hand():
    """A query of 1 layer, width 2, 1 head of size 4: outputs are rows there, and the last axes here."""
    shapes, _ = small("llama", num_layers=1, embed_dim=2, num_heads=1, num_kv_heads=1, head_dim=4, mlp_dim=3)
    params = jax.tree.map(lambda leaf: np.arange(math.prod(leaf.shape), dtype=np.float32).reshape(leaf.shape), shapes)
    found = tensors_of(params, FAMILIES["llama"])
    expected_query = [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert found["model.layers.0.self_attn.q_proj.weight"].tolist() == expected_query
    assert found["model.layers.0.self_attn.o_proj.weight"].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert found["model.layers.0.mlp.gate_proj.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["lm_head.weight"].shape == (11, 2)
    assert found["model.embed_tokens.weight"].tolist() == params["trunk"]["embedding"].tolist()


@pytest.fixture
def saved(tmp_path, random_weights):
    """(directory, its tensors, shapes) of a tied Llama in one file."""
    shapes, _ = small("llama", tie_embeddings=True)
    tensors = tensors_of(random_weights(shapes), FAMILIES["llama"])
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, tensors, shapes


def refused(directory, shapes):
    with pytest.raises(UsageError) as caught:
        list(stream_weights(SafetensorsFiles(directory), FAMILIES["llama"], shapes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_tensor_is_accounted_for(saved):
    directory, tensors, shapes = saved
    changed = dict(tensors)
    del changed["model.layers.1.mlp.up_proj.weight"]
    changed["model.layers.7.mlp.up_proj.weight"] = changed["visual.patch"] = np.zeros(3, np.float32)
    changed["model.norm.weight"] = np.zeros(5, np.float32)
    save_file(changed, directory / "model.safetensors")
    said = refused(directory, shapes)
    assert "1 missing (model.layers.1.mlp.up_proj.weight)" in said
    assert "2 unexpected (model.layers.7.mlp.up_proj.weight, visual.patch)" in said
    assert "1 of another shape (model.norm.weight is [5] and should be [12])" in said


def test_buffers_of_old_files_are_ignored_and_a_second_copy_of_the_embedding(saved):
    directory, tensors, shapes = saved
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(3, np.float32)}
    extra["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors | extra, directory / "model.safetensors")
    assert len(list(stream_weights(SafetensorsFiles(directory), FAMILIES["llama"], shapes))) == len(tensors)
    extra["lm_head.weight"][0, 0] += 1
    save_file(tensors | extra, directory / "model.safetensors")
    assert "1 unexpected (lm_head.weight)" in refused(directory, shapes)


@pytest.mark.slow
def test_names_are_those_of_transformers():
    """The whole set, for a policy and a critic of every family."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    del torch
    for name, family in FAMILIES.items():
        policy, critic = small(name)
        kind = {"gemma3_text": "Gemma3Text"}.get(name, name.capitalize())
        values = {"vocab_size": 11, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2,
                  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "num_labels": 1,
                  "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}  # fmt: skip
        config = getattr(transformers, f"{kind}Config")(**values)
        for class_name, shapes in ((family.language_model, policy), (family.classifier, critic)):
            theirs = getattr(transformers, class_name)(config).state_dict()
            ours = {tensor: place.stored for tensor, place in places(family, shapes).items()}
            if class_name.endswith("SequenceClassification"):  # it has no bias
                del ours["score.bias"]
            assert ours == {tensor: tuple(weight.shape) for tensor, weight in theirs.items()}, class_name


def test_square_matrices_are_turned_both_ways(random_weights, tmp_path):
    """The MLP as wide as the model: a matrix has the same shape there and here, and is the other way round."""
    shapes, _ = small("llama", embed_dim=12, mlp_dim=12)
    params = random_weights(shapes)
    tensors = tensors_of(params, FAMILIES["llama"])
    np.testing.assert_array_equal(
        tensors["model.layers.1.mlp.gate_proj.weight"], np.asarray(params["trunk"]["layers"]["mlp"]["gate"])[1].T
    )
    write_all(tmp_path, tensors)
    again = stacked(stream_weights(SafetensorsFiles(tmp_path), FAMILIES["llama"], shapes), shapes)
    jax.tree.map(np.testing.assert_array_equal, again, params)


# --------------------------------------------------------------------------------------------------------------- files
def test_shards_hold_what_the_index_says(tmp_path):
    tensors = {f"t{i}": np.full((4, 5), i, np.float32) for i in range(7)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_tensors(tmp_path, shapes, reversed(tensors.items()), shard_bytes=2 * 80)  # in whatever order they come
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [*(f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)), "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 7 * 80
    files = SafetensorsFiles(tmp_path)
    assert files.shapes == dict.fromkeys(tensors, (4, 5))
    for name, array in tensors.items():
        np.testing.assert_array_equal(files.tensor(name), array)
    with pytest.raises(UsageError, match="already"):
        write_tensors(tmp_path, shapes, tensors.items())


def test_a_write_that_fails_leaves_no_model(tmp_path):
    def tensors():
        yield "a", np.zeros(100, np.float32)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        write_tensors(tmp_path, {"a": (100,), "b": (1,)}, tensors(), shard_bytes=10)
    assert not list(tmp_path.glob("model*"))


def test_spoilt_files_are_named(saved):
    directory, tensors, shapes = saved
    whole = (directory / "model.safetensors").read_bytes()
    for content in (whole[:-5], whole[:20], b"", b"hello, world"):
        (directory / "model.safetensors").write_bytes(content)
        said = refused(directory, shapes)
        assert "model.safetensors" in said
        assert "not a whole safetensors file" in said
    save_file({name: tensor.astype(np.int8) for name, tensor in tensors.items()}, directory / "model.safetensors")
    assert "is stored as I8" in refused(directory, shapes)


def test_indexes_that_do_not_hold(saved):
    directory, tensors, shapes = saved
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    assert "no model.safetensors.index.json" in refused(directory, shapes)
    index = directory / "model.safetensors.index.json"
    for content, says in (
        ("{", "is not an index"),
        ("[]", "is not an index"),
        (json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}), "not a file of its own directory"),
        (json.dumps({"weight_map": {"a": "model-00009-of-00009.safetensors"}}), "model-00009-of-00009.safetensors"),
        (
            json.dumps({"weight_map": dict.fromkeys([*tensors, "ghost"], "model-00001-of-00001.safetensors")}),
            "lists ghost, which its file does not hold",
        ),
    ):
        index.write_text(content)
        assert says in refused(directory, shapes)


def test_no_weights_or_pickles_only(tmp_path):
    with pytest.raises(UsageError, match="holds no weights"):
        SafetensorsFiles(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"convert it with .*save_pretrained\('NEW'\)"):
        SafetensorsFiles(tmp_path)


# ----------------------------------------------------------------------------------------------------------------- hub
def test_paths_and_hub_ids(tmp_path):
    assert hub.local_directory(str(tmp_path)) == tmp_path
    (tmp_path / "f").write_text("")
    for path, says in (
        (str(tmp_path / "f"), "is a file: pass the directory"),
        (str(tmp_path / "no"), "no model directory at"),
        ("./no", "no model directory at"),
        ("a/b/c", "no model directory at"),
        ("", "no model directory at"),
        ("some-org/some-model", "the Hugging Face hub cannot be reached"),
        ("gpt2", "pass a directory, or run once where there is a network"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            hub.local_directory(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GatedRepoError", "only to those who accepted its terms"),
        ("RevisionNotFoundError", "no revision 'v9' of some-org/some-model"),
        ("RepositoryNotFoundError", "nor a model on the hub"),
        ("HfHubHTTPError", "answers with status 503"),
    ],
)
def test_what_the_hub_answers_is_said_in_one_line(name, says, monkeypatch):
    import types

    import huggingface_hub
    from huggingface_hub import errors

    def answer(*_, **__):
        error = getattr(errors, name).__new__(getattr(errors, name))
        error.response = types.SimpleNamespace(status_code=503)
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", answer)
    with pytest.raises(UsageError, match=says):
        hub.local_directory("some-org/some-model", "v9")


def test_a_cached_snapshot_needs_no_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some-org--some-model" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    assert hub.local_directory("some-org/some-model").samefile(snapshot)
