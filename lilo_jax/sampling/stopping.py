"""Stop strings as an automaton over tokens: built on the host, walked on the device by one look-up per token."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from lilo_jax.types import Array


def stop_table(token_bytes: Sequence[bytes], stop_strings: Sequence[str]) -> Int[np.ndarray, "states vocabulary"]:
    """Transitions of the automaton that tells, token by token, whether a stop string has occurred.

    A state is the longest end of the bytes seen so far that begins a stop string: state 0 is none, and the last state
    is entered when a stop string is complete, at any byte of a token, and never left.  A token's transition is the
    walk over its bytes, so that stop strings may begin and end within tokens.

    Source: Aho and Corasick 1975, section 2, the automaton over bytes.

    Args:
        token_bytes: what each id adds to the text, [V]; b"" for ids that add nothing.
        stop_strings: none of them empty; with no stop string no state is ever left.

    Returns:
        The state after each token in each state.
    """
    by_byte = _byte_table([stop.encode() for stop in stop_strings])
    lengths = np.array([len(each) for each in token_bytes])
    longest_first = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[longest_first]
    text = np.frombuffer(b"".join(token_bytes), np.uint8)
    states = np.repeat(np.arange(len(by_byte), dtype=np.int32)[:, None], len(lengths), axis=1)
    for position in range(lengths.max(initial=0)):
        longer = np.count_nonzero(lengths > position)  # tokens, the first ones, that have a byte at this position
        states[:, :longer] = by_byte[states[:, :longer], text[starts[:longer] + position]]
    table = np.empty_like(states)
    table[:, longest_first] = states
    return table


def _byte_table(stops: Sequence[bytes]) -> Int[np.ndarray, "states 256"]:
    """The state after each byte in each state."""
    if b"" in stops:
        raise ValueError("a stop string must not be empty: leave it out, or give the text to stop at")
    prefixes = {b""} | {stop[:end] for stop in stops for end in range(len(stop))}
    prefixes = {prefix for prefix in prefixes if not any(stop in prefix for stop in stops)}
    states = {prefix: state for state, prefix in enumerate(sorted(prefixes, key=lambda prefix: (len(prefix), prefix)))}
    stopped = len(states)
    table = np.zeros((stopped + 1, 256), np.int32)
    table[stopped] = stopped
    for prefix, state in states.items():
        for byte in set(b"".join(stops)):
            seen = prefix + bytes([byte])
            ends = (states[seen[start:]] for start in range(len(seen) + 1) if seen[start:] in states)
            table[state, byte] = stopped if seen.endswith(tuple(stops)) else next(ends)
    return table


def advance(
    table: Int[Array, "states vocabulary"], state: Int[Array, "slots"], tokens: Int[Array, "slots"]
) -> Int[Array, "slots"]:
    """The states after one more token each.

    Args:
        table: from `stop_table`; a sequence has stopped iff its state is the last one.
        state: 0 before the first token.
        tokens: one for each.
    """
    return jnp.asarray(table)[state, tokens]


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first stop string that occurs in it; all of it if none does."""
    return text[: min((place for place in map(text.find, stop_strings) if place >= 0), default=len(text))]
