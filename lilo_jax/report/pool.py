"""What became of the questions of a pool: which came to the frontier, left it, were forgotten, were never solved.

After each step a question is judged by its latest rollouts: as many of its last groups as have `LATEST` rollouts
together, or all if it has fewer.  It is

    never solved    if none of its rollouts ever was right
    frontier        if its latest ones are right and wrong
    solved          if all of them are right
    forgotten       if all of them are wrong, and an earlier one was right
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lilo_jax.report.page import folded, table_element
from lilo_jax.report.summary import Arms
from lilo_jax.report.tables import Table, number
from lilo_jax.storage.run_directory import RunDirectory

LATEST = 8
"""Rollouts by which a question is judged."""
STATES = ("never solved", "frontier", "solved", "forgotten")
UNSEEN, UNSOLVED, FRONTIER, SOLVED, FORGOTTEN = range(-1, len(STATES))
OUTCOMES = (
    "rolled out",
    "came to the frontier",
    "on it at the end",
    "solved",
    "forgotten",
    "never solved",
    "ever forgotten",
)
NAMED = 8
"""Questions of a kind that are named for each arm."""
LONGEST = 60
"""Characters shown of a question's id."""


class PoolHistory(NamedTuple):
    """What became of the questions that a run rolled out.

    Attributes:
        places: int [Q], their places in the pool, in the order in which they were first rolled out.
        states: int8 [Q, steps + 1], `UNSEEN` or an index of `STATES`, after so many steps.
        correct, graded: int [Q], all their rollouts with a verdict.
    """

    places: np.ndarray
    states: np.ndarray
    correct: np.ndarray
    graded: np.ndarray


def pool_history(run: RunDirectory) -> PoolHistory | None:
    """The history of a run's pool; None if its groups were not recorded."""
    steps = run.read("groups")
    if not any(any(step["graded"]) for step in steps):
        return None
    row_of: dict[int, int] = {}
    for step in steps:
        for place, graded in zip(step["question"], step["graded"], strict=True):
            if graded:
                row_of.setdefault(place, len(row_of))
    states = np.full((len(row_of), steps[-1]["step"] + 2), UNSEEN, np.int8)
    totals = np.zeros((2, len(row_of)), int)
    latest: dict[int, collections.deque[tuple[int, int]]] = collections.defaultdict(collections.deque)
    for step in steps:
        after = step["step"] + 1
        states[:, after] = states[:, after - 1]
        for place, *group in zip(step["question"], step["correct"], step["graded"], strict=True):
            if not group[1]:  # no verdict on any of its rollouts
                continue
            row, own = row_of[place], latest[place]
            own.append((group[0], group[1]))
            totals[:, row] += group
            while sum(graded for _, graded in own) - own[0][1] >= LATEST:
                own.popleft()
            states[row, after] = _state(*np.sum(own, axis=0), ever=totals[0, row])
    return PoolHistory(np.array(list(row_of)), states, *totals)


def _state(correct: int, graded: int, *, ever: int) -> int:
    """The state of a question with so many right ones of its latest rollouts, and of all."""
    if correct == graded:
        return SOLVED
    if correct:
        return FRONTIER
    return FORGOTTEN if ever else UNSOLVED


def pool_element(arms: Arms) -> str:
    """The tables of what became of questions; "" if no run recorded its groups."""
    histories = {arm: _histories(runs) for arm, runs in arms.items()}
    histories = {arm: own for arm, own in histories.items() if own}
    if not histories:
        return ""
    sizes = {arm: {seed: pool_size(arms[arm][seed]) for seed in own} for arm, own in histories.items()}
    firsts = {arm: next(iter(own.items())) for arm, own in histories.items()}
    named = [named_table(arm, arms[arm][seed], history) for arm, (seed, history) in firsts.items()]
    elements = folded("Questions never solved and forgotten, by name", "".join(map(table_element, named)))
    return table_element(pool_table(histories, sizes)) + elements


def pool_table(
    histories: Mapping[str, Mapping[int, PoolHistory]], sizes: Mapping[str, Mapping[int, int | None]]
) -> Table:
    """How many questions of the pool came to what, a row per arm, means over seeds."""
    rows = []
    for arm, own in histories.items():
        known = [size for size in sizes[arm].values() if size is not None]
        outcomes = [_outcomes(history) for history in own.values()]
        means = [float(np.mean([outcome[name] for outcome in outcomes])) for name in OUTCOMES]
        rows.append([arm, number(float(np.mean(known)) if known else None, ".0f"), *(f"{mean:.0f}" for mean in means)])
    notes = [
        f"training questions, means over seeds; a question is judged by its latest {LATEST} rollouts (whole groups; "
        f"all, if it has fewer): on the frontier if they are right and wrong, solved if all are right, forgotten if "
        f"all are wrong and an earlier one was right, never solved if none ever was right; at the end these four add "
        f"up to the questions rolled out"
    ]
    return Table("The frontier", ["arm", "pool", *OUTCOMES], rows, notes)


def _outcomes(history: PoolHistory) -> dict[str, int]:
    """Numbers of questions by `OUTCOMES`."""
    last = history.states[:, -1]
    ever = {state: int(np.sum((history.states == state).any(axis=1))) for state in (FRONTIER, FORGOTTEN)}
    at_end = [int(np.sum(last == state)) for state in (FRONTIER, SOLVED, FORGOTTEN, UNSOLVED)]
    return dict(zip(OUTCOMES, [len(last), ever[FRONTIER], *at_end, ever[FORGOTTEN]], strict=True))


def named_table(arm: str, run: RunDirectory, history: PoolHistory) -> Table:
    """The questions that a run never solved and those that it has forgotten, most rolled out first."""
    entries = _training_questions(run)
    rows = []
    for state in (UNSOLVED, FORGOTTEN):
        found = np.flatnonzero(history.states[:, -1] == state)
        for row in sorted(found, key=lambda row: -history.graded[row])[:NAMED]:
            place = int(history.places[row])
            entry = entries[place] if place < len(entries) else {}
            where = ", ".join(filter(None, (entry.get("id"), entry.get("where"))))
            shown = where if len(where) <= LONGEST else where[:LONGEST] + " ..."
            rows.append([STATES[state], f"{history.correct[row]}/{history.graded[row]}", str(place), shown])
    seed = run.config_values()["seed"]
    title = f"{arm}, seed {seed}: the {NAMED} most often rolled out of each"
    return Table(title, ["at the end", "right of all", "place in the pool", "id"], rows, text_columns=4)


def pool_size(run: RunDirectory) -> int | None:
    """Training questions of a run; None if it does not say."""
    return len(_training_questions(run)) or None


def _training_questions(run: RunDirectory) -> list[dict[str, Any]]:
    return [entry for entry in run.questions() if entry["split"] == "train"]


def _histories(runs: Mapping[int, RunDirectory]) -> dict[int, PoolHistory]:
    found = {seed: pool_history(run) for seed, run in runs.items()}
    return {seed: history for seed, history in found.items() if history is not None}
