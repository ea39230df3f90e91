"""MODEL: a Hugging Face directory, a hub id or a run directory, and what is read from it to start with.

Weights go to the mesh one stored tensor at a time, each into its shards, as float32 masters.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from lilo_jax.config import Config, of_run
from lilo_jax.device.mesh import unconstrained
from lilo_jax.device.weights import WeightStream, place_weights
from lilo_jax.errors import UsageError
from lilo_jax.models import Model, build_model
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import read_architecture, read_config, read_family
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles
from lilo_jax.models.huggingface.weights import stream_weights
from lilo_jax.models.lora import combine, merge
from lilo_jax.storage import hub
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.checkpoints import load_arrays
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tokenizers import Tokenizer, has_tokenizer, load_tokenizer
from lilo_jax.types import PyTree

FINE_TUNED = "sft"
"""Where a run keeps the fine-tuning that it begins with, beneath its own directory."""


class PretrainedModel(Protocol):
    """What can be read from a MODEL."""

    def architecture(self) -> Architecture:
        """The shape of its decoder."""
        ...

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        ...

    def check(self) -> None:
        """Raises `UsageError` if its weights are not there as its shape wants them, or its tokenizer is of another
        model; reads no weight.
        """
        ...

    def read_through(self) -> None:
        """Raises `UsageError` if a weight is not a finite number; reads all of them, one at a time."""
        ...

    def weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Its policy weights, float32, each in its shards on the mesh; `model` has its architecture."""
        ...

    def critic_weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Its critic, in the same way."""
        ...


def open_model(path: str, revision: str = "") -> PretrainedModel:
    """The model at a path, or of a hub id.

    Raises:
        UsageError: there is nothing there, or nothing that can be read.
    """
    if path.endswith(".gguf"):
        raise UsageError(
            f"{path} is a GGUF file: run `lilo import gguf {path} --output DIRECTORY`, and pass DIRECTORY instead"
        )
    place = path_of(path)
    directory = place if isinstance(place, BucketPath) else hub.local_directory(path, revision)
    if not (directory / "config.json").is_file():
        raise UsageError(f"{path} has no config.json: pass a Hugging Face directory, a hub id or a run directory")
    if "num_steps" in read_config(directory):
        return RunModel(directory)
    return HuggingFaceModel(hub.local_copy(directory) if isinstance(directory, BucketPath) else directory)


def checked_model(path: str) -> PretrainedModel:
    """The model at a path, or of a hub id, after `check`."""
    source = open_model(path)
    source.check()
    return source


def _check_ids(tokenizer: Tokenizer, rows: int, directory: AnyPath) -> None:
    if rows and tokenizer.vocab_size > rows:
        raise UsageError(
            f"the tokenizer of {directory} has {tokenizer.vocab_size} ids, more than the {rows} rows of the embedding: "
            f"they do not belong together"
        )


def _finite(stream: WeightStream, directory: AnyPath) -> WeightStream:
    """The same weights; an infinite one, or one that is no number, is refused."""
    for path, layer, array in stream:
        if not np.isfinite(array).all():
            name = "/".join(path) + ("" if layer is None else f" of layer {layer}")
            raise UsageError(
                f"the weights in {directory} are not all finite numbers ({name}): get them again, or take another model"
            )
        yield path, layer, array


def decoder_config(source: PretrainedModel, **execution: Any) -> DecoderConfig:
    """The decoder of a model, executed as said, its vocabulary being the tokenizer's where a run left that open."""
    config = DecoderConfig(**fields_of(Architecture, source.architecture()), **execution)
    return config if config.vocab_size else dataclasses.replace(config, vocab_size=source.tokenizer().vocab_size)


@functools.lru_cache(maxsize=4)
def weight_shapes(config: DecoderConfig) -> PyTree:
    """The shapes of a policy's weights."""
    return _shapes(build_model(config, unconstrained).init)


def _shapes(init: Callable[..., PyTree]) -> PyTree:
    return jax.eval_shape(init, jax.random.key(0))


def starting_model(config: Config, path: AnyPath) -> PretrainedModel | None:
    """What the run of this config in the directory `path` starts from; None: random weights."""
    if config.num_steps and config.sft.steps:
        return RunModel(path / FINE_TUNED)
    return open_model(config.model.path, config.model.revision) if config.model.path else None


