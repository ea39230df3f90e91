"""Simulated selection: every rule on students of item-response theory, many seeds, in minutes.

    python -m experiments.simulate_selection
    python -m experiments.simulate_selection --rules "uniform,lilo(pool_ratio=8),mine.hardest:Hardest" --cells traps,sgd

Arms are the rules of the catalogue by their names, with settings in parentheses if wanted, your own as
`package.module:ClassName`, and references that only a simulator has (`REFERENCES`).  All go through the contract by
which real runs are trained, and all pay for every token that they generate.  `uniform` is always there: it is what
the others are compared with.  The model and the cells are in docs/simulator.md.

Prints a table per cell, and writes `summary.json`, `table.md` and `report.html` to the output directory.
"""

import ast
import concurrent.futures
import dataclasses
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.runner import chosen, executor
from lilo_jax.bounds import check
from lilo_jax.config import command_line, settings_class
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum, CurriculumSpec, Wants
from lilo_jax.curriculum.estimators import Estimator, decayed_counts, measured
from lilo_jax.curriculum.gates import everything
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import once
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.selectors import gumbel_top_k, top_k
from lilo_jax.curriculum.sources import random_pool
from lilo_jax.curriculum.values import expected_variance
from lilo_jax.device.selection import build_simulator
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.simulation import BASELINE, markdown_section, selection_table, summarize_cell, write_selection_page
from lilo_jax.report.summary import plain
from lilo_jax.simulation.run import Privileges, RunSettings, Trace
from lilo_jax.simulation.student import StudentSettings
from lilo_jax.simulation.world import WorldSettings
from lilo_jax.storage.compilation_cache import keep_compiled_programs
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import path_of
from lilo_jax.storage.redaction import redacted
from lilo_jax.types import Array, CurriculumState

QUESTIONS_AT_ONCE = 200_000
"""Questions of all seeds that run side by side: bounds memory."""


# ------------------------------------------------------------------------------------------------------- what is run
class Cell(NamedTuple):
    """A world and a student, and how much of a step of uniform generation is said to take."""

    world: WorldSettings = WorldSettings()
    student: StudentSettings = StudentSettings()
    generation_share: float = 0.5


CELLS = {
    "standard": Cell(),
    "small_pool": Cell(WorldSettings(pool_size=1500)),
    "single_epoch": Cell(WorldSettings(pool_size=40_000)),
    "verdict_noise": Cell(WorldSettings(verdict_noise=0.1)),
    "difficulty_gap": Cell(WorldSettings(gap=6.0, spread=1.0)),
    "no_traps": Cell(WorldSettings(coin_flips=0.0, unsolvable=0.0)),
    "traps": Cell(WorldSettings(coin_flips=0.25)),
    "length_spread": Cell(WorldSettings(length_rise=1.2)),
    "sgd": Cell(student=StudentSettings(optimizer="sgd", learning_rate=2.0, gradient_noise=1.0)),
    "generation_10": Cell(generation_share=0.1),
    "generation_80": Cell(generation_share=0.8),
}
"""By name; those that differ in the share of generation only are read off the same runs."""


