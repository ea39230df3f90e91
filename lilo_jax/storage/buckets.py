"""Paths in buckets, through fsspec: `gs://`, `s3://` and whatever else it knows, with the words that pathlib has.

A bucket keeps whole objects: one is replaced at once or not at all, but nothing can be added to it.  A file that grows
is therefore kept in parts, each an object named by the byte that it begins with, as `metrics.jsonl/0000000000000000`.
The last part is replaced by a longer one until it is `PART` bytes long; then the next begins.  A reader joins them.

fsspec and not etils.epath, which orbax has: epath knows four schemes, keeps listings that other processes make stale,
and makes no object only where there is none, as a lock must.
"""

import contextlib
import errno
import fnmatch
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
from fsspec.registry import known_implementations

from lilo_jax.errors import UsageError

PART = 1 << 16
"""Bytes from which on a part of a file that grows is left as it is."""
_NAME_OF_PART = re.compile(r"\d{16}")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
"""Schemes whose package is an extra of ours."""


_NUMBERS = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    PermissionError: errno.EACCES,
}
"""What the numbers of errors are that callers tell apart; all others are of input and output."""


class BucketPath(pathlib.PurePosixPath):
    """The path of an object, or of all objects that lie under it.

    Every method asks the bucket, and raises `OSError` for whatever goes wrong there.  A directory is no more than the
    beginning of names: it need not be made, and it is gone with its last object.
    """

    def __str__(self) -> str:
        scheme, colon, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}" if colon else scheme

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is in a bucket, and no file of this machine")

    def absolute(self) -> "BucketPath":
        """Itself."""
        return self

    # ------------------------------------------------------------------------------------------------------ looking
    def exists(self) -> bool:
        """Whether there is an object of that name, or one under it."""
        return self._type() is not None

    def is_file(self) -> bool:
        """Whether there is an object of that name."""
        return self._type() in ("file", "parts")

    def is_dir(self) -> bool:
        """Whether there is an object under it."""
        return self._type() == "directory"

    def is_symlink(self) -> bool:
        """Never: buckets have no links."""
        return False

    def iterdir(self) -> Iterator["BucketPath"]:
        """What lies directly under it, sorted."""
        yield from sorted(path for path, _ in self._entries())

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """What lies directly under it and has a name like `pattern`, sorted; nothing if there is nothing."""
        with contextlib.suppress(FileNotFoundError):
            yield from (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        """All files under it that have a name like `pattern`."""
        yield from (path for path, _ in self._files() if fnmatch.fnmatchcase(path.name, pattern))

    def version(self) -> str:
        """What changes whenever the object does, or one of its parts."""
        objects = [self._part(begin) for begin in self._begins()] or [self]
        with _reached(self):
            return " ".join(str(_store(self).ukey(str(one))) for one in objects)

    # ------------------------------------------------------------------------------------------------------ reading
    def read_bytes(self) -> bytes:
        """What the object holds, or what its parts hold together."""
        with _reached(self):
            try:
                return _store(self).cat_file(str(self))
            except (FileNotFoundError, IsADirectoryError):  # it may be in parts
                pass
        parts = self._begins()
        if not parts:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        with _reached(self):
            found = _store(self).cat([str(self._part(begin)) for begin in parts])
        content = b""
        for begin, part in zip(parts, sorted(found), strict=True):
            if begin == len(content):  # others are left from before the file was cut
                content += found[part]
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The same as text."""
        return self.read_bytes().decode(encoding)

    def fetch(self, folder: pathlib.Path) -> None:
        """Copies all files under it into a directory of this machine."""
        self.fetch_files([path for path, _ in self._files()], folder)

    def fetch_files(self, files: Sequence["BucketPath"], folder: pathlib.Path) -> None:
        """Copies some of the files under it into a directory of this machine."""
        sources, targets = [], []
        for file in files:
            if ".." in file.parts:
                raise OSError(errno.EINVAL, "an object's name may not hold ..", str(file))
            target = folder / file.relative_to(self).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            if file._type() == "parts":
                target.write_bytes(file.read_bytes())
            else:
                sources.append(str(file))
                targets.append(str(target))
        with _reached(self):
            if sources:
                _store(self).get(sources, targets)

    # ------------------------------------------------------------------------------------------------------ writing
    def write_bytes(self, content: bytes) -> None:
        """Makes the object, or replaces it."""
        with _reached(self):
            _store(self).pipe_file(str(self), content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """The same of text."""
        self.write_bytes(text.encode(encoding))

    def create(self, content: bytes) -> None:
        """Makes the object; raises `FileExistsError` if there is one, whoever has made it at the same time."""
        with _reached(self):
            _store(self).pipe_file(str(self), content, mode="create")

    def write_at(self, size: int, content: bytes) -> None:
        """Puts content behind the first `size` bytes of a file that grows, in place of what stood there."""
        parts = self._begins()
        last = max((begin for begin in parts if begin <= size), default=0)
        for begin in parts:
            if begin > last:
                self._part(begin).unlink(missing_ok=True)
        there = self._part(last).read_bytes() if size > last else b""
        before = there[: size - last]
        if before == there and len(before) >= PART:
            last, before = size, b""
        if before + content:
            self._part(last).write_bytes(before + content)
        elif last in parts:
            self._part(last).unlink(missing_ok=True)

    def append(self, content: bytes) -> None:
        """Puts content at the end of a file that grows; nobody else may be doing so."""
        parts = self._begins()
        with _reached(self):
            size = parts[-1] + int(_store(self).info(str(self._part(parts[-1])))["size"]) if parts else 0
        self.write_at(size, content)

    def put(self, folder: pathlib.Path, *, but: str = "") -> None:
        """Copies all files under a directory of this machine to beneath it, `but` one of them."""
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / but)
        targets = [str(self / file.relative_to(folder)) for file in files]
        with _reached(self):
            if files:
                _store(self).put([str(file) for file in files], targets)

    def put_file(self, file: pathlib.Path) -> None:
        """Copies a file of this machine to it."""
        with _reached(self):
            _store(self).put_file(str(file), str(self))

    def copy_to(self, target: "BucketPath") -> None:
        """Copies all objects under it to beneath another path of the store."""
        files = sorted(self.rglob("*"))
        with _reached(self):
            if files:
                _store(self).copy(
                    [str(file) for file in files], [str(target / file.relative_to(self)) for file in files]
                )

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object, or all that lies under it."""
        kind = self._type()
        if kind is None and not missing_ok:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        with _reached(self):
            try:
                if kind is not None:
                    _store(self).rm(str(self), recursive=kind != "file")
            except FileNotFoundError:  # another process was faster
                pass

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: names need no directory."""

    # ------------------------------------------------------------------------------------------------------- inside
    def _type(self) -> str | None:
        """What lies there: a "file", one in "parts", a "directory" or nothing."""
        with _reached(self):
            try:
                kind = str(_store(self).info(str(self))["type"])
            except FileNotFoundError:
                return None
        return "parts" if kind == "directory" and self._part(0)._type() else kind

    def _entries(self) -> Iterator[tuple["BucketPath", bool]]:
        """What lies directly under it, and whether something lies under that."""
        with _reached(self):
            found: list[dict[str, Any]] = _store(self).ls(str(self), detail=True)
        own = "/".join(self.parts[1:])
        for entry in found:
            name = str(entry["name"]).strip("/")
            if name != own:  # some stores have an object of a directory's own name in it
                yield self / name.rpartition("/")[2], entry["type"] == "directory"

    def _files(self) -> Iterator[tuple["BucketPath", bool]]:
        """All files under it, and whether each is in parts."""
        try:
            entries = list(self._entries())
        except FileNotFoundError:
            return
        for path, is_directory in entries:
            if not is_directory:
                yield path, False
            elif path._type() == "parts":
                yield path, True
            else:
                yield from path._files()

    def _begins(self) -> Sequence[int]:
        """Where the parts of a file that grows begin, in order."""
        return [int(path.name) for path in self.glob("*") if _NAME_OF_PART.fullmatch(path.name)]

    def _part(self, begin: int) -> "BucketPath":
        return self / f"{begin:016d}"


def check_scheme(address: str) -> None:
    """Raises `UsageError` if there is no such scheme, or if its package is missing."""
    scheme, _, rest = address.partition("://")
    if not rest.strip("/"):
        raise UsageError(f"{address} names no bucket: it has the form {scheme}://BUCKET/PATH")
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise UsageError(
            f"{address}: {scheme}:// is no scheme that fsspec knows; buckets have addresses such as gs://BUCKET/PATH "
            f"and s3://BUCKET/PATH"
        ) from None
    except ImportError:
        extra = _EXTRAS.get(scheme)
        cure = f'pip install "lilo-jax[{extra}]"' if extra else known_implementations[scheme].get("err", "install it")
        raise UsageError(f"{address} needs a package that is not installed: {cure}") from None


def _store(path: BucketPath) -> Any:
    """The file system of a path; without listings that are kept, which other processes make stale."""
    return fsspec.filesystem(path.parts[0].removesuffix(":"), use_listings_cache=False)


@contextlib.contextmanager
def _reached(path: BucketPath) -> Iterator[None]:
    """Raises as `OSError` whatever the libraries of a store raise when it cannot be reached."""
    try:
        yield
    except Exception as error:
        number = next((number for kind, number in _NUMBERS.items() if isinstance(error, kind)), errno.EIO)
        raise OSError(number, _first_line(error), str(path)) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
