"""Models in the layout of Hugging Face transformers: their configs, tensor names and files.

To add a family: a file with its `Family`, its configs in `tests/test_family_parity.py`, and a line in `FAMILIES`.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from lilo_jax.bounds import check
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.models.architecture import Architecture, check_architecture, fields_of
from lilo_jax.models.huggingface.family import Family
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.gemma2 import GEMMA2
from lilo_jax.models.huggingface.gemma3 import GEMMA3
from lilo_jax.models.huggingface.llama import LLAMA
from lilo_jax.models.huggingface.mistral import MISTRAL
from lilo_jax.models.huggingface.olmo2 import OLMO2
from lilo_jax.models.huggingface.qwen2 import QWEN2
from lilo_jax.models.huggingface.qwen3 import QWEN3
from lilo_jax.models.rope import Rope
from lilo_jax.storage.hub import refuse_pointer
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "olmo2": OLMO2,
}


def read_architecture(directory: AnyPath) -> Architecture:
    """The architecture that a directory's `config.json` describes.

    Raises:
        UsageError: the file is missing or broken, or says something that the decoder cannot represent; the field is
            named.
    """
    return architecture_of(read_config(directory), str(directory / "config.json"))


def architecture_of(values: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that the fields of a `config.json` describe; messages name the file `where`.

    Raises:
        UsageError: see `read_architecture`.
    """
    fields = Fields(values, where)
    if values.get("quantization_config"):
        raise fields.unsupported("quantization_config", "set", "weights must be stored as floats")
    family = _family(values, fields.where)
    architecture = family.read(fields)
    fields.finish(family.model_type)
    check(architecture, lambda path: f"{fields.where}: {'.'.join(path)}")
    try:
        check_architecture(architecture)
    except ValueError as error:
        raise UsageError(f"{fields.where} cannot be: {error}") from None
    return architecture


def read_family(directory: AnyPath) -> Family:
    """The family that a directory's `config.json` names."""
    return _family(read_config(directory), str(directory / "config.json"))


def write_config(architecture: Architecture) -> dict[str, Any]:
    """The `config.json` of an architecture, for transformers 4 and 5.

    Raises:
        UsageError: its family has no words for it.
    """
    if architecture.family not in FAMILIES:
        raise unknown_name("model family", architecture.family, FAMILIES)
    if not architecture.vocab_size:
        raise UsageError("--model.vocab-size is 0, for the tokenizer's: config.json needs the number itself")
    plain = Architecture(**fields_of(Architecture, architecture))
    family = FAMILIES[plain.family]
    if lost := _lost(plain, family):
        able = [name for name, other in FAMILIES.items() if not _lost(dataclasses.replace(plain, family=name), other)]
        cure = f"set --model.family to {' or '.join(able)}" if able else "no family here can"
        raise UsageError(f"the family {plain.family} cannot express {', '.join(lost)}: {cure}")
    return {"architectures": [family.language_model], "model_type": family.model_type, **family.write(plain)}


def _lost(architecture: Architecture, family: Family) -> list[str]:
    """The fields that would be read back as something else."""
    try:
        again = family.read(Fields(json.loads(to_json(family.write(architecture))), "config.json"))
    except UsageError as error:
        return [str(error)]
    wanted, found = _spelt_out(architecture), _spelt_out(again)
    # The longest sequence may be chosen by the user, and bounds nothing that is computed.
    return [
        f"{name} {getattr(architecture, name)!r}"
        for name, value in fields_of(Architecture, wanted).items()
        if name != "context_length" and not _same(value, getattr(found, name))
    ]


def _spelt_out(a: Architecture) -> Architecture:
    """The same network with one form for what can be said in two."""
    windows = a.windows or (0,) * a.num_layers
    same_rope = not any(windows) or Rope(theta=a.local_rope_theta) == a.rope
    return dataclasses.replace(
        a,
        windows=windows,
        score_scale=a.score_scale or a.head_dim**-0.5,
        local_rope_theta=0.0 if same_rope else a.local_rope_theta,
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-12 * max(abs(a), abs(b))
    return a == b


def _family(values: Mapping[str, Any], where: str) -> Family:
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise UsageError(f"{where} has no model_type: it is not the config of a transformers model")
    if model_type in ("gemma3", "gemma3n"):
        raise UsageError(
            f"{where}: model_type {model_type!r} sees images; only its text part, gemma3_text, is supported"
        )
    if model_type not in FAMILIES:
        raise unknown_name(f"model_type in {where}:", model_type, FAMILIES)
    return FAMILIES[model_type]


def read_config(directory: AnyPath) -> dict[str, Any]:
    """The object in a directory's `config.json`, of whatever kind; raises `UsageError` if there is none."""
    path = directory / "config.json"
    try:
        refuse_pointer(path)
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no {path.name} in {path.parent}: is it a Hugging Face model directory?") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a JSON object")
    return values
