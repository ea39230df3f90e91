"""Between the tensors of a Hugging Face file and our tree of parameters, one tensor at a time.

A matrix is [outputs, inputs] there and [*inputs, *outputs] here, with heads and head size apart; a tensor of a layer is
one slice of a stacked weight.  Both directions only move numbers, so that a round trip is exact.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from lilo_jax.errors import UsageError
from lilo_jax.models.huggingface.family import CRITIC_NAMES, Family
from lilo_jax.models.huggingface.safetensors_files import SafetensorsFiles
from lilo_jax.types import PyTree

WeightStream = Iterable[tuple[tuple[str, ...], int | None, np.ndarray]]
"""Path of a weight in the params, the layer that the array is of (None: all of them), the array, of any float type."""

TWO_INPUTS = {"output"}
"""Weights with two axes of inputs, heads and head size; every other matrix has one."""
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.masked_bias")
"""Buffers that old files hold, and that are computed from the config."""


class Place(NamedTuple):
    """Where a tensor of a file stands in our tree.

    Attributes:
        path: of the weight.
        layer: its index on the leading axis, or None.
        shape: of the array here, without the layer axis.
        stored: its shape there.
    """

    path: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]
    stored: tuple[int, ...]


def places(family: Family, shapes: PyTree) -> dict[str, Place]:
    """Name of every tensor of a model, in the order of its layers, to its place.

    Args:
        family: names the tensors.
        shapes: of a policy or critic, as `jax.eval_shape` gives them.
    """
    flat = traverse_util.flatten_dict(shapes)
    names = {**family.names, **(CRITIC_NAMES if ("bias",) in flat else {})}
    found = {}
    for path, leaf in flat.items():
        name, stacked = names["/".join(path)], path[:2] == ("trunk", "layers")
        shape = tuple(leaf.shape[1:] if stacked else leaf.shape)
        stored = _stored_shape(path, shape)
        for layer in range(leaf.shape[0]) if stacked else (None,):
            found[name.format(layer=layer)] = Place(path, layer, shape, stored)
    return dict(sorted(found.items(), key=lambda item: (item[1].layer is not None, item[1].layer or 0)))


def _stored_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if path == ("trunk", "embedding"):
        return shape
    if path == ("head",) and len(shape) == 1:
        return 1, *shape
    if path == ("bias",):
        return (1,)
    inputs = _inputs(path)
    if not inputs:
        return (int(np.prod(shape)),)
    return int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs]))


def _inputs(path: tuple[str, ...]) -> int:
    """Axes of inputs that a weight leads with; 0 for norms and biases."""
    if path[-1] in ("scale", "bias") or path[-1].endswith("_bias"):
        return 0
    return 2 if path[-1] in TWO_INPUTS else 1


def to_ours(stored: np.ndarray, place: Place) -> np.ndarray:
    """A tensor in our layout: a view of the same numbers."""
    inputs = _inputs(place.path)
    if place.path == ("trunk", "embedding") or not inputs or len(place.shape) == 1:
        return stored.reshape(place.shape)
    outputs = place.shape[inputs:]
    arranged = stored.reshape(*outputs, *place.shape[:inputs])
    return np.moveaxis(arranged, range(len(outputs)), range(-len(outputs), 0))


def to_stored(ours: np.ndarray, place: Place) -> np.ndarray:
    """The inverse of `to_ours`."""
    inputs = _inputs(place.path)
    if place.path == ("trunk", "embedding") or not inputs or len(place.shape) == 1:
        return ours.reshape(place.stored)
    return np.moveaxis(ours, range(inputs), range(-inputs, 0)).reshape(place.stored)


def stream_weights(files: SafetensorsFiles, family: Family, shapes: PyTree) -> WeightStream:
    """Path, layer (None: the weight has none) and array in our layout of every weight, after all have been checked.

    Args:
        files: to be read.
        family: names the tensors.
        shapes: of the policy or critic wanted.

    Raises:
        UsageError: tensors are missing, unexpected or of another shape; they are listed.
    """
    wanted = places(family, shapes)
    _check(files, family, wanted, tied="head" not in shapes)
    return ((place.path, place.layer, to_ours(files.tensor(name), place)) for name, place in wanted.items())


def _check(files: SafetensorsFiles, family: Family, wanted: Mapping[str, Place], *, tied: bool) -> None:
    found = {name: shape for name, shape in files.shapes.items() if not IGNORED.fullmatch(name)}
    head, embedding = family.names["head"], family.names["trunk/embedding"]
    if tied and head in found and embedding in found and files.equal(head, embedding):
        del found[head]  # the same matrix, stored twice
    shaped = [
        f"{name} is {list(found[name])} and should be {list(place.stored)}"
        for name, place in wanted.items()
        if name in found and found[name] != place.stored
    ]
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": shaped,
    }
    told = [f"{len(names)} {kind} ({_some(names)})" for kind, names in problems.items() if names]
    if told:
        raise UsageError(f"the tensors in {files.directory} are not those of its config.json: {'; '.join(told)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def named_tensors(stream: WeightStream, family: Family, shapes: PyTree) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array, in their layout, of every weight that a stream brings, one at a time, in its order.

    Args:
        stream: path, layer (None: all of them) and array of weights; others than those of `shapes` are passed over.
        family: names the tensors.
        shapes: of the policy or critic wanted.
    """
    named: dict[tuple[str, ...], list[tuple[str, Place]]] = {}
    for name, place in places(family, shapes).items():
        named.setdefault(place.path, []).append((name, place))
    for path, layer, array in stream:
        for name, place in named.get(path, []):
            if layer in (None, place.layer):
                whole = layer is not None or place.layer is None
                yield name, to_stored(array if whole else array[place.layer], place)


def stored_shapes(family: Family, shapes: PyTree) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a file, by name, in the order of its layers; `shapes` as in `places`."""
    return {name: place.stored for name, place in places(family, shapes).items()}
