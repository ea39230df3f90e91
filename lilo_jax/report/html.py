"""A report as one HTML file: no scripts, no links, figures inside, readable on light and on dark screens."""

import html
import importlib.util
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.report.comparison import choose_baseline, choose_split, group_runs
from lilo_jax.report.drawing import Drawing
from lilo_jax.report.figures import draw_all
from lilo_jax.report.summary import Arms, read_curve, summarize
from lilo_jax.report.tables import (
    MAIN_BUDGETS,
    Table,
    audit_table,
    budget_table,
    budget_title,
    build_tables,
    includes_one,
    interval,
    ledger_table,
    listed,
    times,
)
from lilo_jax.storage.budgets import BUDGETS
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.redaction import redacted
from lilo_jax.storage.run_directory import RunDirectory

EXAMPLES = 2
"""Completions of each verdict shown from one step."""
LONGEST = 600
"""Characters shown of a prompt or a response."""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --font: system-ui, sans-serif; --surface: #ffffff; --ink: #1c2330; --muted: #667080; --grid: #e4e7ec;
  --band: #f5f7fa; --right: #1a7f4b; --wrong: #b3362b;
  --arm-0: #667080; --arm-1: #1f6fd0; --arm-2: #d9600f; --arm-3: #178a68; --arm-4: #7d4cc4; --arm-5: #b83270;
  --arm-6: #8a6d00; }
