"""What a report's runs were: their settings, what they ran on, and the command that makes the report."""

from collections.abc import Iterable
from typing import Any

from lilo_jax.config import flat
from lilo_jax.report.page import escaped, folded, table_element
from lilo_jax.report.summary import Arms
from lilo_jax.report.tables import NONE, Table
from lilo_jax.storage.redaction import redacted
from lilo_jax.storage.run_directory import RunDirectory

MOST_VALUES = 3
"""Values of a setting that are shown of the runs of one arm."""


def settings_element(arms: Arms) -> str:
    """Every setting: those in which arms differ in a table, the others folded away."""
    values = {arm: _settings(runs.values()) for arm, runs in arms.items()}
    names = sorted({name for own in values.values() for name in own})
    rows = [[name, *(own.get(name, NONE) for own in values.values())] for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    same = [row[:2] for row in rows if len(set(row[1:])) == 1]
    elements = []
    if different:
        table = Table("Settings that differ between arms", ["setting", *arms], different, text_columns=1 + len(arms))
        elements.append(table_element(table))
    if same:
        title = f"Settings of all arms ({len(same)})"
        elements.append(folded(title, table_element(Table(title, ["setting", "value"], same, text_columns=2))))
    return "".join(elements)


def provenance_element(arms: Arms, command: str) -> str:
    """The command, and what `environment.json` says, once per distinct environment."""
    environments: dict[str, list[str]] = {}
    for arm, runs in arms.items():
        for seed, run in runs.items():
            environments.setdefault(_environment(run), []).append(f"{arm}, seed {seed}")
    blocks = []
    for described, names in environments.items():
        of = "" if len(environments) == 1 else f"<p>{escaped('; '.join(names))}</p>"
        blocks.append(of + _lines("Where it ran", described))
    return f"<h2>How it was made</h2>\n{_lines('Command', command)}\n{''.join(blocks)}"


def _settings(runs: Iterable[RunDirectory]) -> dict[str, str]:
    """Dotted name to value; to several where the runs of an arm differ."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, value in flat(run.config_values()).items():
            values = found.setdefault(name, [])
            if (text := _shown(value)) not in values:
                values.append(text)
    return {
        name: ", ".join([*values[:MOST_VALUES], *["..."] * (len(values) > MOST_VALUES)])
        for name, values in found.items()
    }


def _shown(value: Any) -> str:
    return redacted([str(value)])[0] if value != "" else '""'


def _lines(label: str, text: str) -> str:
    return f'<pre role="region" aria-label="{label}" tabindex="0">{escaped(text)}</pre>'


def _environment(run: RunDirectory) -> str:
    found = run.environment()
    kinds = ", ".join(f"{number} x {kind}" for kind, number in found.get("device_kinds", {}).items())
    lines = {
        "hardware": ", ".join(filter(None, [kinds, f"{found['cores']} cores" if found.get("cores") else ""])),
        "devices": ", ".join(found.get("devices", [])),
        "python": f"{found.get('python', '?')} on {found.get('platform', '?')}",
        "packages": ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items()),
        "commit": found.get("commit", ""),
    }
    return "\n".join(f"{name:9} {value}" for name, value in lines.items() if value)
