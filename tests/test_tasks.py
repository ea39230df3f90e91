"""The tasks: what they generate or read, how they grade, and the tokenizers that turn them into ids."""

import collections
import json

import numpy as np
import pytest
import scipy.stats

from lilo_jax.bounds import check
from lilo_jax.errors import UsageError
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks import chain
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tokenizers import SentencePiece, load_tokenizer


# ----------------------------------------------------------------------------------------------------------- chain
@pytest.fixture(scope="module")
def task():
    return Chain().build(seed=0)


SHIFT_OF_LETTER = {"a": 1, "b": 3, "c": 7, "d": 9, "e": 2, "f": 4, "g": 6, "h": 8, "i": 5, "j": 0}
WRONG_SHIFT_OF_LETTER = {"e": 5, "f": 1, "g": 3, "h": 6, "i": 7, "j": 8}


def split_prompt(prompt: str) -> tuple[int, str]:
    """Start digit and verb letters; checks the layout."""
    assert len(prompt) == 16
    assert prompt[-1] == "="
    letters = prompt[1:-1].rstrip(".")
    assert set(letters) <= set("abcdefghij")
    return int(prompt[0]), letters


def test_chain_answers_equal_a_plain_re_implementation(task):
    for name, questions in task.splits.items():
        for question in questions:
            state, letters = split_prompt(question.prompt)
            states = []
            for letter in letters:
                state = (state + SHIFT_OF_LETTER[letter]) % 10
                states.append(str(state))
            assert question.answer == "".join(states)
            assert question.difficulty == max(3, *("abcdefghij".index(letter) for letter in letters))
            if name == "longer":
                assert 11 <= len(letters) <= 14
            else:
                assert (6 <= len(letters) <= 10) if question.difficulty > 3 else (1 <= len(letters) <= 8)
    assert chain.solve(7, [0, 4, 9, 3]) == "8009"
    assert chain.render(7, [0, 4, 9, 3]) == "7aejd..........="
    assert task.unique_answers


def test_chain_splits_have_their_sizes_and_are_distinct_and_disjoint(task):
    prompts = {name: [q.prompt for q in questions] for name, questions in task.splits.items()}
    assert {name: len(p) for name, p in prompts.items()} == {
        "train": 2000,
        "validation": 512,
        "test": 1024,
        "longer": 256,
    }
    everything = [p for split in prompts.values() for p in split]
    assert len(set(everything)) == len(everything) == 3792


def test_chain_held_out_splits_are_equal_for_all_seeds_and_the_pool_is_not(task):
    other, again = Chain().build(seed=1), Chain().build(seed=0)
    for name in ("validation", "test", "longer"):
        assert other.splits[name] == task.splits[name]
    ours, theirs = ({q.prompt for q in t.splits["train"]} for t in (task, other))
    assert len(ours & theirs) / 2000 < 0.2
    assert other.demonstrations != task.demonstrations
    assert again.splits == task.splits
    assert again.demonstrations == task.demonstrations


def test_chain_held_out_splits_do_not_depend_on_the_size_of_the_pool(task):
    small = Chain(pool=64, validation=512, test=1024, longer=256, demonstrations=1).build(seed=0)
    assert {n: small.splits[n] for n in ("validation", "test", "longer")} == {
        n: task.splits[n] for n in ("validation", "test", "longer")
    }


def test_chain_mixes_easy_and_hard_questions_as_stated():
    """Counted on draws before duplicates are dropped, which thins out short easy questions."""
    rng = np.random.default_rng(0)
    levels = collections.Counter(chain._mixture(rng).difficulty for _ in range(20_000))
    assert set(levels) == set(range(3, 10))
    assert scipy.stats.binomtest(levels[3], 20_000, 0.45).pvalue > 1e-4
    for level in range(4, 10):
        assert scipy.stats.binomtest(levels[level], 20_000, 0.55 / 6).pvalue > 1e-4


def test_chain_sets_keep_a_large_easy_share(task):
    """Below the 45% of the draws, as the few short easy prompts repeat and repetitions are dropped."""
    for name in ("train", "validation", "test"):
        easy = np.mean([q.difficulty == 3 for q in task.splits[name]])
        assert 0.36 < easy < 0.48
    assert all(q.difficulty > 3 for q in task.splits["longer"])


