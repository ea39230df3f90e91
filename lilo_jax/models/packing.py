"""Less padding: several sequences in one row, and rows cut to the longest sequence of a batch.

Where sequences go is planned on the host.  Inside a program a plan is a few arrays of fixed shape, and `packed` turns
a model into one that computes packed rows but still speaks of sequences, so that scoring and losses know nothing of it.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lilo_jax.models import Model
from lilo_jax.types import Array, PyTree, Sequences


class PackedRows(flax.struct.PyTreeNode):
    """Where the tokens of B sequences stand in R rows of L positions.

    Attributes:
        sequence: the sequence whose token stands there; -1 where none does.
        position: the token's position in its sequence; 0 where none stands.
        start: where a sequence begins among the R x L positions laid end to end.
    """

    sequence: Int[Array, "*blocks packed positions"]
    position: Int[Array, "*blocks packed positions"]
    start: Int[Array, "*blocks rows"]


def first_fit_decreasing(lengths: Int[np.ndarray, "rows"], width: int) -> list[list[int]]:
    """Sequences by row: the longest first, each into the first row that has room for it.

    The rows are at most 11/9 of the fewest possible, plus 2/3 (Dósa 2007, theorem 1).

    Args:
        lengths: tokens of each sequence, at most `width`.
        width: tokens that a row holds.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for sequence in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        row = next((row for row, left in enumerate(room) if left >= lengths[sequence]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(sequence)
        room[row] -= int(lengths[sequence])
    return rows


def pack(lengths: Int[np.ndarray, "rows"], width: int, num_rows: int) -> PackedRows | None:
    """The plan for sequences of these lengths, as host arrays, or None if they need more rows.

    Args:
        lengths: tokens of each sequence, at most `width`.
        width: L.
        num_rows: R; rows that are not needed stay empty.
    """
    rows = first_fit_decreasing(lengths, width)
    if len(rows) > num_rows:
        return None
    sequence, position = np.full((num_rows, width), -1, np.int32), np.zeros((num_rows, width), np.int32)
    start = np.zeros(len(lengths), np.int32)
    for row, members in enumerate(rows):
        begin = 0
        for member in members:
            end = begin + int(lengths[member])
            sequence[row, begin:end], position[row, begin:end] = member, np.arange(end - begin)
            start[member] = row * width + begin
            begin = end
    return PackedRows(sequence=sequence, position=position, start=start)


def pack_blocks(
    lengths: Int[np.ndarray, "rows"], blocks: Int[np.ndarray, "*blocks block_rows"], width: int, *, multiple: int = 1
) -> PackedRows | None:
    """Plans for blocks of sequences that are computed one after another, all with equally many rows, or None.

    The rows are a quarter, half or three quarters of a block's sequences, whichever is the least that every block
    fits into: few sizes mean few compilations.  None means that packing would save less than a quarter.

    Args:
        lengths: tokens of each sequence, at most `width`.
        blocks: the sequences of each block.
        width: L.
        multiple: the rows are rounded up to a multiple of this: the row shards of the mesh.

    Returns:
        PackedRows whose arrays lead with the axes that `blocks` has before its last.
    """
    size = blocks.shape[-1]
    for quarters in (1, 2, 3):
        num_rows = -(-size * quarters // (4 * multiple)) * multiple
        plans = [pack(lengths[block], width, num_rows) for block in blocks.reshape(-1, size)]
        if num_rows < size and all(plan is not None for plan in plans):
            return jax.tree.map(lambda *x: np.stack(x).reshape(*blocks.shape[:-1], *x[0].shape), *plans)
    return None


def packed(model: Model, plan: PackedRows) -> Model:
    """The model that computes the hidden states of B sequences in packed rows.

    Its `hidden` takes tokens and returns states, equal to the model's own in the planned length of
    each sequence and arbitrary beyond; a token attends to its own sequence only, from position 0 on.
    """

    def hidden(params: PyTree, tokens: Int[Array, "rows tokens"]) -> Float[Array, "rows tokens embed"]:
        states = model.hidden(
            params, tokens[plan.sequence, plan.position], positions=plan.position, segments=plan.sequence
        )
        flat = states.reshape(-1, states.shape[-1])
        places = plan.start[:, None] + jnp.arange(tokens.shape[1])[None]
        return flat[jnp.minimum(places, flat.shape[0] - 1)]

    return model._replace(hidden=hidden)


def bucket_width(lengths: Int[np.ndarray, "rows"], most: int) -> int:
    """Tokens to cut rows to: the smallest of a quarter, half, three quarters and all of `most` that holds every row.

    Four sizes mean at most four compilations of what takes the rows.

    Args:
        lengths: tokens of each row, at most `most`.
        most: tokens that the rows hold now.
    """
    longest = int(np.max(lengths, initial=1))
    return next(width for width in (-(-most * quarters // 4) for quarters in (1, 2, 3, 4)) if width >= longest)


def cut_rows(sequences: Sequences) -> Sequences:
    """Rows without the padding that none of them needs, down to one of four lengths; host arrays."""
    lengths = sequences.prompt_lengths + sequences.completion_lengths
    width = bucket_width(np.asarray(lengths), sequences.tokens.shape[1])
    return sequences.replace(tokens=sequences.tokens[:, :width])
