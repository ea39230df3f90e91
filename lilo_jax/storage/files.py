"""Files that are written whole: a crash leaves the old one or the new one, and never one outside of their directory.

What is done otherwise in a bucket than on a disk stands here and in `locks.py`.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.paths import AnyPath

TEMPORARY = ".tmp-"
"""What the names of files that are still being written begin with."""


@contextlib.contextmanager
def whole_file(path: AnyPath) -> Iterator[BinaryIO]:
    """A binary file to fill; it appears at `path`, or replaces what is there, when the block ends without an error.

    The temporary file is a new one beside `path`: a link that stands there is never followed.  What is no file, as
    /dev/null, is written to and not replaced.  For a bucket it is filled here, and put there whole.
    """
    if isinstance(path, BucketPath):
        with tempfile.NamedTemporaryFile() as filled:
            yield cast(BinaryIO, filled)
            filled.flush()
            path.put_file(pathlib.Path(filled.name))
        return
    if path.exists() and not (path.is_file() or path.is_dir()):
        with open(path, "wb") as device:
            yield device
        return
    temporary = path.with_name(TEMPORARY + secrets.token_hex(6))
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_directory(path: AnyPath) -> Iterator[pathlib.Path]:
    """A new directory to fill; it is moved to `path`, which holds nothing, when the block ends without an error."""
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory() as filled:
            yield pathlib.Path(filled)
            path.put(pathlib.Path(filled))
        return
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path: AnyPath, content: str | bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one; text as UTF-8."""
    with whole_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def append_line(path: AnyPath, line: str) -> None:
    """Adds a line to a file of text, which may not be a link."""
    if isinstance(path, BucketPath):
        path.append(line.encode("utf-8") + b"\n")
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "ab") as file:
        file.write(line.encode("utf-8") + b"\n")


def write_at(path: AnyPath, size: int, content: bytes) -> None:
    """Puts content behind the first `size` bytes of a file, which may not be a link, in place of what stood there."""
    if isinstance(path, BucketPath):
        path.write_at(size, content)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(content)


def remove_unfinished(directory: AnyPath) -> None:
    """Deletes the temporary files that a killed process has left in a directory; nobody else may be writing there."""
    if isinstance(directory, BucketPath):  # which never has any
        return
    for left in directory.glob(f"{TEMPORARY}*"):
        left.unlink(missing_ok=True)
