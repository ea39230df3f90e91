"""The tables of a report as cells of text, shared by the terminal and the HTML file."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.report.collapse import RULES
from lilo_jax.report.speedup import ENOUGH, WINDOW
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.ledger import training_total

HEADING_WIDTH = 22
"""Longest baseline name shown in a heading."""
NONE = "-"
MAIN_BUDGETS = ("steps", "generated_tokens", "seconds")
"""Those that every table of speed-ups has room for."""
SPREAD = f"[95% t-interval over seeds], or (least..most of fewer than {ENOUGH} seeds)"
"""What stands behind a mean."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        title: one line.
        columns: headings.
        rows: cells, as many per row as there are columns.
        notes: what stands under it.
        text_columns: how many columns from the left hold text rather than numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    text_columns: int = 1


def build_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Accuracy by arm, speed-ups (if there is a baseline to compare with), every seed, groups and tokens."""
    tables = [accuracy_table(summary)]
    if summary["speedup"]:
        tables.append(speedup_table(summary))
    return [*tables, seed_table(summary), cost_table(summary)]


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """Start and final accuracy of every arm, with the gap to the baseline on the same seeds."""
    rows = []
    for arm, final in summary["final"].items():
        gap = summary["gap_to_baseline"].get(arm)
        shown = f"{gap['mean']:+.4f}{interval(gap, '+.4f')}" if gap and gap["mean"] is not None else NONE
        rows.append(
            [
                arm,
                str(len(final["by_seed"])),
                number(summary["start"][arm]["mean"], ".4f"),
                number(final["mean"], ".4f"),
                interval(final, ".4f").strip() or NONE,
                shown,
            ]
        )
    notes = [f"start: first evaluation; final: mean of the last {WINDOW}; means over seeds {SPREAD}"]
    for arm, seeds in summary["unfinished"].items():
        if seeds:
            notes.append(f"{arm}: not finished, counted as far as it got: seed {', '.join(map(str, seeds))}")
    for arm, seeds in summary["collapses"].items():
        notes += [f"! {arm}, seed {seed}: collapsed: {listed(clauses)}" for seed, clauses in seeds.items()]
    if any(summary["collapses"].values()):
        notes.append(RULES)
    columns = ["arm", "seeds", "start", "final", "over seeds"]
    if summary["gap_to_baseline"]:
        named = len(summary["baseline"]) <= HEADING_WIDTH
        columns.append(f"less {summary['baseline'] if named else 'baseline'}, paired")
    else:
        rows = [row[:-1] for row in rows]
    questions = f" ({', '.join(map(str, summary['questions']))} questions)" if summary["questions"] else ""
    return Table(f"Accuracy on {summary['split']}{questions}", columns, rows, notes)


def budget_share_table(summary: Mapping[str, Any]) -> Table:
    """Accuracy of every arm at shares of what the baseline spent, and the mean on the way there."""
    reference = summary["baseline"] or next(iter(summary["arms"]))
    rows: list[list[str]] = []
    for budget, arms in summary["at_budget"].items():
        for arm, found in arms.items():
            cells = [number(at["mean"], ".3f") + interval(at, ".3f") for at in found.values()]
            rows.append([budget_title(budget), arm, *cells])
    notes = [
        f"smoothed accuracy when an arm had spent that share of what {reference} spent in all (mean over its seeds); "
        f"an arm that ended before keeps its last one; area: under the curve, the mean accuracy from nothing to all "
        f"of that budget; means over seeds {SPREAD}"
    ]
    shares = next(iter(next(iter(summary["at_budget"].values())).values()))
    title = f"Accuracy on {summary['split']} at shares of the budget of {reference}"
    return Table(title, ["budget", "arm", *shares], rows, notes, text_columns=2)


def speedup_table(summary: Mapping[str, Any]) -> Table:
    """Speed-ups over the baseline in the main budgets, with how many seeds they rest on."""
    baseline = summary["baseline"]
    rows, notes = [], []
    for arm, budgets in summary["speedup"].items():
        rows.append([arm, *(speedup_cell(budgets[name]) for name in MAIN_BUDGETS)])
        unclear = [budget_title(name) for name in MAIN_BUDGETS if includes_one(budgets[name])]
        if unclear:
            spread = "range" if is_range(budgets["steps"]) else "interval"
            notes.append(f"* {arm}: the {spread} includes 1 in {listed(unclear)}: no clear difference from {baseline}")
        steps = budgets["steps"]
        censored = [seed for seed, ratio in steps["by_seed"].items() if ratio is None]
        if censored:
            left = "so there is no mean" if not steps["reached"] else "which the mean leaves out and so flatters it"
            notes.append(
                f"! {arm}: censored on {len(censored)} of {steps['of']} seeds ({', '.join(censored)}): "
                f"it never reached {baseline}'s final accuracy there, {left}; medians of all seeds: "
                + listed([f"{median_cell(budgets[name])} in {budget_title(name)}" for name in MAIN_BUDGETS])
            )
    legend = [
        f"how many times less, or more, the arm spent until it first reached {baseline}'s final smoothed accuracy than "
        f"{baseline} did, on the same seed; only 'less' is a speed-up",
        f"geometric mean [95% bootstrap interval over seeds], or (least..most of fewer than {ENOUGH} seeds), and seeds "
        f"that reached it/seeds",
    ]
    columns = ["arm", *map(budget_title, MAIN_BUDGETS)]
    return Table(f"Spent to reach the final accuracy of {baseline}", columns, rows, [*legend, *notes])


def seed_table(summary: Mapping[str, Any]) -> Table:
    """Every run: start, final, and its own speed-ups."""
    rows = []
    for arm, records in summary["arms"].items():
        budgets = summary["speedup"].get(arm)
        for record in records:
            seed = str(record["seed"])
            row = [arm, seed, str(record["steps"][-1])]
            row += [number(summary[moment][arm]["by_seed"][seed], ".4f") for moment in ("start", "final")]
            row += [_seed_cell(budgets[name]["by_seed"], seed) if budgets else NONE for name in MAIN_BUDGETS]
            rows.append(row)
    columns = ["arm", "seed", "steps run", "start", "final", *map(budget_title, MAIN_BUDGETS)]
    notes = (
        [
            "how many times less or more than the baseline the arm spent to reach the baseline's final accuracy on "
            "this seed; never: did not reach it"
        ]
        if summary["speedup"]
        else []
    )
    if not summary["speedup"]:
        columns, rows = columns[:5], [row[:5] for row in rows]
    return Table("Every seed", columns, rows, notes)


def cost_table(summary: Mapping[str, Any]) -> Table:
    """Zero-variance shares of collected and admitted groups, and tokens paid for."""
    rows = []
    for arm, ledger in summary["ledger"].items():
        shares = summary["zero_variance"][arm]
        generated, trained = (training_total(ledger, kind) for kind in ("generated", "trained"))
        rejected = ledger.get("rejected/generated", 0.0) + ledger.get("screen/generated", 0.0)
        row = [arm, *(number(shares[kind], ".1%") for kind in ("collected", "admitted"))]
        rows.append([*row, *([tokens(generated), tokens(rejected), tokens(trained)] if ledger else [NONE] * 3)])
    notes = [
        "zero-variance: of the groups of several rollouts, those all right or all wrong, mean over steps and seeds; "
        "tokens: of a whole run, mean over seeds, evaluation and audit left out; rejected: generated only to choose, "
        "screening included; trained: forward and backward, counted once per epoch and model (policy, critic)"
    ]
    columns = ["arm", "zero-variance collected", "admitted", "tokens generated", "rejected", "trained"]
    return Table("Groups and tokens", columns, rows, notes)


def audit_table(summary: Mapping[str, Any]) -> Table:
    """What audits say of the curricula's beliefs and of the whole pool."""
    measures = ("brier", "learnability_mean", "ece", "auroc", "spearman", "regret", "success_mean", "reward_mean")
    kinds = {"": "all", "_never": "never", "_once": "once", "_often": "often"}
    rows = [
        [arm, visits, *(number(found.get(name + kind), ".4f") for name in measures)]
        for arm, found in summary["audit"].items()
        for kind, visits in kinds.items()
        if any(found.get(name + kind) is not None for name in measures)
    ]
    notes = [
        "on training questions drawn uniformly, all and those that had been rolled out never, once or often, mean over "
        "audits and seeds; Brier score of the believed success rates (at best the mean p(1 - p)); ECE: expected "
        "calibration error; AUROC: of being solved more often than not; rank correlation of believed and measured "
        "p(1 - p); regret: measured p(1 - p) of the best eighth of the questions less that of the eighth that the "
        "belief ranks first"
    ]
    columns = [
        "arm",
        "rolled out",
        "Brier",
        "at best",
        "ECE",
        "AUROC",
        "rank correlation",
        "regret",
        "success",
        "reward",
    ]
    return Table("Audit", columns, rows, notes)


