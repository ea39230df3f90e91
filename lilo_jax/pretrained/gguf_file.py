"""From a GGUF file, the format of llama.cpp, to a Hugging Face directory: config, float32 weights, tokenizer."""

import contextlib
import importlib.util
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import FAMILIES, architecture_of, write_config
from lilo_jax.models.huggingface.rope import rope_parameters
from lilo_jax.models.huggingface.safetensors_files import write_tensors
from lilo_jax.models.huggingface.weights import Place, places
from lilo_jax.models.rope import Rope, frequencies
from lilo_jax.pretrained.gguf_tokenizer import special_ids, tokenizer_of
from lilo_jax.pretrained.sources import open_model, weight_shapes
from lilo_jax.storage.files import whole_directory
from lilo_jax.storage.hub import refuse_pointer
from lilo_jax.storage.json_lines import check_new_directory, to_json
from lilo_jax.storage.paths import AnyPath

if TYPE_CHECKING:
    import gguf

PACKAGE = "package:"
"""What a FILE begins with that lies in an installed Python package."""
MODEL_TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "olmo2": "olmo2",
}
"""Architecture of a GGUF file -> `model_type`; Mistral is "llama" there too."""
FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""Key of the metadata, without its architecture -> field of `config.json`."""
WINDOW = {"attention.sliding_window": "sliding_window"}
OWN_FIELDS = {
    "llama": WINDOW,
    "gemma2": WINDOW
    | {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"},
    "gemma3": WINDOW
    | {
        "attention.sliding_window_pattern": "sliding_window_pattern",
        "final_logit_softcapping": "final_logit_softcapping",
        "rope.freq_base_swa": "rope_local_base_freq",
    },
}
"""The same, of one architecture."""
NEUTRAL = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True, "rope.scaling.type": "none"}
"""Keys that change the network, and the value at which they do not."""
SILENT = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")
"""Keys that say nothing of the network; the vocabulary is as large as the embedding."""
WIDE_SCORES = {"gemma2": 46, "gemma3": 62}
"""Layers of the Gemmas of 27 billion weights, whose scores go by width / heads, not by the head size (llama.cpp)."""
LLAMA3_LENGTH = 8192
"""Tokens that every Llama 3 was first trained for; a GGUF file does not say it."""


class _Content(NamedTuple):
    """What a GGUF file holds.

    Attributes:
        file: its path.
        metadata: key to value.
        tensors: by name; their numbers stay in the file until they are asked for.
    """

    file: pathlib.Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, "gguf.ReaderTensor"]


def import_gguf(source: str, output: AnyPath) -> Architecture:
    """Writes a GGUF file as a Hugging Face directory, whole or not at all; returns what model it is.

    Args:
        source: path of the file, or "package:NAME" of a Python package that holds one.
        output: directory; must not exist, or be empty.

    Raises:
        UsageError: the file cannot be read, its family or its tokenizer is not known, or `output` is taken.
    """
    check_new_directory(output)
    with _file_of(source) as file:
        content = _read(file)
        architecture = _architecture(content)
        wanted = _wanted(content, architecture)
        tokenizer, settings = tokenizer_of(content.metadata, str(file))
        ids = special_ids(content.metadata, str(file))
        config = write_config(architecture) | ids | {"dtype": "float32", "torch_dtype": "float32"}
        jsons = {"config.json": config, "generation_config.json": ids, "tokenizer_config.json": settings}
        with whole_directory(output) as directory:
            for name, values in jsons.items():
                (directory / name).write_text(to_json(values, indent=2) + "\n", encoding="utf-8")
            (directory / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            shapes = {name: place.stored for name, (_, place) in wanted.items()}
            write_tensors(directory, shapes, _arrays(content, architecture, wanted))
            open_model(str(directory)).check()
    return architecture


# ---------------------------------------------------------------------------------------------------------- the file
@contextlib.contextmanager
def _file_of(source: str) -> Iterator[pathlib.Path]:
    """The file that a path or a package means; one that lies in parts is joined for the while."""
    if not source.startswith(PACKAGE):
        yield pathlib.Path(source).expanduser()
        return
    name = source.removeprefix(PACKAGE).replace("-", "_")
    found = _in_package(name)
    if len(found) == 1:
        yield found[0]
        return
    with tempfile.TemporaryDirectory() as directory:
        whole = pathlib.Path(directory) / f"{name}.gguf"
        with open(whole, "wb") as file:
            for part in found:
                file.write(part.read_bytes())
        yield whole


def _in_package(name: str) -> list[pathlib.Path]:
    """The GGUF file in an installed package, or its parts, in order, which may lie in the packages NAME_part...

    Nothing is imported.
    """
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"no Python package {name!r} is installed: install it, or pass the path of a GGUF file")
    roots = [pathlib.Path(root) for root in spec.submodule_search_locations]
    if found := sorted(path for root in roots for path in root.rglob("*.gguf")):
        if len(found) > 1:
            raise UsageError(f"the package {name} holds {len(found)} GGUF files: pass one of them, such as {found[0]}")
        return found
    parts = [path for root in roots for path in root.parent.glob(f"{name}*/**/*.gguf.part*")]
    if not parts:
        raise UsageError(f"the package {name} holds no GGUF file: pass the path of one")
    return sorted(parts, key=lambda path: path.name)


def _read(file: pathlib.Path) -> _Content:
    try:
        import gguf
    except ImportError:
        raise UsageError("GGUF files are read by the package gguf: `pip install 'gguf>=0.17'`") from None

    class Reader(gguf.GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:  # slices of a plain array are five times as fast
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    if not file.is_file():
        raise UsageError(f"there is no file {file}: pass a GGUF file, or package:NAME")
    refuse_pointer(file)
    try:
        reader = Reader(file)
        metadata = {name: _plain(field.contents()) for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{file} is no whole GGUF file ({said}): get it again") from None
    if (count := metadata.get("split.count", 1)) > 1:
        raise UsageError(f"{file} is one of {count} parts: join them with `llama-gguf-split --merge`")
    return _Content(file, metadata, {tensor.name: tensor for tensor in reader.tensors})


def _plain(value: Any) -> Any:
    """A float as short as float32 allows: 1e-05 is read as 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


