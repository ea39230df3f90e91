"""Stop strings: the automaton over tokens against a search in the bytes, and the tokenizer's bytes."""

import jax
import numpy as np
import pytest

from lilo_jax.sampling.stopping import advance, cut_at_stop, stop_table
from lilo_jax.tokenizers import SentencePiece

STOPS = [
    ["ab"],
    ["aa"],
    ["abab", "ba"],
    ["aab", "ab", "abc"],  # one ends another and begins a third
    ["abcab", "bcb", "c"],
    ["\n\n", "Question:"],
    ["é", "日本"],
    [],
]


def has_stopped(pieces: list[bytes], stops: list[str]) -> list[bool]:
    """Whether any stop string occurs in the bytes up to each token."""
    seen = [b"".join(pieces[: i + 1]) for i in range(len(pieces))]
    return [any(stop.encode() in each for stop in stops) for each in seen]


def walk(table: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Whether each row has stopped after each token, [rows, T]."""

    def step(state, column):
        state = advance(table, state, column)
        return state, state == table.shape[0] - 1

    start = np.zeros(len(tokens), np.int32)
    return np.asarray(jax.lax.scan(step, start, tokens.T)[1]).T


@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_the_automaton_stops_where_a_search_in_the_bytes_finds_a_stop_string(stops):
    """Random tokens of 0 to 5 bytes over the letters of the stop strings, cut anywhere, also within characters."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer("".join([*stops, "abc"]).encode(), np.uint8)
    vocabulary = [bytes(rng.choice(letters, length)) for length in rng.integers(0, 6, 40)]
    vocabulary += [stop.encode()[i : i + 2] for stop in stops for i in range(len(stop))]
    tokens = rng.integers(0, len(vocabulary), (200, 12))
    tokens[100:] = np.where(rng.random((100, 12)) < 0.7, len(vocabulary) - 1 - tokens[100:] % 5, tokens[100:])
    table = stop_table(vocabulary, stops)
    assert table.dtype == np.int32
    assert table.shape[1] == len(vocabulary)
    assert np.all(table[-1] == len(table) - 1)
    expected = np.array([has_stopped([vocabulary[i] for i in row], stops) for row in tokens])
    np.testing.assert_array_equal(walk(table, tokens), expected)
    assert bool(stops) == expected[:, -1].any()
    assert not expected.all()


def test_a_stop_string_across_three_tokens():
    vocabulary = [b"x\nQu", b"esti", b"on: y", b"on", b"", b"Q"]
    table = stop_table(vocabulary, ["\nQuestion:"])
    rows = np.array([[0, 1, 2, 4], [0, 4, 1, 2], [0, 1, 3, 2], [0, 1, 5, 2], [0, 0, 1, 2]])
    found = walk(table, rows)
    assert found.tolist() == [
        [False, False, True, True],
        [False, False, False, True],  # a token that adds nothing changes nothing
        [False, False, False, False],
        [False, False, False, False],
        [False, False, False, True],  # begun again
    ]


def test_a_token_that_holds_the_stop_string_and_goes_on_has_stopped():
    table = stop_table([b"a##b", b"##", b"#"], ["##"])
    assert walk(table, np.array([[0, 2], [1, 0], [2, 2]])).tolist() == [[True, True], [True, True], [False, True]]


def test_states_are_the_beginnings_of_stop_strings():
    """By hand, for "aab" and bytes a, b: "", "a", "aa", stopped."""
    assert stop_table([b"a", b"b", b"ab"], ["aab"]).tolist() == [[1, 0, 0], [2, 0, 3], [2, 3, 3], [3, 3, 3]]


def test_a_large_vocabulary_equals_the_walk_over_each_token():
    rng = np.random.default_rng(1)
    vocabulary = [bytes(rng.choice(np.frombuffer(b"ab\n QuA:", np.uint8), n)) for n in rng.integers(0, 9, 20_000)]
    stops = ["\n\nQ:", "\nA:", "ab ab"]
    table = stop_table(vocabulary, stops)
    by_byte = stop_table([bytes([b]) for b in range(256)], stops)
    for i in rng.integers(0, len(vocabulary), 200):
        for state in range(len(table)):
            end = state
            for byte in vocabulary[i]:
                end = by_byte[end, byte]
            assert table[state, i] == end


def test_an_empty_stop_string_says_so():
    with pytest.raises(ValueError, match="a stop string must not be empty"):
        stop_table([b"a"], ["x", ""])


def test_text_is_cut_before_the_first_stop_string():
    assert cut_at_stop("one\n\ntwo##", ["##", "\n\n"]) == "one"
    assert cut_at_stop("one\n\ntwo##", ["##"]) == "one\n\ntwo"
    assert cut_at_stop("##", ["##"]) == ""
    assert cut_at_stop("one", ["##"]) == "one"
    assert cut_at_stop("one", []) == "one"
    assert cut_at_stop("aab", ["ab", "aab"]) == ""


# ------------------------------------------------------------------------------------------------ the tokenizer's bytes
TEXTS = ("hello  world\n\nfoo ", " naïve 日本 12345\n", "the cat sat on the mat")


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_the_bytes_of_tokens_joined_are_the_text(kind):
    tokenizer = SentencePiece.train(TEXTS, kind=kind, vocab_size=330)
    pieces = tokenizer.token_bytes()
    assert len(pieces) == tokenizer.vocab_size
    for text in (*TEXTS, " a  b\n" if kind == "bpe" else " t  h\n"):
        assert b"".join(pieces[i] for i in tokenizer.encode(text)).decode() == text
    assert [pieces[i] for i in (tokenizer.pad_id, *tokenizer.begin_ids, *tokenizer.end_ids)] == [b"", b"", b""]


def test_a_stop_string_of_bytes_the_tokenizer_falls_back_to():
    """ξ is unknown to the merges: two byte tokens, of which only the second completes the stop string."""
    tokenizer = SentencePiece.train(TEXTS, kind="bpe", vocab_size=330)
    ids = tokenizer.encode("aξ")
    pieces = tokenizer.token_bytes()
    assert [pieces[i] for i in ids[-2:]] == [bytes([b]) for b in "ξ".encode()]
    found = walk(stop_table(pieces, ["ξ"]), np.array([ids]))
    assert found[0].tolist() == [False] * (len(ids) - 1) + [True]