@dataclasses.dataclass(frozen=True)
class HuggingFaceModel:
    """A directory in the layout of Hugging Face transformers."""

    directory: pathlib.Path

    def architecture(self) -> Architecture:
        """Of `config.json`."""
        return read_architecture(self.directory)

    def tokenizer(self) -> Tokenizer:
        """Of `tokenizer.json` or `tokenizer.model`."""
        return load_tokenizer(self.directory)

    def check(self) -> None:
        """No id of the tokenizer, where there is one, is beyond the embedding; every tensor is there, in its shape."""
        if has_tokenizer(self.directory):
            _check_ids(self.tokenizer(), self.architecture().vocab_size, self.directory)
        self._stream(weight_shapes(decoder_config(self)))

    def read_through(self) -> None:
        """Of the safetensors files."""
        collections.deque(self._stream(weight_shapes(decoder_config(self))), maxlen=0)

    def weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the safetensors files."""
        return place_weights(model.init, model.axes, mesh, self._stream(_shapes(model.init)))

    def critic_weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the safetensors files of an exported critic, this directory or `critic` beneath it."""
        beneath = self.directory / "critic"
        source = HuggingFaceModel(beneath) if beneath.is_dir() else self
        return place_weights(model.init_critic, model.critic_axes, mesh, source._stream(_shapes(model.init_critic)))

    def _stream(self, shapes: PyTree) -> WeightStream:
        stream = stream_weights(SafetensorsFiles(self.directory), read_family(self.directory), shapes)
        return _finite(stream, self.directory)


@dataclasses.dataclass(frozen=True)
class RunModel:
    """The newest checkpoint of a run."""

    directory: AnyPath

    @property
    def config(self) -> Config:
        """Of the run."""
        return of_run(RunDirectory(self.directory))

    def architecture(self) -> Architecture:
        """Of the run's config."""
        return Architecture(**fields_of(Architecture, self.config.model))

    def tokenizer(self) -> Tokenizer:
        """That the run kept."""
        return load_tokenizer(RunDirectory(self.directory).tokenizer_path)

    def check(self) -> None:
        """There is a finished checkpoint, and a tokenizer that fits; arrays are checked when they are read."""
        _check_ids(self.tokenizer(), self.architecture().vocab_size, self.directory)
        RunDirectory(self.directory).newest_step()

    def read_through(self) -> None:
        """Of the policy; the base of adapters first."""
        start = starting_model(self.config, self.directory) if self.config.lora.rank else None
        if start is not None:
            start.read_through()
        collections.deque(self._stream("policy/params/"), maxlen=0)

    def weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the policy; adapters are merged into their base."""
        if not self.config.lora.rank:
            return place_weights(model.init, model.axes, mesh, self._stream("policy/params/"))
        return self._merged("policy/params/", model, mesh)

    def critic_weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the critic; adapters are merged into their base."""
        if not self.config.lora.rank:
            return place_weights(model.init_critic, model.critic_axes, mesh, self._stream("critic/params/"))
        merged = self._merged("critic/params/", model, mesh)
        return {name: merged[name] for name in model.critic_axes}

    def has_critic(self) -> bool:
        """Whether the run trains one."""
        return self.config.algorithm.build().needs_values and bool(self.config.num_steps)

    def _merged(self, prefix: str, model: Model, mesh: Mesh) -> PyTree:
        config = self.config
        start = starting_model(config, self.directory)
        assert start is not None, "adapters have a base"
        trained = traverse_util.unflatten_dict({path: array for path, _, array in self._stream(prefix)})
        return merge(combine(start.weights(model, mesh), trained, config.lora.scale))

    def _stream(self, prefix: str) -> WeightStream:
        return _finite(self._arrays(prefix), self.directory)

    def _arrays(self, prefix: str) -> WeightStream:
        RunDirectory(self.directory).newest_step()
        _, arrays, _ = load_arrays(RunDirectory(self.directory).checkpoints_path, prefix)
        if not arrays:
            raise UsageError(f"{self.directory} holds no {prefix.partition('/')[0]}: its algorithm trains none")
        while arrays:  # each is forgotten once it has been placed
            name, array = arrays.popitem()
            yield tuple(name.removeprefix(prefix).split("/")), None, array
