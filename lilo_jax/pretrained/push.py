"""From a run to a repository of the Hugging Face hub: the exported policy with its card."""

import pathlib
import shutil

from lilo_jax.errors import RunError, UsageError
from lilo_jax.pretrained.card import model_card
from lilo_jax.pretrained.export import export
from lilo_jax.storage import hub
from lilo_jax.storage.files import whole_directory
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory

CARD = "README.md"


def push(run: str, to: str = "", *, offline: AnyPath | None, dtype: str = "float32", private: bool = False) -> str:
    """Uploads a run's policy, critic and card, and returns the address; offline writes them and returns the directory.

    Args:
        run: run directory.
        to: USER/NAME; "" is one's own repository of the run's name.
        offline: directory to write instead of an upload; must not exist, or be empty.
        dtype: of the written weights.
        private: whether a repository that is made is private.

    Raises:
        UsageError: there is no run, a name cannot be one of the hub, or the hub refuses.
        RunError: the hub cannot be reached; what would have been uploaded is kept beside the run.
    """
    directory = RunDirectory(run)
    directory.must_exist()
    name = to or directory.path.name
    hub.check_name(name)
    if offline is not None:
        _write(directory, name, offline, dtype, online=False)
        return str(offline)
    run_here = directory.path if isinstance(directory.path, pathlib.Path) else pathlib.Path(directory.path.name)
    kept = run_here.with_name(f"{run_here.name}-hub")
    if kept.exists():
        raise UsageError(f"{kept} is in the way: `hf upload {name} {kept}` if it was not uploaded, then delete it")
    try:
        name = hub.own_repository(name, private=private)
        _write(directory, name, kept, dtype, online=True)
        address = hub.upload(kept, name)
    except ConnectionError as error:
        if not kept.exists():
            _write(directory, name, kept, dtype, online=False)
        raise RunError(
            f"the Hugging Face hub cannot be reached ({error}): {kept} holds what would be there, and "
            f"`hf upload {name} {kept}` uploads it"
        ) from None
    except UsageError:
        shutil.rmtree(kept, ignore_errors=True)
        raise
    shutil.rmtree(kept)
    return address


def _write(directory: RunDirectory, name: str, output: AnyPath, dtype: str, *, online: bool) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not empty: pass another --offline")
    card = model_card(directory, name, online=online)
    with whole_directory(output) as folder:
        export(str(directory.path), folder, dtype=dtype)
        (folder / CARD).write_text(str(card), encoding="utf-8")
