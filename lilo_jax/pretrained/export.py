"""From a run directory to a directory that Hugging Face transformers loads: policy, and critic beneath it."""

import pathlib
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import FAMILIES, write_config
from lilo_jax.models.huggingface.safetensors_files import SHARD_BYTES, write_tensors
from lilo_jax.models.huggingface.weights import WeightStream, named_tensors, stored_shapes
from lilo_jax.pretrained.sources import RunModel, critic_shapes, decoder_config, open_model, weight_shapes
from lilo_jax.storage.checkpoints import at_newest
from lilo_jax.storage.files import whole_directory
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.types import PyTree


def export(run: str, output: AnyPath, *, dtype: str = "float32", shard_bytes: int = SHARD_BYTES) -> list[AnyPath]:
    """Writes the newest weights of a run as Hugging Face model directories; adapters are merged.

    `output` holds config.json, generation_config.json, the tokenizer's files and safetensors; `output/critic`, if the
    run has a critic, the same as a token classifier with one label, whose logit is the value.  All is written beside
    `output` first and moved there whole.  One weight at a time is in memory, whatever the size of the model.

    Args:
        run: run directory.
        output: must not exist, or be empty.
        dtype: of the written weights: float32, which loses nothing, bfloat16 or float16.
        shard_bytes: most bytes of one safetensors file.

    Returns:
        The directories written.

    Raises:
        UsageError: `run` is no run, `output` is taken, or the family cannot express the model.
    """
    source = open_model(run)
    if not isinstance(source, RunModel):
        raise UsageError(f"{run} is no run directory: it is in the layout of Hugging Face already")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not empty: pass another --output")
    config, tokenizer = decoder_config(source), source.tokenizer()
    settings = write_config(config)

    def write(step: int) -> None:
        with whole_directory(output) as directory:
            weights = source.stream_at(step)
            _write(directory, config, settings, tokenizer, weights, weight_shapes(config), dtype, shard_bytes)
            if source.has_critic():
                family = FAMILIES[config.family]
                labels = {"id2label": {"0": "value"}, "label2id": {"value": 0}, "architectures": [family.classifier]}
                weights, beneath = source.stream_at(step, "critic"), directory / "critic"
                shapes = critic_shapes(config)
                _write(beneath, config, settings | labels, tokenizer, weights, shapes, dtype, shard_bytes)

    at_newest(source.checkpoints, write)
    return [output, output / "critic"] if source.has_critic() else [output]


def _write(
    directory: pathlib.Path,
    config: DecoderConfig,
    settings: dict[str, Any],
    tokenizer: Tokenizer,
    weights: WeightStream,
    shapes: PyTree,
    dtype: str,
    shard_bytes: int,
) -> None:
    directory.mkdir(exist_ok=True)
    tokenizer.save(directory)
    ends = tokenizer.end_ids
    ids = {
        "bos_token_id": tokenizer.begin_ids[0] if tokenizer.begin_ids else None,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends),
        "pad_token_id": tokenizer.pad_id,
    }
    _write_json(directory / "config.json", settings | ids | {"dtype": dtype, "torch_dtype": dtype})
    if not (directory / "generation_config.json").exists():
        _write_json(directory / "generation_config.json", ids)
    family = FAMILIES[config.family]
    tensors = named_tensors(weights, family, shapes)
    write_tensors(directory, stored_shapes(family, shapes), tensors, dtype=dtype, shard_bytes=shard_bytes)


def _write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    path.write_text(to_json(values, indent=2) + "\n", encoding="utf-8")