def test_chain_demonstrations_err_with_the_stated_reliability(task):
    """Every step is right or takes the one wrong shift of its verb; easy verbs never err."""
    right, shown = collections.Counter(), collections.Counter()
    for prompt, response in task.demonstrations:
        state, letters = split_prompt(prompt)
        assert 1 <= len(letters) <= 10
        assert len(response) == len(letters)
        for letter, digit in zip(letters, response, strict=True):
            shift = (int(digit) - state) % 10
            state = int(digit)
            shown[letter] += 1
            right[letter] += shift == SHIFT_OF_LETTER[letter]
            assert shift in (SHIFT_OF_LETTER[letter], WRONG_SHIFT_OF_LETTER.get(letter, SHIFT_OF_LETTER[letter]))
    assert all(right[letter] == shown[letter] > 10_000 for letter in "abcd")
    for letter, reliability in zip("efghij", (0.60, 0.42, 0.30, 0.20, 0.12, 0.06), strict=True):
        assert shown[letter] > 5_000
        assert scipy.stats.binomtest(right[letter], shown[letter], reliability).pvalue > 1e-4
        assert SHIFT_OF_LETTER[letter] != WRONG_SHIFT_OF_LETTER[letter]


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("8009", Verdict.CORRECT),
        ("8008", Verdict.WRONG),
        ("800", Verdict.WRONG),
        ("80091", Verdict.WRONG),
        (" 8009", Verdict.WRONG),
        ("8009\n", Verdict.WRONG),
        ("8009</s>", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_chain_grades_character_for_character(response, verdict):
    assert chain.grade(Question(prompt="7aejd..........=", answer="8009", difficulty=9), response) is verdict


def test_chain_refuses_an_empty_set():
    with pytest.raises(UsageError, match="at least 1"):
        check(Chain(validation=0))


# ----------------------------------------------------------------------------------------------------------- dataset
def write(tmp_path, *lines: str) -> str:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def questions_of(spec: Dataset) -> list[Question]:
    return spec._given_splits(("train",))["train"]


def numbered(count: int) -> list[str]:
    return [json.dumps({"question": f"{i} + {i}?", "answer": 2 * i}) for i in range(count)]


def test_dataset_reads_numbers_and_strings_and_skips_empty_lines(tmp_path):
    lines = ['{"question": "1+1?", "answer": 2}', "", '{"question": "half?", "answer": 0.5, "extra": [1]}']
    lines += ['{"question": "capital?", "answer": "Paris "}', '{"question": "naïve ☃?", "answer": "ja"}']
    found = questions_of(Dataset(path=write(tmp_path, *lines)))
    assert [(q.prompt, q.answer) for q in found] == [
        ("1+1?\n", "2"),
        ("half?\n", "0.5"),
        ("capital?\n", "Paris"),
        ("naïve ☃?\n", "ja"),
    ]
    assert {q.difficulty for q in found} == {None}


def test_dataset_takes_column_names_and_a_template(tmp_path):
    path = write(tmp_path, '{"q": "{x}?", "a": 1}')
    spec = Dataset(path=path, question="q", answer="a", template="Q: {question}\nA: ")
    assert questions_of(spec) == [Question(prompt="Q: {x}?\nA: ", answer="1", text="{x}?")]


def test_dataset_lines_end_at_newlines_only(tmp_path):
    """JSON allows a raw U+2028 or U+0085 inside a string: it is text, not the end of a line."""
    text = "one\u2028two\u2029three\u0085four"
    path = write(tmp_path, json.dumps({"question": text, "answer": "x"}, ensure_ascii=False), *numbered(1))
    assert [q.prompt for q in questions_of(Dataset(path=path))] == [text + "\n", "0 + 0?\n"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "1+1?", "answer": ', "line 3: not valid JSON"),
        ('["1+1?", 2]', "line 3: expected a JSON object"),
        ('{"question": "1+1?", "solution": 2}', "line 3: no column 'answer' .it has question, solution."),
        ('{"answer": 2}', "line 3: no column 'question'"),
        ('{"question": 5, "answer": 2}', "line 3: 'question' must be a string"),
        ('{"question": "1+1?", "answer": true}', "line 3: .* a string or a number"),
        ('{"question": "1+1?", "answer": null}', "line 3: .* a string or a number"),
        ('{"question": "1+1?", "answer": [2]}', "line 3: .* a string or a number"),
        ('{"question": " ", "answer": 2}', "line 3: empty"),
        ('{"question": "1+1?", "answer": ""}', "line 3: empty"),
        ('{"question": "0 + 0?", "answer": 1}', "line 3: same question as line 1"),
    ],
)
def test_dataset_mistakes_name_their_line(tmp_path, line, message):
    path = write(tmp_path, *numbered(2), line)
    with pytest.raises(UsageError, match=message) as error:
        questions_of(Dataset(path=path))
    assert "questions.jsonl, line 3" in str(error.value)


def test_dataset_missing_file_and_too_few_questions_name_the_cure(tmp_path):
    with pytest.raises(UsageError, match="no data file or directory"):
        Dataset(path=str(tmp_path / "none.jsonl")).build(seed=0)
    with pytest.raises(UsageError, match=r"--task\.path"):
        Dataset().build(seed=0)
    with pytest.raises(UsageError, match="has 2 questions, too few"):
        Dataset(path=write(tmp_path, *numbered(2))).build(seed=0)