# ---------------------------------------------------------------------------------------------------------- config
def _architecture(content: _Content) -> Architecture:
    name = content.metadata.get("general.architecture")
    if name not in MODEL_TYPES:
        raise unknown_name(f"architecture in {content.file}:", str(name), MODEL_TYPES)
    given = {key[len(name) + 1 :]: value for key, value in content.metadata.items() if key.startswith(f"{name}.")}
    renamed = FIELDS | OWN_FIELDS.get(name, {})
    values = {renamed[key]: given.pop(key) for key in renamed if key in given}
    values = _shape(content, values)
    rotated, value_length = given.pop("rope.dimension_count", None), given.pop("attention.value_length", None)
    if any(size not in (None, values["head_dim"]) for size in (rotated, value_length)):
        raise UsageError(f"{content.file}: heads of {values['head_dim']} are rotated or valued in part: take another")
    values["rope_scaling"] = _rope_scaling(content, given, values)
    left = [key for key, value in given.items() if key not in SILENT and NEUTRAL.get(key, ...) != value]
    if left:
        raise UsageError(
            f"{content.file} says {', '.join(f'{name}.{key}' for key in sorted(left))}, which is not known here and "
            f"may change what the model computes: take another file"
        )
    values |= _family_fields(content, name, values)
    return architecture_of(values, str(content.file))