@media (prefers-color-scheme: dark) {
  :root { --surface: #14181f; --ink: #e5e9f0; --muted: #97a1b0; --grid: #2b323d; --band: #1b2029; --right: #58c48d;
    --wrong: #ef7d72; --arm-0: #a4aebc; --arm-1: #62a8f5; --arm-2: #f3924e; --arm-3: #45c29c; --arm-4: #b493f2;
    --arm-5: #ea7aae; --arm-6: #d8b741; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--surface); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 20px; font-weight: 600; margin: 0 0 8px; color: var(--muted); }
h2 { font-size: 18px; font-weight: 600; margin: 40px 0 8px; }
p { margin: 8px 0; max-width: 78ch; }
.headline { font-size: 21px; line-height: 1.4; margin: 0 0 12px; }
.note, figcaption { color: var(--muted); font-size: 13.5px; margin: 6px 0 0; max-width: 92ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; margin: 4px 0; }
caption { text-align: left; font-weight: 600; padding: 20px 0 4px; }
th { font-weight: 500; color: var(--muted); vertical-align: bottom; }
th, td { padding: 4px 18px 4px 0; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th.text, td.text { text-align: left; }
.examples td { white-space: pre-wrap; overflow-wrap: anywhere; vertical-align: top; text-align: left;
  font: 13px/1.5 ui-monospace, monospace; }
.examples th { text-align: left; }
.correct { color: var(--right); }
.wrong { color: var(--wrong); }
figure { margin: 0; }
figure svg { display: block; width: 100%; min-width: 720px; height: auto; }
pre { background: var(--band); padding: 12px 14px; overflow-x: auto; font-size: 13px; border-radius: 6px; }
"""


def write_report(
    path: AnyPath | str,
    summary: Mapping[str, Any],
    arms: Arms,
    title: str,
    command: str,
    against: Sequence[str] = MAIN_BUDGETS,
) -> AnyPath:
    """The path of a report of compared runs: one HTML file with tables, figures, completions and how it was made.

    Args:
        path: HTML file to write.
        summary: of the same runs, from `summarize`.
        arms: arm name to seed to run.
        title: shown at the top.
        command: what reproduces it, shown at the end.
        against: budgets that curves are drawn against: accuracy against each, the others against the first.

    Returns:
        The path written.  Without matplotlib the report has no figures and says so.

    >>> import lilo_jax
    >>> arms = {"uniform": {0: lilo_jax.load("runs/tiny").directory}}
    >>> summary = lilo_jax.summarize(arms, split="test", baseline=None)
    >>> write_report("runs/tiny.html", summary, arms, title="Tiny", command="python tiny.py").name
    'tiny.html'
    """
    baseline = summary["baseline"]
    sections = [f"<h1>{_text(title)}</h1>"]
    first, *others = headlines(summary)
    sections += [f'<p class="headline">{_text(first)}</p>', *(f"<p>{_text(line)}</p>" for line in others)]
    sections += ["<h2>Results</h2>", *map(table_element, build_tables(summary))]
    sections += [table_element(audit_table(summary))] if summary["audit"] else []
    if importlib.util.find_spec("matplotlib") is None:
        sections.append('<p class="note">No figures: matplotlib is not installed (pip install "lilo-jax[plot]").</p>')
    else:
        split = summary["split"]
        curves = {arm: {seed: read_curve(run, split) for seed, run in runs.items()} for arm, runs in arms.items()}
        sections += map(figure_element, draw_all(arms, curves, split, baseline, against))
    sections += [_examples(arms), "<h2>What it cost</h2>"]
    sections += [table_element(budget_table(summary))] if summary["speedup"] else []
    sections += [table_element(ledger_table(summary))]
    sections += [_provenance(arms, command)]
    return write_page(path, title, sections)


def write_page(path: AnyPath | str, title: str, sections: Sequence[str]) -> AnyPath:
    """Writes a page of elements in the report's style; returns its path."""
    path = path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(title=_text(title), style=_STYLE, body="\n".join(sections))
    write_whole(path, page)
    return path


def report_runs(
    paths: Iterable[AnyPath | str], output: AnyPath | str, against: Sequence[str] = MAIN_BUDGETS
) -> AnyPath:
    """Reports run directories, or directories of them, grouped into arms by what their configs say.

    The baseline is a `uniform` arm if there is one; without it, or with one arm only, nothing is compared.  Raises
    `UsageError` if a path holds no run, two runs are the same, they share no evaluated split, or a budget of `against`
    is unknown.
    """
    for name in against:
        if name not in BUDGETS:
            raise unknown_name("budget", name, BUDGETS)
    runs = [path_of(path) for path in paths]
    if path_of(output).is_dir():
        raise UsageError(f"--output {output} is a directory; pass a file, such as {output}/report.html")
    arms = group_runs(runs)
    baseline = choose_baseline(arms)
    arms = dict(sorted(arms.items(), key=lambda arm: arm[0] != baseline))
    summary = summarize(arms, choose_split(arms), baseline)
    chosen = [] if tuple(against) == MAIN_BUDGETS else ["--against", ",".join(against)]
    command = shlex.join(redacted(["lilo", "report", *map(str, runs), "--output", str(output), *chosen]))
    return write_report(output, summary, arms, f"Report: {listed(list(arms))}", command, against)


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """One sentence per arm that is compared; one per arm if none is."""
    if not summary["speedup"]:
        return [_accuracy_sentence(summary, arm) for arm in summary["final"]]
    return [_speedup_sentence(summary, arm) for arm in summary["speedup"]]


def _accuracy_sentence(summary: Mapping[str, Any], arm: str) -> str:
    start, final, runs = summary["start"][arm]["mean"], summary["final"][arm], summary["arms"][arm]
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"seed {runs[0]['seed']}"
    return (
        f"{arm}: accuracy on {summary['split']} went from {start:.3f} to {final['mean']:.3f}{interval(final, '.3f')} "
        f"in {max(run['steps'][-1] for run in runs)} steps ({seeds})."
    )


def _speedup_sentence(summary: Mapping[str, Any], arm: str) -> str:
    budgets, baseline = summary["speedup"][arm], summary["baseline"]
    steps = budgets["steps"]
    target = summary["final"][baseline]["mean"]
    goal = f"{baseline}'s final {summary['split']} accuracy ({target:.3f})"
    if not steps["of"]:
        return f"{arm} has no seed in common with {baseline}, so nothing is compared."
    if not steps["reached"]:
        return f"{arm} did not reach {goal} on any of {steps['of']} seeds."
    parts = []
    for name in MAIN_BUDGETS:
        budget = budgets[name]
        if budget["mean"] is None:
            continue
        unclear = ", which includes 1" if includes_one(budget) else ""
        needed, word = times(budget)
        within = f" (95% interval {needed['low']:.2f} to {needed['high']:.2f}{unclear})" if needed["low"] else ""
        many = f"{needed['mean']:.2f} times {'fewer' if word == 'less' else word}" if word else "as many"
        parts.append(f"{many} {budget_title(name)}{within}")
    missed = "" if steps["reached"] == steps["of"] else "; the seeds that did not are left out of these means"
    seeds = f"on {steps['reached']} of {steps['of']} seeds"
    return f"{arm} reached {goal} {seeds}, with {listed(parts)}{missed}."


# ----------------------------------------------------------------------------------------------------------- elements
def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def table_element(table: Table) -> str:
    """A table with its caption and notes."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if i < table.text_columns else "" for i in range(len(cells))]
        parts = (f"<{tag}{kind}>{_text(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(parts)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    return (
        f'<div class="wide"><table><caption>{_text(table.title)}</caption>'
        f"<thead>{row(table.columns, 'th')}</thead><tbody>{rows}</tbody></table></div>{notes}"
    )


def figure_element(drawing: Drawing) -> str:
    """A figure with its title and caption."""
    return (
        f'<h2>{_text(drawing.title)}</h2>\n<figure id="{drawing.name}"><div class="wide">{drawing.svg}</div>'
        f"<figcaption>{_text(drawing.caption)}</figcaption></figure>"
    )


def _examples(arms: Arms) -> str:
    """Completions of the first and of the last recorded step of the first seed of every arm that has any."""
    rows = []
    for arm, runs in arms.items():
        for seed, run in runs.items():
            recorded = {step: records for step, records in run.rollouts().items() if records}
            if recorded:
                for step in sorted({min(recorded), max(recorded)}):
                    rows += [_example(f"{arm}, seed {seed}", step, record) for record in _chosen(recorded[step])]
                break
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("arm", "step", "question", "prompt", "gold", "response", "verdict"))
    return (
        f"<h2>Completions</h2>\n<div class='wide'><table class='examples'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">The first correct and the first other completions (at most {EXAMPLES} of each, of different '
        f"questions where there are any) of the first and the last step whose rollouts were recorded.</p>"
    )


def _chosen(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `EXAMPLES` correct completions and as many others, one per question while there are enough."""
    chosen: list[dict[str, Any]] = []
    for correct in (True, False):
        alike = [record for record in records if (record["verdict"] == "correct") == correct]
        firsts = list({record["question"]: record for record in reversed(alike)}.values())[::-1]
        chosen += (firsts + [record for record in alike if record not in firsts])[:EXAMPLES]
    return chosen


def _example(arm: str, step: int, record: dict[str, Any]) -> str:
    def cut(text: str) -> str:
        return _text(text if len(text) <= LONGEST else text[:LONGEST] + " ...")

    kind = "correct" if record["verdict"] == "correct" else "wrong"
    question = "\n".join(filter(None, (record.get("id"), record.get("where"))))  # older records have neither
    cells = [_text(arm), str(step), *map(cut, (question, record["prompt"], record["gold"], record["response"]))]
    verdict = f'<td class="{kind}">{_text(record["verdict"].replace("_", " "))}</td>'
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}{verdict}</tr>"


def _provenance(arms: Arms, command: str) -> str:
    """The command, and what `environment.json` says, once per distinct environment."""
    environments: dict[str, list[str]] = {}
    for arm, runs in arms.items():
        for seed, run in runs.items():
            described = _environment(run)
            environments.setdefault(described, []).append(f"{arm}, seed {seed}")
    blocks = []
    for described, names in environments.items():
        of = "" if len(environments) == 1 else f"<p>{_text('; '.join(names))}</p>"
        blocks.append(f"{of}<pre>{_text(described)}</pre>")
    return f"<h2>How it was made</h2>\n<pre>{_text(command)}</pre>\n{''.join(blocks)}"


def _environment(run: RunDirectory) -> str:
    found = run.environment()
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    lines = {
        "python": f"{found.get('python', '?')} on {found.get('platform', '?')}",
        "packages": packages,
        "devices": ", ".join(found.get("devices", [])),
        "commit": found.get("commit", ""),
    }
    return "\n".join(f"{name:9} {value}" for name, value in lines.items() if value)
