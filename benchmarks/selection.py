"""What choosing questions costs: milliseconds a step to propose, and to admit and remember, by the size of the pool.

    python -m benchmarks.selection --core 0
    python -m benchmarks.selection --core 0 --pools 1000,10000 --rounds 5 --steps 0

Outcomes are made up, and only what the curriculum computes is timed: `propose`, and `admit` with `observe` in one
program whose state is given away, as a run has it (`lilo_jax/device/programs.py`).  With 64 questions a step,
`frontier` chooses among 4096.  The last table has the quickstart's pool of 2000 with 8 questions of 8 rollouts,
as a share of the median step of a short quickstart run with PPO and `uniform`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import quickstart
from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.contract import Curriculum, CurriculumSpec
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.tables import markdown
from lilo_jax.training.run import run
from lilo_jax.types import Admission, Array, CurriculumState, Facts, GroupStatistics, Proposal

NAMES = ("frontier", "uniform", "lilo", "mopps", "plr")
POOLS = (1_000, 10_000, 100_000, 1_000_000)
QUESTIONS, SAMPLES = 64, 8
QUICKSTART: dict[str, Any] = {"pool_size": 2000, "questions": 8, "samples": 8}
WARM = 2
"""Steps before those that count: they compile."""


class Cost(NamedTuple):
    """Median milliseconds of a step.

    Attributes:
        propose, admit: of the two programs.
        copied: whether the features of the questions changed their place in memory.
    """

    propose: float
    admit: float
    copied: bool


def selection_cost(
    spec: CurriculumSpec,
    *,
    pool_size: int,
    questions: int,
    samples: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """What a curriculum takes, in milliseconds of the clock, which counts seconds."""
    curriculum = spec.build(pool_size=pool_size, questions=questions, samples=samples)
    rng = np.random.default_rng(0)
    state = jax.jit(curriculum.init)(_facts(curriculum, pool_size, rng))
    propose, admit = jax.jit(curriculum.propose), jax.jit(_admit(curriculum), donate_argnums=0)
    slots = jax.eval_shape(curriculum.propose, state, _nothing(1), jax.random.key(0)).places.shape[0]
    taken: dict[str, list[float]] = {"propose": [], "admit": []}  # milliseconds
    copied = False
    for step in range(WARM + rounds):
        key = jax.random.key(step)
        start = clock()
        proposal = jax.block_until_ready(propose(state, _nothing(slots), key))
        proposed = clock()
        collected = _served(jax.device_get(proposal), rng)
        place = _place(state)
        before = clock()
        _, state = jax.block_until_ready(admit(state, collected, key, np.int32(step)))
        after = clock()
        if step >= WARM:
            taken["propose"].append(1e3 * (proposed - start))
            taken["admit"].append(1e3 * (after - before))
            copied |= _place(state) != place
    return Cost(statistics.median(taken["propose"]), statistics.median(taken["admit"]), copied)


def _admit(curriculum: Curriculum) -> Any:
    def admit(
        state: CurriculumState, collected: GroupStatistics, key: jax.Array, step: Array
    ) -> tuple[Admission, CurriculumState]:
        return curriculum.admit(state, collected, key), curriculum.observe(state, collected, step)

    return admit


def _facts(curriculum: Curriculum, pool_size: int, rng: np.random.Generator) -> Facts:
    """Random features of the width that is wanted; no grades, categories or levels."""
    width = curriculum.wants.features
    none = jnp.zeros(pool_size, jnp.int32)
    features = jnp.asarray(rng.standard_normal((pool_size, width), np.float32) / np.sqrt(width)) if width else None
    return Facts(features=features, grade=jnp.full(pool_size, jnp.nan, jnp.float32), category=none, level=none)


def _nothing(slots: int) -> GroupStatistics:
    empty, zeros = np.full(slots, -1, np.int32), np.zeros(slots, np.float32)
    return GroupStatistics(empty, empty, *[zeros] * 5)


def _served(proposal: Proposal, rng: np.random.Generator) -> GroupStatistics:
    """Groups of one round, each rollout right by chance."""
    samples = np.where(proposal.mask, proposal.samples, 0).astype(np.float32)
    right = rng.binomial(samples.astype(int), rng.random(len(samples))).astype(np.float32)
    question = np.where(proposal.mask, proposal.places, -1).astype(np.int32)
    first = np.where(proposal.mask, 0, -1).astype(np.int32)
    return GroupStatistics(
        place=question, round=first, attempts=samples, successes=right, reward_sum=right,
        length_sum=5 * samples, rollouts=samples,
    )  # fmt: skip


def _place(state: CurriculumState) -> int | None:
    features = state.facts.features
    return features.unsafe_buffer_pointer() if isinstance(features, jax.Array) else None


def quickstart_step(steps: int) -> float:
    """Median milliseconds of a step of the quickstart's PPO with `uniform`, compilation apart; after half of them."""
    config = configuration.replace(quickstart.config("ppo"), num_steps=steps, evaluation__every=steps)
    with tempfile.TemporaryDirectory() as folder:
        records = run(config, Launch(output_dir=folder), name="quickstart").directory.read("timings")
    phases = [{k: v for k, v in record.items() if k not in ("step", "compile")} for record in records]
    return 1e3 * statistics.median(sum(p.values()) for p in phases[len(phases) // 2 :])


def milliseconds(cost: Cost) -> str:
    """A cell: both programs together, and each."""
    copied = ", features copied" if cost.copied else ""
    return f"{cost.propose + cost.admit:.2f} ({cost.propose:.2f} + {cost.admit:.2f}{copied})"


def main(arguments: list[str] | None = None) -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, help="pin to this core, and compute with one thread")
    parser.add_argument("--pools", default=",".join(map(str, POOLS)), help="sizes of pools")
    parser.add_argument("--curricula", default=",".join(NAMES))
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="trained on a step, of 8 rollouts each")
    parser.add_argument("--rounds", type=int, default=15, help="steps that are timed")
    parser.add_argument("--steps", type=int, default=40, help="of the quickstart run; 0: none, and no second table")
    options = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
        os.environ["NPROC"] = "1"  # read when the first array is made
    pools = [int(size) for size in options.pools.split(",")]
    specs = {name: CURRICULA[name]() for name in options.curricula.split(",")}
    sizes: dict[str, Any] = {"questions": options.questions, "samples": SAMPLES, "rounds": options.rounds}
    print(f"ms a step, propose + admit, {options.questions} questions; medians of {options.rounds} steps\n")
    rows = [
        [name, *(milliseconds(selection_cost(spec, pool_size=size, **sizes)) for size in pools)]
        for name, spec in specs.items()
    ]
    print(markdown(["curriculum", *(f"{size:,} questions" for size in pools)], rows))
    if options.steps:
        whole = quickstart_step(options.steps)
        costs = {name: selection_cost(spec, **QUICKSTART, rounds=options.rounds) for name, spec in specs.items()}
        rows = [[n, milliseconds(c), f"{100 * (c.propose + c.admit) / whole:.2f}%"] for n, c in costs.items()]
        print(f"\nThe quickstart's pool; a step of PPO with uniform takes {whole:.1f} ms\n")
        print(markdown(["curriculum", "ms a step", "of a step"], rows))


if __name__ == "__main__":
    exit_with_message(main)
