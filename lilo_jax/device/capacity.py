"""What the machine can hold and do: bytes of memory, and floating-point operations a second."""

import contextlib
import os
import pathlib
import time

import jax
import jax.numpy as jnp

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may take."""
SIDE = 1024
"""Rows and columns of the matrices that are multiplied to see how fast the devices are."""


def memory() -> int:
    """Bytes that all devices have together; of CPUs the machine's, or the container's; 0 if nothing says."""
    reported = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    if jax.default_backend() != "cpu":
        return sum(reported) * jax.process_count()
    texts = [path.read_text().strip() for path in map(pathlib.Path, LIMITS) if path.is_file()]
    sizes = [int(text) for text in texts if text.isdigit()]
    with contextlib.suppress(ValueError, OSError):  # a system that does not tell
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=0)


def operations_per_second(dtype: str) -> float:
    """Of the product of two square matrices, on all devices together; measured, the best of three."""
    matrix = jnp.ones((SIDE, SIDE), dtype)
    product = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(4):  # the first compiles
        begun = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(seconds[1:]) * (1 if jax.default_backend() == "cpu" else jax.device_count())
