"""Compiled programs kept on disk, so that a second run starts in seconds."""

import os
import pathlib

import jax


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache, in `~/.cache/lilo_jax` (or below `XDG_CACHE_HOME`).

    JAX keys an entry by program, versions and hardware, so an entry is never used for anything else.  Whoever has set
    `JAX_COMPILATION_CACHE_DIR` keeps that directory; `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_directory() -> pathlib.Path:
    """Where what can be made again is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "lilo_jax"
