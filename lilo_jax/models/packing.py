"""Less to compute: what sequences begin with only once, several of them in a row, rows no longer than they must be.

Where tokens stand is planned on the host.  Inside a program a plan is a few arrays of fixed shape, and `packed` turns
a model into one that computes packed rows but still speaks of sequences, so that scoring and losses know nothing of it.
A row of a plan is, say, worked examples, question, answer, answer, question, answer: each answer continues the question
before it, and each question the examples at the beginning.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import flax.struct
import jax
import numpy as np
from jaxtyping import Float, Int

from lilo_jax.models import Model
from lilo_jax.models.segments import Segments
from lilo_jax.types import Array, Prompts, PyTree, Sequences

SIZES = (2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48)
"""Tokens that packed rows may have, in 64ths of those of the rows as they were: few sizes mean few compilations, at the
price of places that stay empty."""
CALL = 8192
"""Tokens that a device call takes at most where rows are only scored."""
SHORT = 128
"""Tokens of the longest prompt up to which sampling calls have one width."""
WIDEST = 4096
"""Tokens of a row, beyond which attention would cost more than a prompt that is computed once saves."""


class PackedRows(flax.struct.PyTreeNode):
    """Where the tokens of B sequences of at most T tokens stand in R rows of L positions.

    Attributes:
        sequence: the sequence whose token stands there, or one of those that share it; -1 where none stands.
        segments: what sees what; -1 where no token stands.
        place: where a sequence's tokens stand among the R x L positions laid end to end; 0 beyond its length.
    """

    sequence: Int[Array, "*blocks packed positions"]
    segments: Segments
    place: Int[Array, "*blocks rows tokens"]


class Pieces(NamedTuple):
    """How B sequences are cut: what all begin with, what those of one prompt have in common then, and their own rest.

    Attributes:
        common: tokens that all of them begin with, such as worked examples; they stand once in every row.
        owner: the first of the sequences that have the same prompt; the sequence itself if it shares none.
        shared: tokens of that prompt after the common ones; 0 if the sequence shares none.
        own: tokens after those.
    """

    common: int
    owner: Int[np.ndarray, "rows"]
    shared: Int[np.ndarray, "rows"]
    own: Int[np.ndarray, "rows"]


def pieces(sequences: Sequences, *, share: bool = True) -> Pieces:
    """The sequences cut where they begin alike, if they may; host arrays."""
    prompts, lengths = np.asarray(sequences.prompt_lengths), np.asarray(sequences.completion_lengths)
    rows = np.arange(len(prompts))
    if not share:
        return Pieces(0, rows, np.zeros_like(prompts), prompts + lengths)
    tokens = np.asarray(sequences.tokens)
    first: dict[bytes, int] = {}
    owner = np.array([first.setdefault(tokens[i, : prompts[i]].tobytes(), i) for i in range(len(prompts))], np.int64)
    present = prompts + lengths > 0
    common = beginning(tokens[present], prompts[present]) if present.sum() > 1 else 0
    shared = np.where(np.bincount(owner, minlength=len(rows))[owner] > 1, np.maximum(prompts - common, 0), 0)
    return Pieces(common, owner, shared, np.maximum(prompts + lengths - common - shared, 0))


def beginning(tokens: Int[np.ndarray, "rows tokens"], lengths: Int[np.ndarray, "rows"]) -> int:
    """How many tokens all rows have in common from the first on; host arrays.

    Args:
        tokens: of the rows.
        lengths: of each row; what stands beyond is nothing.
    """
    alike = (tokens[:, : lengths.min()] == tokens[0, : lengths.min()]).all(axis=0)
    return len(alike) if alike.all() else int(np.argmin(alike))


def first_fit_decreasing(pieces: Pieces, width: int, num_rows: int) -> list[list[int]] | None:
    """The sequences of each row, those with the same prompt side by side; None if they do not fit.

    Prompts with all that continue them come the largest first, each into the first row that has room for it.  Where
    none has, as many of its sequences as the emptiest row can hold go there, and the prompt stands in another row once
    more.  Without shared prompts the rows in use are at most 11/9 of the fewest possible, plus 2/3 (Dósa 2007,
    theorem 1).

    Args:
        pieces: of the sequences.
        width: tokens that a row holds.
        num_rows: R.
    """
    prompts = pieces.shared[np.unique(pieces.owner, return_index=True)[1]]
    room = np.full(num_rows, width - pieces.common)
    if prompts.sum() + pieces.own.sum() > room.sum():
        return None
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    for waiting in _largest_first(pieces):
        while len(waiting):
            prompt = pieces.shared[waiting[0]]
            fits = room >= prompt + pieces.own[waiting].sum()
            row = int(np.argmax(fits) if fits.any() else np.argmax(room))
            taken = _greedy(pieces.own[waiting], int(room[row] - prompt))
            if not taken.any():
                return None
            rows[row] += waiting[taken].tolist()
            room[row] -= prompt + pieces.own[waiting[taken]].sum()
            waiting = waiting[~taken]
    return rows


def _largest_first(pieces: Pieces) -> list[np.ndarray]:
    """The sequences of each prompt, the longest first; the prompts by their tokens with all that continue them."""
    order = np.argsort(-pieces.own, kind="stable")
    together = [order[pieces.owner[order] == owner] for owner in np.unique(pieces.owner)]
    return sorted(together, key=lambda members: -(pieces.shared[members[0]] + pieces.own[members].sum()))


def _greedy(sizes: Int[np.ndarray, "waiting"], room: int) -> np.ndarray:
    """Which of the sizes are taken, if each is that still fits."""
    taken = np.zeros(len(sizes), bool)
    for i, size in enumerate(sizes):
        taken[i] = room >= size
        room -= size * taken[i]
    return taken


def pack(pieces: Pieces, longest: int, width: int, num_rows: int) -> PackedRows | None:
    """The plan for these sequences, as host arrays, or None if they need more rows.

    Args:
        pieces: of B sequences.
        longest: T, that of the longest sequence at least.
        width: L.
        num_rows: R; rows that are not needed stay empty.
    """
    rows = first_fit_decreasing(pieces, width, num_rows)
    if rows is None:
        return None
    sequence, own, last = (np.full((num_rows, width), -1, np.int32) for _ in range(3))
    positions = np.zeros((num_rows, width), np.int32)
    place = np.zeros((len(pieces.own), longest), np.int32)
    for row, members in enumerate(rows):
        end = 0
        for number, (piece, begins, whose, following) in enumerate(_in_order(pieces, members)):
            at = slice(end, end + piece)
            sequence[row, at], own[row, at], last[row, at] = whose[0], number, number + following
            positions[row, at] = np.arange(begins, begins + piece)
            place[whose, begins : begins + piece] = row * width + np.arange(at.start, at.stop)
            end = at.stop
    return PackedRows(sequence, Segments(own, positions, last), place)


def _in_order(pieces: Pieces, members: list[int]) -> Iterator[tuple[int, int, list[int], int]]:
    """The pieces of a row as they stand: tokens, place of the first in a sequence, sequences, pieces that follow it."""
    owner, shared, own = (x.tolist() for x in pieces[1:])
    groups = [list(group) for _, group in itertools.groupby(members, key=owner.__getitem__)]
    if pieces.common and members:
        yield pieces.common, 0, members, len(members) + sum(shared[group[0]] > 0 for group in groups)
    for group in groups:
        if prompt := shared[group[0]]:
            yield prompt, pieces.common, group, len(group)
        for member in group:
            yield own[member], pieces.common + prompt, [member], 0


def pack_blocks(
    sequences: Sequences, blocks: Int[np.ndarray, "*blocks block_rows"], *, multiple: int = 1, share: bool = True
) -> PackedRows | None:
    """Plans of one shape for blocks of sequences that are computed one after another, or None.

    The shape is the smallest of a few that every block fits into.  None means that packing would save less than a
    quarter of the tokens.

    Args:
        sequences: host arrays.
        blocks: the sequences of each block.
        multiple: the rows are rounded up to a multiple of this: the row shards of the mesh.
        share: whether what sequences of a row begin with is computed once for them; see `Model.shares_prompts`.

    Returns:
        PackedRows whose arrays lead with the axes that `blocks` has before its last.
    """
    size, longest = blocks.shape[-1], sequences.tokens.shape[1]
    flat = blocks.reshape(-1, size)
    cut = [pieces(jax.tree.map(lambda x, block=block: np.asarray(x)[block], sequences), share=share) for block in flat]
    shares = any(block.common or block.shared.any() for block in cut)
    # In halves of the longest sequence, so that what holds the largest group is of few sizes too.
    largest = math.ceil(2 * max(map(_whole, cut)) / longest) / 2
    widths = sorted({1, 2, 4, min(largest, 4)}) if shares else [1]
    for num_rows, width in dict.fromkeys(_shapes(size, longest, multiple, widths)):
        plans = []
        for block in cut:
            if (plan := pack(block, longest, width, num_rows)) is None:
                break
            plans.append(plan)
        else:
            stacked = jax.tree.map(lambda *x: np.stack(x).reshape(*blocks.shape[:-1], *x[0].shape), *plans)
            segments = stacked.segments if shares else stacked.segments._replace(last=None)
            return stacked.replace(segments=segments)
    return None


def _whole(cut: Pieces) -> int:
    """Tokens of the longest prompt with all that continues it, and with what all sequences begin with."""
    owners, at = np.unique(cut.owner, return_inverse=True)
    return cut.common + int(np.max(cut.shared[owners] + np.bincount(at, cut.own), initial=0))


def _shapes(size: int, longest: int, multiple: int, widths: Iterable[float]) -> Iterator[tuple[int, int]]:
    """Rows and tokens of a row to try, those with the fewest tokens first, and of equals the narrowest.

    A row has room for at least so many sequences of the longest length as `widths` has: the wider the rows, the fewer
    tokens stand in two of them, and the more attention costs.
    """
    for share in SIZES:
        tokens = -(-size * longest * share // 64)
        for times in widths:
            num_rows = multiple * max(1, int(tokens // (multiple * times * longest)))
            width = -(-tokens // num_rows)
            if width >= longest and (times == 1 or times * longest <= WIDEST):
                yield num_rows, width


def packed(model: Model, plan: PackedRows) -> Model:
    """The model that computes the hidden states of B sequences in packed rows.

    Its `hidden` and `states` take tokens and return states, equal to the model's own in the planned length of each
    sequence and arbitrary beyond.
    """

    def of_rows(tokens: Int[Array, "rows tokens"]) -> tuple[Int[Array, "packed positions"], Segments]:
        return tokens[plan.sequence, plan.segments.positions], plan.segments

    def of_sequences(states: Float[Array, "packed positions embed"]) -> Float[Array, "rows tokens embed"]:
        return states.reshape(-1, states.shape[-1])[plan.place]

    def hidden(params: PyTree, tokens: Int[Array, "rows tokens"]) -> Float[Array, "rows tokens embed"]:
        return of_sequences(model.hidden(params, *of_rows(tokens)))

    def states(params: PyTree, tokens: Int[Array, "rows tokens"]) -> tuple[Float[Array, "rows tokens embed"], ...]:
        return tuple(map(of_sequences, model.states(params, *of_rows(tokens))))

    return model._replace(hidden=hidden, states=states)


def bucket_width(lengths: Int[np.ndarray, "rows"], most: int) -> int:
    """Tokens to cut rows to: the smallest of a quarter, half, three quarters and all of `most` that holds every row.

    Four sizes mean at most four compilations of what takes the rows.

    Args:
        lengths: tokens of each row, at most `most`.
        most: tokens that the rows hold now.
    """
    longest = int(np.max(lengths, initial=1))
    return next(width for width in (-(-most * quarters // 4) for quarters in (1, 2, 3, 4)) if width >= longest)


def prompt_width(lengths: Int[np.ndarray, "prompts"], most: int) -> int:
    """Tokens to cut the prompts of a sampling call to, so that one long prompt of a pool does not set it for all.

    Up to `SHORT` tokens nothing is cut: it would save less than another compilation takes.

    Args:
        lengths: tokens of each prompt, at most `most`.
        most: tokens of the longest prompt of the pool.
    """
    return bucket_width(lengths, most) if most > SHORT else most


def cut_rows(sequences: Sequences) -> Sequences:
    """Rows without the padding that none of them needs, down to one of four lengths; host arrays."""
    lengths = sequences.prompt_lengths + sequences.completion_lengths
    width = bucket_width(np.asarray(lengths), sequences.tokens.shape[1])
    return sequences.replace(tokens=sequences.tokens[:, :width])


def length_blocks(
    lengths: Int[np.ndarray, "rows"], most: int, *, multiple: int = 1
) -> Iterator[tuple[Int[np.ndarray, "block_rows"], int]]:
    """Rows of like length to compute together, with the tokens to cut them to: at most four shapes.

    Blocks hold at most `CALL` tokens before their rows are rounded up.  Those of a shape have equally many rows; the
    last is filled up by repeating a row.

    Args:
        lengths: tokens of each row, at most `most`.
        most: tokens that the rows hold now.
        multiple: the rows of a block are rounded up to a multiple of this: the row shards of the mesh.
    """
    widths = np.array([bucket_width(lengths[i : i + 1], most) for i in range(len(lengths))], int)
    for width in np.unique(widths).tolist():
        rows = np.flatnonzero(widths == width)
        blocks = -(-len(rows) // max(CALL // width, 1))
        size = -(-len(rows) // (blocks * multiple)) * multiple
        for start in range(0, len(rows), size):
            yield rows[np.minimum(np.arange(start, start + size), len(rows) - 1)], width


def prompt_blocks(
    prompts: Prompts, *, multiple: int = 1, share: bool = True
) -> Iterator[tuple[Int[np.ndarray, "block_rows"], Prompts, PackedRows | None]]:
    """Prompts of like length to compute together (see `length_blocks`), and where they stand in packed rows.

    They are packed where at least a quarter of what they hold is a beginning that all have in common, such as worked
    examples: it is computed once for a row.

    Args:
        prompts: host arrays.
        multiple: as of `length_blocks`.
        share: as of `pack_blocks`.

    Yields:
        Which prompts a block has, they themselves, and their plan or None.
    """
    tokens, lengths = np.asarray(prompts.tokens), np.asarray(prompts.lengths)
    share = share and len(lengths) > 1 and 4 * beginning(tokens, lengths) >= lengths.mean()
    blocks = length_blocks(lengths, tokens.shape[1], multiple=multiple)
    for width, same in itertools.groupby(blocks, key=lambda block: block[1]):
        rows = np.stack([block for block, _ in same])
        alone = Sequences(tokens[:, :width], lengths, np.zeros_like(lengths))
        plans = pack_blocks(alone, rows, multiple=multiple) if share else None
        for i, block in enumerate(rows):
            plan = plans and jax.tree.map(lambda x, i=i: x[i], plans)
            yield block, Prompts(tokens[block, :width], lengths[block]), plan
