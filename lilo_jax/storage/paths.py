"""From the text of a path to a path: of this machine, or in a bucket.  Whoever is given a path begins here."""

import pathlib
import re

from lilo_jax.storage.buckets import BucketPath, check_scheme

AnyPath = pathlib.Path | BucketPath
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
"""One slash is enough: that is what pathlib makes of two."""


def path_of(text: AnyPath | str) -> AnyPath:
    """The path that a text means: in a bucket if it begins as gs://, s3:// or another scheme, else of this machine.

    Raises:
        UsageError: there is no such scheme, or its package is not installed.

    >>> path_of("runs/tiny"), path_of("memory://bucket/runs/tiny")
    (PosixPath('runs/tiny'), BucketPath('memory://bucket/runs/tiny'))
    """
    found = _ADDRESS.fullmatch(str(text))
    if found is None:
        return pathlib.Path(text) if isinstance(text, str) else text
    scheme, rest = found[1].lower(), found[2]
    if scheme in ("file", "local"):
        return pathlib.Path("/", rest)
    check_scheme(f"{scheme}://{rest}")
    return BucketPath(f"{scheme}://{rest}")
