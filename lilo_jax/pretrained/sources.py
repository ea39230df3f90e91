"""MODEL: a Hugging Face directory, a hub id or a run directory, and what is read from it to start with.

No host holds a whole model.  Weights go to the mesh as float32 masters: of files one stored tensor at a time, each into
its shards; of a checkpoint by shard, each host reading its own.
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
from lilo_jax.device.layout import placed_shapes, weights_layout
from lilo_jax.device.mesh import put_replicated, unconstrained
from lilo_jax.device.weights import are_finite, place_weights
from lilo_jax.errors import UsageError
from lilo_jax.models import Model, build_model
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import read_architecture, read_config, read_family
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles
from lilo_jax.models.huggingface.weights import WeightStream, stream_weights
from lilo_jax.models.lora import combine, merge
from lilo_jax.models.projection import LowRank
from lilo_jax.storage import hub
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.checkpoints import at_newest, newest, restore_arrays, stream_arrays
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

    def stream(self) -> WeightStream:
        """Its policy weights, as they are stored, one at a time on the host."""
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
            raise _not_finite("/".join(path) + ("" if layer is None else f" of layer {layer}"), directory)
        yield path, layer, array


def _not_finite(name: str, directory: AnyPath) -> UsageError:
    return UsageError(
        f"the weights in {directory} are not all finite numbers ({name}): get them again, or take another model"
    )


def decoder_config(source: PretrainedModel, **execution: Any) -> DecoderConfig:
    """The decoder of a model, executed as said, its vocabulary being the tokenizer's where a run left that open."""
    config = DecoderConfig(**fields_of(Architecture, source.architecture()), **execution)
    return config if config.vocab_size else dataclasses.replace(config, vocab_size=source.tokenizer().vocab_size)


@functools.lru_cache(maxsize=4)
def weight_shapes(config: DecoderConfig) -> PyTree:
    """The shapes of a policy's weights."""
    return _shapes(build_model(config, unconstrained).init)


@functools.lru_cache(maxsize=4)
def critic_shapes(config: DecoderConfig) -> PyTree:
    """The shapes of a critic's weights."""
    return _shapes(build_model(config, unconstrained).init_critic)


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
        collections.deque(self.stream(), maxlen=0)

    def stream(self) -> WeightStream:
        """Of the safetensors files, layer by layer."""
        return self._stream(weight_shapes(decoder_config(self)))

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

    @property
    def checkpoints(self) -> AnyPath:
        """Where the run's checkpoints are; refuses those of a finished run without its last one."""
        RunDirectory(self.directory).newest_step()
        return RunDirectory(self.directory).checkpoints_path

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
        at_newest(self.checkpoints, lambda step: collections.deque(self.stream_at(step), maxlen=0))

    def stream(self) -> WeightStream:
        """Of the policy, whole weights; adapters are merged into their base."""
        return self.stream_at(newest(self.checkpoints))

    def stream_at(self, step: int, part: str = "policy") -> WeightStream:
        """The policy's or the critic's weights at a checkpoint, one at a time on the host; adapters are merged."""
        trained = _finite(self._arrays(part, step), self.directory)
        if not self.config.lora.rank:
            return trained
        return _merged(self._start().stream(), {path: array for path, _, array in trained}, self.config.lora.scale)

    def weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the policy; adapters are merged into their base."""
        if not self.config.lora.rank:
            return self._placed("policy", model.init, model.axes, mesh)
        return self._on_base("policy", model, mesh)

    def critic_weights(self, model: Model, mesh: Mesh) -> PyTree:
        """Of the critic; adapters are merged into their base."""
        if not self.config.lora.rank:
            return self._placed("critic", model.init_critic, model.critic_axes, mesh)
        merged = self._on_base("critic", model, mesh)
        return {name: merged[name] for name in model.critic_axes}

    def has_critic(self) -> bool:
        """Whether the run trains one."""
        return self.config.algorithm.build().needs_values and bool(self.config.num_steps)

    def _start(self) -> PretrainedModel:
        start = starting_model(self.config, self.directory)
        assert start is not None, "adapters have a base"
        return start

    def _on_base(self, part: str, model: Model, mesh: Mesh) -> PyTree:
        base = self._start().weights(model, mesh)
        stream = at_newest(self.checkpoints, lambda step: list(_finite(self._arrays(part, step), self.directory)))
        trained = traverse_util.unflatten_dict({path: array for path, _, array in stream})
        return merge(combine(base, put_replicated(mesh, trained), self.config.lora.scale))

    def _placed(self, part: str, init: Callable[..., PyTree], axes: PyTree, mesh: Mesh) -> PyTree:
        """Each weight in its shards, of which every process reads its own."""
        shapes, prefix = _shapes(init), self._prefix(part)
        wanted = traverse_util.flatten_dict(placed_shapes(shapes, weights_layout(mesh, axes, shapes)), sep="/")
        named = {prefix + name: shape for name, shape in wanted.items()}
        found = at_newest(self.checkpoints, lambda step: restore_arrays(self.checkpoints, step, named, prefix))
        for name, array in found.items():
            if not jax.device_get(are_finite(array)):
                raise _not_finite(name.removeprefix(prefix), self.directory)
        return traverse_util.unflatten_dict({name.removeprefix(prefix): x for name, x in found.items()}, sep="/")

    def _arrays(self, part: str, step: int) -> WeightStream:
        prefix = self._prefix(part)
        for name, array in stream_arrays(self.checkpoints, step, prefix):
            yield tuple(name.removeprefix(prefix).split("/")), None, array

    def _prefix(self, part: str) -> str:
        """What the names of the policy's or the critic's weights begin with; refuses a critic that is not there."""
        if part == "critic" and not self.has_critic():
            raise UsageError(f"{self.directory} holds no critic: its algorithm trains none")
        return f"{part}/params/"


def _merged(base: WeightStream, trained: dict[tuple[str, ...], np.ndarray], scale: float) -> WeightStream:
    """A base with its adapters merged, and then what was trained whole, such as a critic's head."""
    whole = {path: array for path, array in trained.items() if path[-1] not in ("a", "b")}
    for path, layer, array in base:
        if path in whole:
            continue
        if (*path, "a") in trained:
            part = slice(None) if layer is None else slice(layer, layer + 1)
            a, b = (trained[(*path, name)][part] for name in ("a", "b"))
            stacked = array if layer is None else array[None]
            array = np.asarray(merge(LowRank(base=stacked, a=a, b=b, scale=scale))).reshape(array.shape)
        yield path, layer, array
    yield from ((path, None, array) for path, array in whole.items())
