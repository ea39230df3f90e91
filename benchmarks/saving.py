"""What checksums cost of a save, and whether a long run's memory grows.

    python -m benchmarks.saving --megabytes 200 --steps 400

The first part saves a state of so many megabytes a few times, and times its checksums apart; the second trains a small
model for so many steps in a process of its own and watches its resident memory.  Exit 1 if checksums take 15% of a
save or more, or memory grows by 2% or more after step 50.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.array_checksums import checksums
from lilo_jax.storage.checkpoints import Checkpoints

MOST_COST, MOST_GROWTH = 0.15, 0.02
ROUNDS = 5
SETTLED = 50
"""Steps after which memory should stay as it is: by then everything has been compiled, evaluated and saved."""
WINDOW = 100
"""Steps over which it is measured: it goes up and down by some 30 MB with what the allocator keeps."""
RUN = "--sft.steps 20 --rollout.questions 4 --rollout.samples 4 --storage.save-every 20"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    cost, growth = _cost(options.megabytes), _growth(options.steps)
    if cost >= MOST_COST or growth >= MOST_GROWTH:
        sys.exit(1)


def _cost(megabytes: int) -> float:
    """The share of checksums in the time of a save that is waited for."""
    state = {f"weights/{i}": jax.random.normal(jax.random.key(i), (250_000,)) for i in range(megabytes)}
    jax.block_until_ready(state)
    shares, saves = [], []
    with tempfile.TemporaryDirectory() as root, Checkpoints(pathlib.Path(root), keep=1) as checkpoints:
        for step in range(ROUNDS):
            started = time.perf_counter()
            checksums(state)
            hashed = time.perf_counter() - started
            checkpoints.save(step, state, {})
            checkpoints.wait()
            saves.append(time.perf_counter() - started - hashed)
            shares.append(hashed / saves[-1])
    cost = statistics.median(shares)
    print(
        f"checksums of {megabytes} MB: {cost:.2%} of a save of {statistics.median(saves):.2f} s (median of {ROUNDS}, "
        f"{min(shares):.2%} to {max(shares):.2%})"
    )
    return cost


def _growth(steps: int) -> float:
    """By how much the resident memory of a run grows from step `SETTLED` to its end."""
    import psutil

    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "experiments.train", *RUN.split(), "--num-steps", str(steps)]
        process = subprocess.Popen([*command, "--output-dir", f"{root}/run"], stderr=subprocess.DEVNULL)
        watched, metrics = psutil.Process(process.pid), pathlib.Path(root) / "run" / "metrics.jsonl"
        seen: list[tuple[int, int]] = []
        while process.poll() is None:
            done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            try:
                seen.append((done, watched.memory_info().rss))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)

    def sizes(first: int) -> np.ndarray:
        return np.array([size for done, size in seen if first <= done < first + WINDOW and size]) / 1e6

    before, after = sizes(SETTLED), sizes(steps - WINDOW)
    growth = float(np.median(after) / np.median(before) - 1)
    for first, found in ((SETTLED, before), (steps - WINDOW, after)):
        print(
            f"resident memory of a run, steps {first} to {first + WINDOW}: {np.median(found):.0f} MB "
            f"({found.min():.0f} to {found.max():.0f})"
        )
    print(f"growth: {growth:+.2%}")
    return growth


if __name__ == "__main__":
    exit_with_message(main)
