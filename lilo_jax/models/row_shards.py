"""How a part of a program runs once per row shard of the mesh: with its own rows, on weights that are whole there."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Float

from lilo_jax.types import Array, PyTree

Leading = tuple[str | None, ...]
"""How each array is split over the shards: None is alike on all, "embed" and "requests" name its first axis, and of
"tokens" the first axis is rows, and the second their tokens."""


class RowShards(NamedTuple):
    """The row shards of a mesh, as a program sees them; `lilo_jax.device.mesh.row_shards_of` makes them.

    Attributes:
        number: into how many parts the rows of a batch are split.
        parts: into how many parts the tokens of such a row are split; there are number x parts shards.
        run: (function, leading axes of its arguments, of its results) -> the function, run by each shard on its part.
        total: inside such a function, (x) -> the sum over the shards of a gradient by a weight [embed, ...], split over
            the shards again as the weight is.
        embed: (size) -> the leading axis of what `total` returns of so many rows.
        whole: (weight, dtype, *logical axes) -> the weight in that type, whole on every shard.
    """

    number: int
    parts: int
    run: Callable[[Callable[..., PyTree], Leading, Leading], Callable[..., PyTree]]
    total: Callable[[Array], Array]
    embed: Callable[[int], str | None]
    whole: Callable[..., Array]


def _as_it_is(function: Callable[..., PyTree], arguments: Leading, results: Leading) -> Callable[..., PyTree]:
    del arguments, results
    return function


def _itself(x: Array) -> Array:
    return x


def _unsplit(size: int) -> None:
    del size


def _cast(weight: Float[Array, "..."], dtype: jax.typing.DTypeLike, *axes: str | None) -> Float[Array, "..."]:
    del axes
    return weight.astype(dtype)


ALONE = RowShards(1, 1, _as_it_is, _itself, _unsplit, _cast)
"""Of a single device."""