def ledger_table(summary: Mapping[str, Any]) -> Table:
    """The whole ledger: tokens by purpose and kind, and FLOPs by purpose, a column per arm."""
    arms = summary["ledger"]
    entries = list(dict.fromkeys(name for ledger in arms.values() for name in ledger))
    entries = [name for name in entries if any(ledger.get(name) for ledger in arms.values())]
    rows = [[*name.split("/"), *(_entry(name, ledger.get(name, 0)) for ledger in arms.values())] for name in entries]
    notes = [
        "tokens, and floating-point operations of the model, by the end of a run, mean over seeds; entries that are "
        "zero everywhere are left out"
    ]
    return Table("Ledger", ["purpose", "kind", *arms], rows, notes, text_columns=2)


def budget_table(summary: Mapping[str, Any]) -> Table:
    """How many times less or more was spent of every budget in which there is a ratio, a column per arm."""
    arms = summary["speedup"]
    named = [name for name in BUDGETS if any(budgets[name]["mean"] is not None for budgets in arms.values())]
    rows = [[budget_title(name), *(speedup_cell(budgets[name]) for budgets in arms.values())] for name in named]
    notes = [
        "as above; a budget that an arm or the baseline never spends has no ratio, and is left out if none has one"
    ]
    return Table(
        f"Spent to reach the final accuracy of {summary['baseline']}: every budget", ["budget", *arms], rows, notes
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """Cells in Markdown: columns of text to the left, the others to the right.

    >>> print(markdown(["norm", "is"], [["||g||", "2"]]))
    | norm | is |
    | --- | ---: |
    | \\|\\|g\\|\\| | 2 |
    """
    rule = [*["---"] * text_columns, *["---:"] * (len(columns) - text_columns)]
    plain = ([cell.replace("|", r"\|") for cell in cells] for cells in (columns, rule, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in plain)


# ------------------------------------------------------------------------------------------------------ text of a cell
def budget_title(name: str) -> str:
    """A budget in words."""
    purpose, _, kind = name.rpartition("/")
    return (
        f"{kind} tokens: {purpose.replace('_', ' ')}" if purpose else name.replace("_", " ").replace("flops", "FLOPs")
    )


def number(value: float | None, form: str) -> str:
    """A number in a format, or a dash."""
    return NONE if value is None else format(value, form)


def interval(values: Mapping[str, Any], form: str) -> str:
    """` [low, high]`, ` (low..high)` if that is a range, or nothing if there is neither; infinity is `never`."""
    if values["low"] is None:
        return ""
    low, high = ("never" if math.isinf(end) else format(end, form) for end in (values["low"], values["high"]))
    return f" ({low}..{high})" if is_range(values) else f" [{low}, {high}]"


def is_range(values: Mapping[str, Any]) -> bool:
    """Whether `low` and `high` are of too few seeds to be more than a range; what has no seeds has an interval."""
    return "by_seed" in values and sum(value is not None for value in values["by_seed"].values()) < ENOUGH


def tokens(count: float) -> str:
    """Tokens with three digits and a unit: 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return f"{count:.0f}"


def _entry(name: str, value: float) -> str:
    """Tokens in full, operations to three digits."""
    return f"{value:.2e}" if name.endswith("/flops") else f"{value:,.0f}"


def includes_one(budget: Mapping[str, Any]) -> bool:
    """Whether a speed-up has an interval that leaves open which arm is faster."""
    return budget["low"] is not None and budget["low"] <= 1 <= budget["high"]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def speedup_cell(budget: Mapping[str, Any]) -> str:
    """How many times less or more was needed, its interval and seeds; * if that includes 1, ! if seeds are censored."""
    share = f"{budget['reached']}/{budget['of']}"
    if budget["mean"] is None:
        return f"never {share}!" if budget["of"] else NONE
    marks = ("*" if includes_one(budget) else "") + ("!" if budget["reached"] < budget["of"] else "")
    needed, word = times(budget)
    return f"{needed['mean']:.2f}{word and ' ' + word}{interval(needed, '.2f')} {share}{marks}"


def median_cell(budget: Mapping[str, Any]) -> str:
    """How many times less, or `more`, the median of all seeds needed, with its interval."""
    if budget["median"] is None:
        return NONE
    needed, word = median_times(budget)
    return f"{needed['mean']:.2f}{' more' if word == 'more' else ''}{interval(needed, '.2f')}"


def median_times(budget: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What `times` says, of the median of all seeds, which there must be."""
    every = dict.fromkeys(budget["by_seed"], 0)  # a seed that never arrived counts
    median = {name: budget[f"median{end}"] for name, end in (("mean", ""), ("low", "_low"), ("high", "_high"))}
    return times(median | {"by_seed": every})


def times(budget: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A speed-up as a factor of at least 1 with its interval, and `less` or `more`; "" for a factor of 1.00.

    A speed-up of 0.5 is no speed-up: the arm needed 2 times more.  An end at which it never arrived is inf.
    """
    mean, low, high = (budget[name] for name in ("mean", "low", "high"))
    needed, word = factor(mean)
    if word == "more":
        low, high = high, low
    ends = [end if end is None else _end(end, word) for end in (low, high)]
    return {"mean": needed, "low": ends[0], "high": ends[1], "by_seed": budget["by_seed"]}, word


def _end(ratio: float, word: str) -> float:
    if not ratio:
        return math.inf
    return 1 / ratio if word == "more" else ratio


def factor(ratio: float) -> tuple[float, str]:
    """A ratio as a factor of at least 1, and `less` or `more`; "" for a factor of 1.00."""
    if f"{ratio:.2f}" == "1.00":
        return ratio, ""
    return (ratio, "less") if ratio > 1 else (1 / ratio, "more")


def _seed_cell(by_seed: Mapping[str, float | None], seed: str) -> str:
    if seed not in by_seed:
        return NONE
    ratio = by_seed[seed]
    if ratio is None:
        return "never"
    needed, word = factor(ratio)
    return f"{needed:.2f} {word}".strip()
