"""Files with checksums: what is read is what was written, or it is refused by name.

`checksums.json` holds, for every file of a run, how many bytes were written and their XXH3 hash, and a hash of itself.
A reader believes that many bytes and no more, so it can read while the run goes on, and what a crash has left behind
them is as if it were not there.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xxhash

from lilo_jax.errors import RunError
from lilo_jax.storage.files import write_at, write_whole
from lilo_jax.storage.paths import AnyPath

CHECKSUMS = "checksums.json"
FORMAT = 4
"""Of a run's directory and of its checkpoints; 1 had no checksums, 2 other names of arrays, 3 hashes of them."""
LOOKS = 5
"""Times that a reader looks again at a file that a live run is just replacing."""

Whole = tuple[int, str]
"""Bytes of a file and their hash."""
Entry = Whole | None
"""None: a person has accepted the file as it is."""


class CheckedFiles:
    """The files of one directory.  Many may read; one process at a time may write."""

    def __init__(self, root: AnyPath) -> None:
        self._root = root
        self.guard: Callable[[], None] = lambda: None
        """Called before anything is written down as written; whoever may not write any more raises."""
        self._entries: dict[str, Entry] | None = None
        self._hashers: dict[str, tuple[int, Any]] = {}

    @property
    def known(self) -> bool:
        """Whether there are checksums at all."""
        return (self._root / CHECKSUMS).exists()

    def names(self, folder: str) -> list[str]:
        """The files of a folder that were written, sorted."""
        return sorted(name for name in self._listed() if name.startswith(f"{folder}/"))

    def read(self, name: str) -> bytes | None:
        """What was written to a file; None if nothing was.

        Raises:
            RunError: the file is missing, was cut or was changed.
        """
        for _ in range(LOOKS):
            listed = self._listed()
            if name not in listed:
                return None
            content = self._content(name)
            written = _written(content, listed[name])
            if written is not None:
                return written
            if self._listed() == listed:
                break
        raise self._damage(name, "is missing" if content is None else "is not what was written there")

    def check_folder(self, folder: str) -> bool:
        """Whether a folder was written; raises `RunError` if one of its files is not as it was written."""
        names = self.names(folder)
        for name in names:
            written = self.read(name)
            if written != self._content(name):
                raise self._damage(name, "is longer than what was written there")
        return bool(names)

    def append(self, name: str, content: bytes) -> None:
        """Adds to a file, behind what was written before."""
        size, hasher = self._end(name)
        write_at(self._root / name, size, content)
        hasher.update(content)
        self._hashers[name] = size + len(content), hasher
        self._save({**self._own(), name: (size + len(content), hasher.hexdigest())})

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole, in place of an older one."""
        self._save({other: entry for other, entry in self._own().items() if other != name})
        (self._root / name).parent.mkdir(exist_ok=True)
        write_whole(self._root / name, content)
        self._save({**self._own(), name: _whole(content)})

    def adopt(self, folder: str) -> None:
        """Takes in the files of a folder that something else has written."""
        files = [file for file in (self._root / folder).rglob("*") if file.is_file()]
        found = {file.relative_to(self._root).as_posix(): _whole(file.read_bytes()) for file in files}
        self._save(self._own() | found)

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files."""
        names = set(names)
        self._save({name: entry for name, entry in self._own().items() if name not in names})
        for name in names:
            (self._root / name).unlink(missing_ok=True)
            self._hashers.pop(name, None)

    def state(self) -> dict[str, Entry]:
        """What has been written so far, JSON-ready: where `rewind` goes back to."""
        return dict(self._own())

    def rewind(self, state: Mapping[str, Entry]) -> None:
        """Goes back to an earlier `state`: what was added since is cut off, and newer files are deleted.

        Raises:
            RunError: a file is not what it was then; nothing has been changed.
        """
        now = self._own_if_whole()
        kept: dict[str, Whole] = {}
        longer: list[str] = []
        for name, entry in state.items():
            content = self._content(name)
            if content is not None and now.get(name, entry) is None:  # a person has accepted it
                content = content[: entry[0]] if entry else content
                entry = None
            written = _written(content, entry)
            if written is None:
                raise self._damage(name, "is missing" if content is None else "is not what was written there")
            kept[name] = _whole(written)
            if written != content:
                longer.append(name)
        self._hashers.clear()
        self._save(kept)
        self.remove(name for name in now if name not in kept)
        for name in longer:
            write_at(self._root / name, kept[name][0], b"")

    # ------------------------------------------------------------------------------------------------------- inside
    def _listed(self) -> dict[str, Entry]:
        """What stands in the file of checksums now."""
        path = self._root / CHECKSUMS
        try:
            content = json.loads(path.read_bytes())
            version, files, own = content["format"], dict(content["files"]), content["checksum"]
        except FileNotFoundError:
            raise RunError(
                f"{self._root} has no {CHECKSUMS}: the file is lost, and going on with the run writes it again, or "
                f"another version of lilo_jax wrote the directory, and that one reads it"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._damage(CHECKSUMS, "cannot be read") from None
        if own is not None and own != hash_of([version, files]):
            raise self._damage(CHECKSUMS, "is not what was written there")
        if version != FORMAT:
            raise RunError(
                f"{self._root} is of format {version}, and this version of lilo_jax reads format {FORMAT}: take the "
                f"version that its environment.json names"
            )
        return {name: tuple(entry) if entry else None for name, entry in files.items()}

    def _own(self) -> dict[str, Entry]:
        """What this writer has written, and whoever wrote before it."""
        if self._entries is None:
            self._entries = self._listed() if self.known else {}
        return self._entries

    def _own_if_whole(self) -> dict[str, Entry]:
        """The same; nothing where the checksums are damaged, which a checkpoint's make good."""
        try:
            return self._own()
        except RunError:
            return {}

    def _save(self, entries: Mapping[str, Entry]) -> None:
        self.guard()
        content = {"format": FORMAT, "files": entries, "checksum": hash_of([FORMAT, entries])}
        write_whole(self._root / CHECKSUMS, json.dumps(content, indent=0, allow_nan=False) + "\n")
        self._entries = dict(entries)

    def _end(self, name: str) -> tuple[int, Any]:
        """Bytes written to a file so far, and their hash to be gone on with."""
        if name in self._hashers:
            return self._hashers[name]
        entry, hasher = self._own().get(name, (0, "")), xxhash.xxh3_128()
        if name in self._own():
            content = self._content(name)
            written = _written(content, entry)
            if written is None:
                raise self._damage(name, "is not what was written there")
            hasher.update(written)
            return len(written), hasher
        return 0, hasher

    def _content(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _damage(self, name: str, what: str) -> RunError:
        if name == CHECKSUMS:
            cure = "put a copy of it back, or delete it and go on with the run, which writes it again"
        else:
            cure = f"put a copy of it back, or, to take it as it is, write null for it and for checksum in {CHECKSUMS}"
        return RunError(f"{self._root / name} {what}: {cure}")


def _whole(content: bytes) -> Whole:
    return len(content), xxhash.xxh3_128_hexdigest(content)


def _written(content: bytes | None, entry: Entry) -> bytes | None:
    """The part of a file that its entry speaks of; None if it is not that."""
    if content is None or entry is None:
        return content
    size, expected = entry
    written = content[:size]
    return written if len(written) == size and xxhash.xxh3_128_hexdigest(written) == expected else None


def hash_of(values: Any) -> str:
    """XXH3 of JSON-ready values, whatever the order of their keys."""
    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True, allow_nan=False).encode())
