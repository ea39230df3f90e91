"""What the studies have measured: one JSON file, the table of `experiments/README.md`, a line of each docstring."""

import collections
import json
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.study import PRESETS, Study
from lilo_jax.report.tables import markdown
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json

HERE = pathlib.Path(__file__).parent
RESULTS, README = "results.json", "README.md"
NOT_RUN = "not run."
FEW = 8
"""Findings of a study that its docstring has."""
_LAST_RUN = re.compile(r'^Last run: .*?(?=^"""$)', re.DOTALL | re.MULTILINE)
_HEAD = """# The paper, item by item

Every table and figure of Foster et al. 2025 (LILO, arXiv 2502.12272), what its theory assumes, and what its readers
asked for: 34 studies, a module each.

```bash
python -m experiments.paper.ppo --preset tiny               # one of them
python -m experiments.all --preset tiny                     # all of them, sharing runs; --list, --only ID,NAME
python -m experiments.paper.ppo --preset paper --print-config  # every number of the original
```

This page is written by `experiments.all` from `results.json` and the docstrings.  *tiny* is the chain task and a small
decoder, 60 steps long, or the simulator where a module says so: it can agree with a claim about language models, and
cannot prove it.  Most studies have five seeds there; wide grids of trained arms have two, which decide nothing.
Seconds are wall clock, of whatever else the machine did at that time.  Where an arm did not reach the other's accuracy
on every seed the median seed is told, and nothing decided.
A value stands with its 95% interval and its seeds.  A study *agrees* when every interval lies on the claimed side,
*disagrees* when one lies on the other, and is *open* when one includes both, or when fewer than five seeds have a range
and no interval; *no claim*: nobody had said what to expect.  What was claimed to be nothing agrees when its interval
includes nothing, as a wide one easily does.
"""


def read(where: pathlib.Path = HERE) -> dict[str, dict[str, Any]]:
    """Preset to study to its last result; empty where nothing was recorded."""
    path = where / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(results: Sequence[Mapping[str, Any]], studies: Sequence[Study], where: pathlib.Path = HERE) -> None:
    """Adds results to those of the directory, and writes its table and the docstrings of its modules anew."""
    known = read(where)
    for result in results:
        known.setdefault(result["preset"], {})[result["name"]] = _kept(result)
    ordered = {preset: dict(sorted(known[preset].items())) for preset in PRESETS if preset in known}
    where.mkdir(parents=True, exist_ok=True)
    write_whole(where / RESULTS, to_json(ordered, indent=1) + "\n")
    write_whole(where / README, readme(studies, ordered))
    for study in studies:
        module = where / "paper" / f"{study.name}.py"
        if module.exists():
            write_whole(module, with_last_run(module.read_text(encoding="utf-8"), last_run(study.name, ordered)))


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a result: all but where each finding came from."""
    kept = ("id", "seeds", "verdict", "date", "commit", "command", "cpu_seconds")
    findings = [{key: f[key] for key in ("shown", "claimed", "verdict")} for f in result["findings"]]
    return {key: result[key] for key in kept} | {"findings": findings}


def readme(studies: Sequence[Study], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page: a row for each study, and below what each has measured."""
    columns = ("", "shows", "paper", "command", "expected", "tiny: measured", "tiny", "small", "paper preset")
    rows, tiny = [], results.get("tiny", {})
    ordered = sorted(studies, key=lambda study: study.id)
    for study in ordered:
        rows.append(
            [
                str(study.id),
                study.title,
                study.said("Source").rstrip("."),
                f"`python -m {study.module}`",
                study.said("Expected").rstrip("."),
                _measured(study, tiny.get(study.name)),
                *(_status(results.get(preset, {}).get(study.name)) for preset in PRESETS),
            ]
        )
    parts = [_HEAD, markdown(columns, rows, text_columns=len(columns)) + "\n"]
    for preset, own in results.items():
        parts.append(f"## Measured at {preset}\n\n{_total(own, len(ordered))}\n")
        parts += [_section(study, own[study.name]) for study in ordered if study.name in own]
    return "\n".join(parts)


def _measured(study: Study, result: Mapping[str, Any] | None) -> str:
    """The first finding, and the way to all."""
    if result is None:
        return "not run"
    found = result["findings"]
    return f"{found[0]['shown']}<br>[all {len(found)}](#{study.id}-{study.name})"


def _total(results: Mapping[str, Mapping[str, Any]], studies: int) -> str:
    """How many have run, what they found and what they took."""
    verdicts = collections.Counter(result["verdict"] for result in results.values())
    hours = sum(result["cpu_seconds"] for result in results.values()) / 3600
    counted = ", ".join(f"{verdict} {number}" for verdict, number in sorted(verdicts.items()))
    return f"{len(results)} of {studies} studies have run, in {hours:.1f} CPU-hours: {counted}."


def _section(study: Study, result: Mapping[str, Any]) -> str:
    """All that a study has found, beside what was claimed."""
    rows = [[f["shown"], f["claimed"], f["verdict"]] for f in result["findings"]]
    found = markdown(("measured", "claimed", "verdict"), rows, text_columns=3)
    return f"### {study.id} {study.name}\n\nClaim: {study.said('Claim')}  Measured: {_status(result)}.\n\n{found}\n"


def _status(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "not run"
    number, minutes = len(result["seeds"]), result["cpu_seconds"] / 60
    seeds = "1 seed" if number == 1 else f"{number} seeds"
    return f"{result['verdict']}, {seeds}, {result['date']}, {minutes:.1f} CPU-minutes"


def last_run(name: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """What a docstring says of the last runs of its study."""
    found = [f"{preset}, {_told(results[preset][name])}" for preset in PRESETS if name in results.get(preset, {})]
    return "\n".join(found) or NOT_RUN


def _told(result: Mapping[str, Any]) -> str:
    seeds, commit = result["seeds"], result["commit"][:7] or "unknown"
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    head = f"{result['verdict']}; {which}, {result['date']}, commit {commit}"
    lines = [textwrap.fill(f["shown"], 116, subsequent_indent="    ") for f in result["findings"][:FEW]]
    left = len(result["findings"]) - FEW
    lines += [f"and {left} more: experiments/README.md"] if left > 0 else []
    return f"{head}:\n" + textwrap.indent("\n".join(lines), "    ")


def with_last_run(source: str, text: str) -> str:
    """The source of a module with another text behind "Last run:"."""
    return _LAST_RUN.sub(lambda _: f"Last run: {text}\n", source, count=1)
