"""What the machine can do: the best rate of a matrix product and of reading memory, as each library reaches it."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.worker import Gate
from benchmarks.workload import Job

LIBRARIES = ("numpy",)
SIDE = 2048
WORDS = 64 << 20
"""float32 numbers read: 256 MiB, more than a cache holds"""


def _cpu_seconds(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(3):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def _matmul_of(library: str, side: int) -> Callable[[], object]:
    a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
    if library == "numpy":
        out = np.empty_like(a)
        return lambda: np.dot(a, b, out=out)
    if library == "torch":
        import torch

        torch.set_num_threads(1)
        x, y = torch.tensor(a), torch.tensor(b)
        return lambda: x @ y
    import jax

    x, y = jax.numpy.asarray(a), jax.numpy.asarray(b)
    product = jax.jit(lambda x, y: x @ y)
    return lambda: product(x, y).block_until_ready()


def roofline(job: Job, gate: Gate) -> None:
    """GFLOP/s of a float32 product by the library that the variant names; numpy also measures memory, GB/s."""
    matmul = _matmul_of(job.variant, SIDE)

    def run() -> dict[str, float]:
        found = {"gflops": 2 * SIDE**3 / _cpu_seconds(matmul) / 1e9}
        if job.variant == "numpy":
            numbers = np.ones(WORDS, np.float32)
            copy = np.empty_like(numbers)
            read = min(_cpu_seconds(numbers.sum), _cpu_seconds(lambda: np.dot(numbers, numbers)))
            found["read_gb_s"] = numbers.nbytes / read / 1e9
            found["copy_gb_s"] = 2 * numbers.nbytes / _cpu_seconds(lambda: np.copyto(copy, numbers)) / 1e9
        return found

    gate.repeat(run)


WORKS = {"roofline": roofline}
