"""The questions of a run, by id and in their order: their fingerprint, and what is different about others."""

import collections
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lilo_jax.questions import Question
from lilo_jax.storage.json_lines import to_json

SHOWN = 60
"""Characters of a question that are shown."""


class Entry(NamedTuple):
    """A line of the file.

    Attributes:
        split: that the question belongs to.
        id, content, where: of the question.
    """

    split: str
    id: str
    content: str
    where: str

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same question wherever it stands: an id of the user's own may come to name another."""
        return self.id, self.content


def fingerprint(splits: Mapping[str, Sequence[Question]]) -> str:
    """SHA-256 over the splits and the ids and contents of their questions, in order; files may move."""
    described = [[name, [[q.id, q.content] for q in splits[name]]] for name in sorted(splits)]
    return hashlib.sha256(to_json(described).encode()).hexdigest()


def lines(splits: Mapping[str, Sequence[Question]]) -> bytes:
    """The content of the file: a line a question."""
    return "".join(to_json(entry._asdict()) + "\n" for entry in _entries(splits)).encode()


def differences(stored: bytes, splits: Mapping[str, Sequence[Question]]) -> str:
    """What is different between stored `lines` and these questions, in a clause; "" if they are the same, in order."""
    before, now = [Entry(**json.loads(line)) for line in stored.splitlines()], list(_entries(splits))
    texts = {(split, q.id): q.text or q.prompt for split, questions in splits.items() for q in questions}
    missing, added = _without(before, now), _without(now, before)
    given = {entry.id: entry for entry in missing}
    changed = [entry for entry in added if entry.id in given]
    ids = {entry.id for entry in changed}
    clauses = [
        _counted(changed, "asks something else", "ask something else", texts),
        _counted([entry for entry in added if entry.id not in ids], "was added", "were added", texts),
        _counted([entry for entry in missing if entry.id not in ids], "is missing", "are missing", {}),
    ]
    return "; ".join(filter(None, clauses)) or _order(before, now)


def _entries(splits: Mapping[str, Sequence[Question]]) -> Iterator[Entry]:
    for split, questions in splits.items():
        yield from (Entry(split, q.id, q.content, q.where) for q in questions)


def _without(entries: Iterable[Entry], others: Iterable[Entry]) -> list[Entry]:
    """The entries whose question is not among others, each as often as it is not."""
    there = collections.Counter(entry.key for entry in others)
    found = []
    for entry in entries:
        if there[entry.key]:
            there[entry.key] -= 1
        else:
            found.append(entry)
    return found


def _counted(entries: list[Entry], one: str, several: str, texts: Mapping[tuple[str, str], str]) -> str:
    """How many questions that is true of, and the first of them; "" for none."""
    if not entries:
        return ""
    first = entries[0]
    where = f", {first.where}" if first.where else ""
    text = texts.get((first.split, first.id), "")
    asked = f": {text[:SHOWN]!r}{'...' if len(text) > SHOWN else ''}" if text else ""
    shown = f"`{first.id}` of {first.split}{where}{asked}"
    if len(entries) == 1:
        return f"1 question {one}, {shown}"
    return f"{len(entries)} questions {several}, first {shown}"


def _order(before: Sequence[Entry], now: Sequence[Entry]) -> str:
    """The first difference between the same questions in another order or other splits; "" if there is none."""
    for split in dict.fromkeys(entry.split for entry in (*before, *now)):
        old, new = ([entry for entry in entries if entry.split == split] for entries in (before, now))
        if len(old) != len(new) or collections.Counter(e.key for e in old) != collections.Counter(e.key for e in new):
            come, gone = _without(new, old), _without(old, new)
            moved = (come or gone)[0]
            was = next(entry.split for entry in before if entry.key == moved.key)
            return f"`{moved.id}` was in {was}, and is in {split if come else 'another split'} now"
        for number, (one, other) in enumerate(zip(old, new, strict=True), start=1):
            if one.key != other.key:
                return f"the order of {split} differs from question {number} on: `{other.id}` stands for `{one.id}`"
    return ""