@dataclasses.dataclass(frozen=True)
class MostLearnable:
    """E[p(1 - p)] by an estimator, over a random pool: the composition of which the references are made."""

    estimator: str = "counts"
    """counts: Beta posterior of own outcomes; features: regression on them; truth: what the simulator knows"""
    pool_ratio: int = 16
    """candidates per question trained on; none of them is rolled out to be chosen"""
    decay: float = 0.9
    """of counts, per step"""
    drawn: bool = False
    """in proportion to E[p(1 - p)]^sharpness, not the highest: with p known those would all be coin flips"""
    sharpness: float = 4.0

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Trains on all that it rolls out."""
        wants = Wants(hidden=64 * (self.estimator == "features"), truth=self.estimator == "truth")
        estimator: Estimator = {
            "counts": lambda: decayed_counts(decay=self.decay),
            "features": lambda: logistic_regression(width=wants.features, window=16 * questions),
            "truth": measured,
        }[self.estimator]()

        def worth(state: CurriculumState, places: Array, key: jax.Array) -> Array:
            return expected_variance(estimator.estimate(state.memory["belief"], state, places, key)) ** self.sharpness

        return compose(
            source=random_pool(pool_size, min(self.pool_ratio * questions, pool_size)),
            worth=worth,
            select=gumbel_top_k if self.drawn else top_k,
            rounds=once(questions, samples),
            gate=everything,
            count=questions,
            rows=questions * samples,
            remembers={"belief": estimator.tracker},
            wants=wants,
        )


class Arm(NamedTuple):
    """A rule, and what it is granted."""

    spec: CurriculumSpec
    privileges: Privileges = Privileges()


REFERENCES = {
    "posterior": Arm(MostLearnable("counts")),
    "regression": Arm(MostLearnable("features")),
    "regression_shuffled": Arm(MostLearnable("features"), Privileges(shuffled_features=True)),
    "lilo_free": Arm(Lilo(), Privileges(free_screening=True)),
    "oracle": Arm(MostLearnable("truth", drawn=True)),
    "oracle_clean": Arm(MostLearnable("truth", drawn=True), Privileges(knows_flaws=True)),
}
"""Controls and ceilings: screening that costs nothing, features of another question, p as it is, flaws known."""


@dataclasses.dataclass(frozen=True)
class SimulationOptions:
    """The command line."""

    rules: str = ""
    """arms, separated by commas; empty: every rule and every reference"""
    cells: str = "standard"
    """separated by commas"""
    seeds: int = 32
    """number of seeds"""
    first_seed: int = 1
    """the first of them; the others follow"""
    steps: int = 300
    """of every run; a multiple of 10"""
    questions: int = 64
    """trained on in a step"""
    samples: int = 8
    """rollouts a question"""
    output_dir: str = "runs/simulation"
    """where the report goes"""
    jobs: int = 2
    """processes"""
    debug: bool = False
    """show the traceback of an error"""


# ------------------------------------------------------------------------------------------------- from names to arms
def parse_arms(text: str) -> dict[str, Arm]:
    """Arms by the names that were given; uniform first, whether it was named or not."""
    names = re.split(r",(?![^()]*\))", text) if text else [*CURRICULA, *REFERENCES]  # commas in parentheses stay
    return {name.strip(): parse_arm(name.strip()) for name in dict.fromkeys([BASELINE, *names])}


def parse_arm(name: str) -> Arm:
    """An arm from `rule`, `rule(setting=value)` or `package.module:ClassName`."""
    found = re.fullmatch(r"([\w.:]+)(?:\((.*)\))?", name)
    if found is None:
        raise UsageError(f"cannot read the rule {name!r}: write rule or rule(setting=value)")
    rule, settings = found[1], _settings(name, found[2] or "")
    if ":" not in rule and rule not in REFERENCES and rule not in CURRICULA:
        raise unknown_name("rule", rule, [*CURRICULA, *REFERENCES])
    arm = REFERENCES.get(rule) or Arm(settings_class("curriculum", rule)())
    known = [field.name for field in dataclasses.fields(arm.spec)]  # type: ignore[arg-type]
    for setting, value in settings.items():
        if setting not in known:
            raise unknown_name(f"setting of {rule}", setting, known) if known else UsageError(f"{rule} has no settings")
        usual = getattr(arm.spec, setting)
        if usual is not None and type(value) is not type(usual) and (type(usual), type(value)) != (float, int):
            raise UsageError(
                f"cannot read the settings of {name!r}: {setting} takes a value like {usual!r}, not {value!r}"
            )
    return arm._replace(spec=dataclasses.replace(arm.spec, **settings))  # type: ignore[type-var]


def _settings(name: str, text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, TypeError, ValueError):
        raise UsageError(f"cannot read the settings of {name!r}: write them as in lilo(pool_ratio=8)") from None


# ---------------------------------------------------------------------------------------------------------- the runs
class Job(NamedTuple):
    """The runs of an arm in a cell, over all seeds."""

    name: str
    spec: CurriculumSpec
    settings: RunSettings
    options: SimulationOptions

    def build(self) -> Curriculum:
        """The rule, checked against the pool."""
        try:
            check(self.spec, lambda path: f"{self.name}: {'.'.join(path)}")
            return self.spec.build(
                pool_size=self.settings.world.pool_size, questions=self.options.questions, samples=self.options.samples
            )
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from None

    def run(self) -> Trace:
        """On the host, leaves [S, ...]."""
        keep_compiled_programs()
        at_once = min(self.options.seeds, max(QUESTIONS_AT_ONCE // self.settings.world.pool_size, 1))
        seeds = np.arange(self.options.first_seed, self.options.first_seed + self.options.seeds, dtype=np.int32)
        program = build_simulator(self.build(), self.settings, at_once=at_once)
        return jax.tree.map(np.asarray, program(seeds))


def run_all(jobs: Sequence[Job], workers: int) -> list[Trace]:
    """Runs jobs, several at a time, and says how far it is."""
    start = time.perf_counter()

    def said(done: int, job: Job) -> None:
        print(f"[{time.perf_counter() - start:5.0f} s] {done}/{len(jobs)} {job.name}", file=sys.stderr, flush=True)

    with executor(min(workers, len(jobs))) as processes:
        if processes is None:
            traces = []
            for done, job in enumerate(jobs, 1):
                traces.append(job.run())
                said(done, job)
            return traces
        running: dict[Future[Trace], Job] = {processes.schedule(job.run): job for job in jobs}
        for done, future in enumerate(concurrent.futures.as_completed(running), 1):
            future.result()  # the first error ends all
            said(done, running[future])
        return [future.result() for future in running]


def simulate_cells(options: SimulationOptions) -> dict[str, Any]:
    """Cell to its settings and the summary of its arms."""
    arms = parse_arms(options.rules)
    cells = {name: CELLS[name] for name in _checked(options)}
    jobs: dict[tuple[Any, ...], Job] = {}
    for cell_name, cell in cells.items():
        for name, arm in arms.items():
            settings = RunSettings(cell.world, cell.student, arm.privileges, options.steps)
            job = Job(f"{cell_name} {name}", arm.spec, settings, options)
            job.build()
            jobs.setdefault((cell.world, cell.student, name), job)
    traces = dict(zip(jobs, run_all(list(jobs.values()), options.jobs), strict=True))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return {
        name: {
            "settings": {
                "world": dataclasses.asdict(cell.world),
                "student": dataclasses.asdict(cell.student),
                "generation_share": cell.generation_share,
            },
            "arms": summarize_cell(
                {arm: traces[cell.world, cell.student, arm] for arm in arms},
                seeds,
                every=RunSettings().every,
                generation_share=cell.generation_share,
            ),
        }
        for name, cell in cells.items()
    }


def _checked(options: SimulationOptions) -> list[str]:
    """The names of the cells, after every number was looked at."""
    if min(options.seeds, options.questions, options.jobs) < 1 or options.samples < 2 or options.first_seed < 0:
        raise UsageError(
            "--seeds, --questions and --jobs must be at least 1, --samples at least 2 and --first-seed not negative"
        )
    if options.steps < 1 or options.steps % RunSettings().every:
        raise UsageError(
            f"--steps {options.steps} is not a multiple of {RunSettings().every}: evaluations are as far apart"
        )
    return chosen("cell", options.cells, CELLS)


def report(cells: Mapping[str, Any], options: SimulationOptions, command: str) -> None:
    """Prints the tables and writes the report."""
    root = path_of(options.output_dir)
    root.mkdir(parents=True, exist_ok=True)
    how = f"{options.steps} steps of {options.questions} questions x {options.samples} rollouts, {options.seeds} seeds"
    tables = [selection_table(cell["arms"], f"Cell {name}: {how}") for name, cell in cells.items()]
    summary = {"command": command, "options": dataclasses.asdict(options), "cells": cells}
    write_whole(root / "summary.json", to_json(summary, indent=1) + "\n")
    write_whole(root / "table.md", "\n".join(map(markdown_section, tables)))
    write_selection_page(root / "report.html", cells, tables, command)
    print("\n\n".join(map(plain, tables)))
    print(f"\nreport: {root / 'report.html'}\nnumbers: {root / 'summary.json'}\nMarkdown: {root / 'table.md'}")


def main() -> None:
    """Runs the simulation and writes its report."""
    options = command_line(
        SimulationOptions(),
        sys.argv[1:],
        prog="python -m experiments.simulate_selection",
        description=__doc__ or "",
    )
    command = shlex.join(["python", "-m", "experiments.simulate_selection", *redacted(sys.argv[1:])])
    report(simulate_cells(options), options, command)


if __name__ == "__main__":
    exit_with_message(main)
