"""Files that are written whole: a crash leaves the old one or the new one, and never one outside of their directory."""

import contextlib
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from lilo_jax.errors import UsageError

TEMPORARY = ".tmp-"
"""What the names of files that are still being written begin with."""


def check_local(path: pathlib.Path | str) -> None:
    """Raises `UsageError` at an address such as gs://bucket/run, which would become a directory called `gs:`."""
    if found := re.match(r"([a-z][a-z0-9+]+):/", str(path)):
        raise UsageError(
            f"{path} is in a store of {found[1]}://, and files are written to directories: mount it (with Cloud "
            f"Storage FUSE, or Mountpoint for S3), and give the path there"
        )


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A binary file to fill; it appears at `path`, or replaces what is there, when the block ends without an error.

    The temporary file is a new one beside `path`: a link that stands there is never followed.  What is no file, as
    /dev/null, is written to and not replaced.
    """
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
def whole_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory to fill; it is moved to `path`, which holds nothing, when the block ends without an error."""
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one; text as UTF-8."""
    with whole_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def append_line(path: pathlib.Path, line: str) -> None:
    """Adds a line to a file of text, which may not be a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "ab") as file:
        file.write(line.encode("utf-8") + b"\n")


def remove_unfinished(directory: pathlib.Path) -> None:
    """Deletes the temporary files that a killed process has left in a directory; nobody else may be writing there."""
    for left in directory.glob(f"{TEMPORARY}*"):
        left.unlink(missing_ok=True)
