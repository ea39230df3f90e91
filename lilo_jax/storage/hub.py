"""From a path, here or in a bucket, or a Hugging Face hub id to a local directory; and from one to a repository."""

import hashlib
import pathlib
import re
from typing import Any, NamedTuple

from lilo_jax.errors import UsageError
from lilo_jax.storage.buckets import BucketPath
from lilo_jax.storage.compilation_cache import cache_directory
from lilo_jax.storage.files import whole_directory
from lilo_jax.storage.paths import AnyPath, path_of

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


POINTER = b"version https://git-lfs.github.com/spec/"
"""What git leaves in the place of a large file that it has not fetched."""


def refuse_pointer(path: AnyPath) -> None:
    """Raises `UsageError` if a file is there in name only."""
    if isinstance(path, BucketPath):  # where git leaves none
        return
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UsageError(f"{path} is a git-lfs pointer, not the file: run `git lfs pull` in {path.parent}")


class _Kind(NamedTuple):
    """A kind of repository.

    Attributes:
        name: "model" or "dataset".
        patterns: files that are fetched: nothing that is executed when it is read.
        ignored: of those, what is not.
    """

    name: str
    patterns: tuple[str, ...]
    ignored: tuple[str, ...] = ()


MODEL = _Kind(
    "model",
    ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"),
    ("consolidated*.safetensors", "original/*"),  # the same weights in another layout, which some add
)
DATASET = _Kind("dataset", ("*.jsonl", "*.json", "*.parquet", "*.csv", "*.arrow"))


def local_directory(path: str, revision: str = "", *, kind: _Kind = MODEL) -> pathlib.Path:
    """The directory at `path`, or the snapshot of the hub repository of that name, fetched if it is not cached.

    Args:
        path: a directory, one in a bucket, or a hub id such as "Qwen/Qwen2.5-1.5B".
        revision: branch, tag or commit of a hub id.
        kind: what to fetch of it.

    Raises:
        UsageError: neither can be had; at once where there is no network.
    """
    place = path_of(path)
    if isinstance(place, BucketPath):
        return local_copy(place, kind)
    try:
        directory = pathlib.Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"no {kind.name} directory at {path}: there is no such user") from None
    if path and directory.is_dir():
        return directory
    if directory.is_file():
        raise UsageError(f"{path} is a file: pass the directory that holds it")
    if path.startswith((".", "/", "~")) or not HUB_ID.fullmatch(path):
        raise UsageError(f"no {kind.name} directory at {path!r}")
    return _snapshot(path, revision or None, kind)


def local_copy(place: BucketPath, kind: _Kind = MODEL) -> pathlib.Path:
    """A directory of this machine with what is fetched of one in a bucket, or with the one file that is there.

    It is kept for as long as the bucket holds the same; a file that changes makes another copy.

    Raises:
        UsageError: there is nothing to fetch.
    """
    alone = place.is_file()
    files = [place] if alone else sorted(f for f in place.rglob("*") if _is_fetched(f, kind))
    if not files:
        raise UsageError(f"no {kind.name} in {place}: it holds no {', '.join(kind.patterns)}")
    root = place.parent if alone else place
    versions = "".join(f"{file} {file.version()}\n" for file in files)
    copy = cache_directory() / "buckets" / hashlib.sha256(versions.encode()).hexdigest()[:16]
    if not copy.is_dir():
        try:
            with whole_directory(copy) as directory:
                root.fetch_files(files, directory)
        except OSError:
            if not copy.is_dir():  # which another process has made in the meantime
                raise
    return copy


def _is_fetched(file: BucketPath, kind: _Kind) -> bool:
    return any(map(file.match, kind.patterns)) and not any(map(file.match, kind.ignored))


def _snapshot(repository: str, revision: str | None, kind: _Kind) -> pathlib.Path:
    import huggingface_hub

    def fetch(*, local_files_only: bool) -> pathlib.Path:
        found = huggingface_hub.snapshot_download(
            repository,
            repo_type=kind.name,
            revision=revision,
            allow_patterns=list(kind.patterns),
            ignore_patterns=list(kind.ignored),
            local_files_only=local_files_only,
        )
        return pathlib.Path(found)

    try:
        # One short question first: where nothing answers, the download itself would try again and again.
        huggingface_hub.HfApi().repo_info(repository, repo_type=kind.name, revision=revision, timeout=5)
        return fetch(local_files_only=False)
    except Exception as error:  # whatever an absent network raises, in one of several HTTP libraries
        try:
            return fetch(local_files_only=True)
        except Exception:
            raise UsageError(_trouble(repository, revision, kind, error)) from None


def _trouble(repository: str, revision: str | None, kind: _Kind, error: Exception) -> str:
    """What went wrong, with the cure."""
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return f"{repository} is neither a directory here nor spelt like a hub id"
    if isinstance(error, errors.GatedRepoError):
        return f"the hub gives {repository} only to those who accepted its terms: do so, and `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of {repository}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repository} is neither a directory here nor a {kind.name} on the hub (or it is private)"
    answer = getattr(getattr(error, "response", None), "status_code", None)
    return (
        f"{repository} is neither a directory here nor in the local cache, and the Hugging Face hub "
        f"{f'answers with status {answer}' if answer else 'cannot be reached'}: pass a directory, or run once where "
        f"there is a network (HF_HOME says where the cache is)"
    )


def check_name(name: str) -> None:
    """Raises `UsageError` if no repository can be called so."""
    import huggingface_hub

    try:
        huggingface_hub.utils.validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise UsageError(f"{name!r} cannot be the name of a repository: {error} (--to USER/NAME)") from None


def card_of(path: str, revision: str, *, online: bool) -> Any:
    """The `ModelCard` of a model in a directory or on the hub; None where there is none, or it cannot be had."""
    import huggingface_hub

    try:
        local = pathlib.Path(path).expanduser() / "README.md"
        if not local.is_file():
            local = pathlib.Path(
                huggingface_hub.hf_hub_download(
                    path, "README.md", revision=revision or None, local_files_only=not online, etag_timeout=5
                )
            )
        return huggingface_hub.ModelCard.load(local)
    except Exception:  # it is not there, or no card: a model need not have one
        return None


def own_repository(name: str, *, private: bool) -> str:
    """USER/NAME of a model repository, made if it is not there.

    Raises:
        UsageError: the hub refuses.
        ConnectionError: it does not answer.
    """
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().create_repo(name, private=private or None, exist_ok=True).repo_id
    except Exception as error:  # whatever an absent network raises, in one of several HTTP libraries
        raise _answer(name, error) from None


def upload(folder: pathlib.Path, repository: str) -> str:
    """Uploads a directory in one commit, and returns the repository's address.

    Raises:
        UsageError: the hub refuses.
        ConnectionError: it does not answer.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a run of lilo_jax")
    except Exception as error:
        raise _answer(repository, error) from None
    return f"{api.endpoint}/{repository}"


def _answer(repository: str, error: Exception) -> Exception:
    """`UsageError` if the hub has answered, with what it said; `ConnectionError` if it has not."""
    from huggingface_hub import errors

    status, text = getattr(getattr(error, "response", None), "status_code", None), " ".join(str(error).split())[:300]
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return UsageError(
            f"the hub does not let you write {repository}: `hf auth login` with a token that may, or --to"
        )
    if status is not None or isinstance(error, ValueError):
        return UsageError(f"the hub refuses {repository}: {text}")
    return ConnectionError(text)
