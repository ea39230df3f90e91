"""What the tokens of whole sequences see of each other: in a layer with a window, in packed rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lilo_jax.types import Array


class View(NamedTuple):
    """What the queries of a layer see, and how its scores are bounded.

    Attributes:
        window: tokens that a query sees, its own included; 0: all before it.
        softcap: scores s become softcap tanh(s / softcap); 0: they stay.
    """

    window: int = 0
    softcap: float = 0.0

    def sees(self, query_positions: Int[Array, "..."], key_positions: Int[Array, "..."]) -> Bool[Array, "..."]:
        """Whether a query at one position sees a key at another; broadcast."""
        seen = key_positions <= query_positions
        return seen & (key_positions > query_positions - self.window) if self.window else seen

    def bound(self, scores: Float[Array, "..."]) -> Float[Array, "..."]:
        """The scores, capped."""
        return softcapped(scores, self.softcap)


PLAIN = View()


class Segments(NamedTuple):
    """Which tokens of packed rows see each other: those of one segment, and those of the segments that it continues.

    The segments of a row are numbered as they stand there: worked examples 0, a question 1, two answers to it 2 and 3,
    another question 4, its answer 5.  The first two have `last` 5 and 3, the others their own number.

    Attributes:
        own: the segment that a token belongs to.
        positions: of the tokens in their sequences, by which windows are measured.
        last: the last segment that continues the token's own, at once or further on; its own if none does.  What
            continues a segment stands right behind it.  None: no segment continues another.
    """

    own: Int[Array, "rows tokens"]
    positions: Int[Array, "rows tokens"]
    last: Int[Array, "rows tokens"] | None = None

    def at(self, places: slice) -> "Segments":
        """Those of the tokens at some places of a row."""
        return jax.tree.map(lambda x: x[:, places], self)

    def see(self, view: View, keys: "Segments") -> Bool[Array, "rows queries keys"]:
        """Whether these tokens see the ones of `keys`."""
        own, other = self.own[:, :, None], keys.own[:, None]
        related = own == other if keys.last is None else (other <= own) & (own <= keys.last[:, None])
        return related & view.sees(self.positions[:, :, None], keys.positions[:, None])


def softcapped(x: Float[Array, "..."], cap: float) -> Float[Array, "..."]:
    """Cap tanh(x / cap); `x` itself if `cap` is 0."""
    return cap * jnp.tanh(x / cap) if cap else x