def _shape(content: _Content, values: dict[str, Any]) -> dict[str, Any]:
    """The fields with those that a GGUF file leaves out."""
    for theirs, field in FIELDS.items():
        if field not in values and theirs not in ("attention.head_count_kv", "attention.key_length", "rope.freq_base"):
            raise UsageError(f"{content.file} says no {theirs}: get it again, or take another file")
    embedding = content.tensors.get("token_embd.weight")
    if embedding is None:
        raise UsageError(f"{content.file} has no token_embd.weight: it is no whole language model; take another file")
    heads = values["num_attention_heads"]
    if not isinstance(heads, int) or not 1 <= heads <= values["hidden_size"]:
        raise UsageError(f"{content.file}: layers with different heads ({str(heads)[:40]}) are not known here")
    default = {"num_key_value_heads": heads, "head_dim": values["hidden_size"] // heads, "rope_theta": 10_000.0}
    sizes = {
        "vocab_size": int(embedding.shape[-1]),
        "tie_word_embeddings": "output.weight" not in content.tensors,
    }
    return default | values | sizes


def _rope_scaling(content: _Content, given: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stretching of wavelengths; takes its keys out of `given`.

    A Llama 3 says it by a factor for each pair, from which the settings are found again.
    """
    if (stored := content.tensors.get("rope_freqs.weight")) is not None:
        factors, size = _floats(stored), values["head_dim"]
        plain = Rope(theta=values["rope_theta"])
        rope = Rope(plain.theta, "llama3", factor=round(float(factors.max()), 4), original_length=LLAMA3_LENGTH)
        wanted = frequencies(plain, size, 0) / frequencies(rope, size, 0)
        if factors.shape != wanted.shape or not np.allclose(factors, wanted, rtol=1e-3):
            raise UsageError(f"the rotation of {content.file} is not stretched as Llama 3's: take another file")
        return {key: value for key, value in rope_parameters(rope).items() if key != "rope_theta"}
    kind = given.get("rope.scaling.type", "none")
    if kind not in ("linear", "yarn"):
        return None
    found = {"rope_type": given.pop("rope.scaling.type"), "factor": given.pop("rope.scaling.factor", None)}
    if kind == "yarn":
        found["original_max_position_embeddings"] = given.pop("rope.scaling.original_context_length", None)
    return {key: value for key, value in found.items() if value is not None}


def _family_fields(content: _Content, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from the architecture and its tensors."""
    found: dict[str, Any] = {"model_type": MODEL_TYPES[name]}
    width, heads, window = values["hidden_size"], values["num_attention_heads"], values.get("sliding_window")
    if name == "llama" and (window or width % heads):
        found |= {"model_type": "mistral", "sliding_window": window}
    if "blk.0.attn_q.bias" in content.tensors and name != "qwen2":
        found["attention_bias"] = True
    if name in WIDE_SCORES:
        wide = values["num_hidden_layers"] == WIDE_SCORES[name]
        found["query_pre_attn_scalar"] = width // heads if wide else values["head_dim"]
    if name == "gemma3" and window is None:
        found |= {"sliding_window": None, "sliding_window_pattern": 1}
    return found


# ---------------------------------------------------------------------------------------------------------- weights
def _wanted(content: _Content, architecture: Architecture) -> dict[str, tuple[str, Place]]:
    """Name in Hugging Face's files -> name in this file, and its place; all are there, in their shapes.

    Raises:
        UsageError: they are not, or one is stored in a way that cannot be read.
    """
    import gguf

    name = content.metadata["general.architecture"]
    kind = next(kind for kind, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(kind, architecture.num_layers)
    shapes = weight_shapes(DecoderConfig(**fields_of(Architecture, architecture)))
    found = {}
    for theirs, place in places(FAMILIES[architecture.family], shapes).items():
        found[theirs] = str(names.get_name(theirs, try_suffixes=(".weight", ".bias"))), place
    stored = {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in content.tensors.items()}
    expected = {name: place.stored for name, place in found.values()}
    differ = sorted(name for name in expected.keys() & stored.keys() if expected[name] != stored[name])
    unknown = stored.keys() - expected.keys() - {"rope_freqs.weight"}
    for what, some in {"lacks": expected.keys() - stored.keys(), "has unknown": unknown, "misshapes": differ}.items():
        if some:
            raise UsageError(f"{content.file} {what} {len(some)} tensors of a {name} ({min(some)}): take another file")
    for tensor in {content.tensors[name].tensor_type: content.tensors[name] for name in expected}.values():
        try:
            gguf.quants.dequantize(tensor.data[:1], tensor.tensor_type)
        except NotImplementedError:
            raise UsageError(
                f"{content.file}: the package gguf cannot read {tensor.tensor_type.name}: take the file in another "
                f"quantisation, such as Q8_0"
            ) from None
    return found


def _floats(tensor: "gguf.ReaderTensor") -> np.ndarray:
    import gguf

    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)


def _arrays(
    content: _Content, architecture: Architecture, wanted: Mapping[str, tuple[str, Place]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of each weight as Hugging Face's files have them, one at a time."""
    heads = {"query": architecture.num_heads, "key": architecture.num_kv_heads}
    permuted = content.metadata["general.architecture"] == "llama"
    for name, (stored, place) in wanted.items():
        value = _floats(content.tensors[stored])
        kind = place.path[-1].removesuffix("_bias")
        if permuted and kind in heads:
            value = unpermuted(value, heads[kind])
        elif kind == "scale":
            value = value - np.float32(architecture.norm_offset)
        yield name, value


def unpermuted(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in Hugging Face's order: GGUF has the two that rotation pairs side by side."""
    pairs = value.reshape(heads, -1, 2, *value.shape[1:])
    return pairs.swapaxes(1, 2).reshape(value.shape)