def test_dataset_splits_are_disjoint_and_cover_the_file(tmp_path):
    path = write(tmp_path, *numbered(40))
    task = Dataset(path=path).build(seed=0)
    assert {name: len(questions) for name, questions in task.splits.items()} == {
        "validation": 4,
        "test": 4,
        "train": 32,
    }
    prompts = [q.prompt for questions in task.splits.values() for q in questions]
    assert sorted(prompts) == sorted(f"{i} + {i}?\n" for i in range(40))
    assert task.demonstrations == [(q.prompt, q.answer) for q in task.splits["train"]]
    assert not task.unique_answers
    assert Dataset(path=path).build(seed=0).splits == task.splits
    assert Dataset(path=path).build(seed=1).splits == task.splits  # what is held out is the same for every seed
    sized = Dataset(path=path, validation=3, test=7).build(seed=0).splits
    assert [len(sized[name]) for name in ("validation", "test", "train")] == [3, 7, 30]


# ------------------------------------------------------------------------------------------------------- tokenizers
TEXTS = (
    "hello  world\n\nfoo   bar ",
    "  naïve café, 日本語 😀\n",
    "\ttabs\tand 12345 digits",
    "units\x1fapart",
    "line one\nline two\n\n\n",
    " ",
    "the cat sat on the mat and the dog sat on the log",
)


@pytest.fixture(scope="module", params=["char", "bpe"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(kind):
    return SentencePiece.train(TEXTS, kind=kind, vocab_size=400)


def test_tokenizer_reproduces_its_texts_exactly(tokenizer):
    for text in (*TEXTS, "", "\n", "   ", " a  b ", "".join(TEXTS)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert not set(ids) & {tokenizer.pad_id, *tokenizer.begin_ids, *tokenizer.end_ids}


def test_char_has_a_token_per_character_and_bpe_has_fewer_but_single_digits(tokenizer, kind):
    text = TEXTS[-1]
    assert (len(tokenizer.encode(text)) == len(text)) == (kind == "char")
    assert len(tokenizer.encode(text)) <= len(text)
    assert len(tokenizer.encode("12345")) == 5


def test_bpe_reproduces_text_it_has_never_seen():
    tokenizer = SentencePiece.train(TEXTS, kind="bpe", vocab_size=400)
    for text in ("Zürich ξ 🦊", "\r\n", "<s>x</s>", "\x00\x01"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_char_shows_what_it_does_not_know():
    tokenizer = SentencePiece.train(TEXTS, kind="char", vocab_size=400)
    assert tokenizer.decode(tokenizer.encode("aξb")) == "a<unk>b"


def test_characters_of_long_texts_are_known(kind):
    text = "x" * 5000 + "ξ"
    tokenizer = SentencePiece.train([text, "abc"], kind=kind, vocab_size=400)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert kind == "bpe" or len(tokenizer.encode("xξ")) == 2


def test_same_texts_give_the_same_bytes(tokenizer, kind, tmp_path):
    again = SentencePiece.train(iter(TEXTS), kind=kind, vocab_size=400)
    for name, each in (("a", tokenizer), ("b", again)):
        each.save(tmp_path / name)
    assert (tmp_path / "a" / "tokenizer.model").read_bytes() == (tmp_path / "b" / "tokenizer.model").read_bytes()
    loaded = load_tokenizer(tmp_path / "a")
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert (loaded.vocab_size, loaded.pad_id, loaded.begin_ids, loaded.end_ids) == (tokenizer.vocab_size, 0, (2,), (3,))
    assert loaded.unique_segmentation == (kind == "char")
    with pytest.raises(UsageError, match="no tokenizer"):
        load_tokenizer(tmp_path / "missing")


def test_special_tokens_stay_visible_in_decoded_text(tokenizer):
    inner, last = tokenizer.encode(" a"), tokenizer.encode("b ")
    assert tokenizer.decode([2, *inner, 3, *last, 0, 1]) == "<s> a</s>b <pad><unk>"
    assert tokenizer.decode(np.array([3, 3])) == "</s></s>"


def test_ids_beyond_the_vocabulary_stay_visible(tokenizer):
    """A model may have more ids than its tokenizer, so that its vocabulary divides over devices."""
    beyond = tokenizer.vocab_size
    assert tokenizer.decode([*tokenizer.encode(" a"), beyond, *tokenizer.encode("b")]) == f" a<unused{beyond}>b"


def test_vocabulary_is_bounded(kind):
    tokenizer = SentencePiece.train(TEXTS, kind=kind, vocab_size=330)
    assert tokenizer.vocab_size <= 330
