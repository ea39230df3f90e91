"""The whole shelf: every study of the paper, one after another, sharing the runs that they have in common.

    python -m experiments.all --list
    python -m experiments.all --preset tiny
    python -m experiments.all --preset tiny --only ppo,12,sampling_temperature

Runs of the same configuration and seed are run once, fine-tunings too.  Stop it, or kill it, and the same command goes
on.  A study that fails is told of and the others go on; the command then ends with status 1.  It writes OUTPUT_DIR/
PRESET/index.html with the report of every study, and records what was measured: `experiments/README.md`, `results.json`
beside it, and the line "Last run" of each docstring (`--record DIR` writes them to another directory).

What was measured lies in OUTPUT_DIR/PRESET/STUDY/result.json with the CPU time that it took, of which runs that another
study had made are no part; a study whose settings and
seeds are those of its result is not measured again: delete the file after a change of its measures.
"""

import dataclasses
import importlib
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments import record
from experiments.study import Settings, Study, study_files
from experiments.study_runs import (
    StudyOptions,
    directory_of,
    key_of,
    parse,
    planned,
    run_study,
    seeds_of,
)
from lilo_jax import config as configuration
from lilo_jax.errors import RunError, Stopped, unknown_name
from lilo_jax.processes.endings import exit_with_message, message
from lilo_jax.report.html import table_element, write_page
from lilo_jax.report.tables import Table
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of


@dataclasses.dataclass(frozen=True)
class AllOptions(StudyOptions):
    """The command line; options of the config change every study that is chosen, as they change one."""

    only: str = ""
    """ids or names with commas between; empty: all"""
    list: bool = False
    """print ids and names, and exit"""
    record: str = str(record.HERE)
    """where README.md and results.json are written; beside the modules their docstrings too"""


def studies() -> list[Study]:
    """All of the catalogue, by id."""
    found = [importlib.import_module(f"experiments.paper.{path.stem}").STUDY for path in study_files()]
    return sorted(found, key=lambda study: study.id)


def chosen(text: str, known: Sequence[Study]) -> list[Study]:
    """The studies that a text names by id or name; all if it is empty."""
    if not text:
        return [*known]
    by_name = {study.name: study for study in known} | {str(study.id): study for study in known}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in by_name:
            raise unknown_name("study", name, by_name)
    return list({by_name[name].id: by_name[name] for name in names}.values())


def of_a_study(args: Sequence[str]) -> list[str]:
    """The arguments that a single study understands."""
    kept, words = [], iter(args)
    for word in words:
        name, _, value = word.partition("=")
        if name in ("--only", "--record"):
            value or next(words, None)
        elif name not in ("--list", "--no-list"):
            kept.append(word)
    return kept


def main() -> None:
    """Runs the studies, and says which did not get to their end."""
    options = configuration.parse(
        AllOptions(), sys.argv[1:], prog="python -m experiments.all", description=__doc__ or ""
    )
    known = studies()
    if options.list:
        print("\n".join(f"{study.id} {study.name}" for study in known))
        return
    wanted = chosen(options.only, known)
    args = of_a_study(sys.argv[1:])
    parsed = {study.name: parse(study, args)[1] for study in wanted}
    if options.launch.print_config:
        print(to_json({study.name: study.described(parsed[study.name]) for study in wanted}, indent=2))
        return
    print(_plan(wanted, parsed, options), flush=True)
    results, failed = {}, {}
    for number, study in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {study.id} {study.name}", flush=True)
        try:
            settings = parsed[study.name]
            results[study.name] = _measured(study, settings, options) or run_study(study, settings, options)
        except Stopped:
            raise
        except Exception as error:
            failed[study.name] = message(error)
            print(f"    failed: {failed[study.name]}", flush=True)
            continue
        print("\n".join(_told(results[study.name])), flush=True)
        record.record([results[study.name]], known, pathlib.Path(options.record))
        write_index(wanted, results, failed, options)
    hours = sum(result["cpu_seconds"] for result in results.values()) / 3600
    index = write_index(wanted, results, failed, options)
    print(f"{len(results)} of {len(wanted)} studies, {hours:.2f} CPU-hours; reports: {index}")
    if failed:
        raise RunError(f"{len(failed)} of {len(wanted)} studies failed ({', '.join(failed)}): the same command goes on")


def _plan(wanted: Sequence[Study], parsed: Mapping[str, Settings], options: AllOptions) -> str:
    """What there is to do, in a line."""
    runs = {place: done for study in wanted for place, done in planned(study, parsed[study.name], options).items()}
    measured = sum(_measured(study, parsed[study.name], options) is not None for study in wanted)
    return (
        f"{len(wanted)} studies, {measured} of them measured; they share {len(runs)} runs, "
        f"{sum(runs.values())} of them done"
    )


def _measured(study: Study, settings: Settings, options: AllOptions) -> dict[str, Any] | None:
    """The result that lies there, if it is of these settings and seeds."""
    path = directory_of(study, options) / "result.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    key = key_of(study.described(settings), seeds_of(study, options))
    return found if found.get("key") == key else None


def _told(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"    {finding['shown']}: {finding['verdict']}" for finding in result["findings"])
    yield f"    {result['verdict']}, {result['cpu_seconds'] / 60:.1f} CPU-minutes"


def write_index(
    wanted: Sequence[Study], results: Mapping[str, Any], failed: Mapping[str, str], options: AllOptions
) -> AnyPath:
    """The page that leads to the reports; returns its path."""
    root = path_of(options.launch.output_dir) / options.preset
    rows, links = [], []
    for study in wanted:
        result = results.get(study.name)
        status = result["verdict"] if result else failed.get(study.name, "not run")
        findings = result["findings"] if result else []
        first = f"{findings[0]['shown']} (1 of {len(findings)})" if findings else ""
        rows.append([str(study.id), study.name, status, study.title, first])
        pages = sorted(page.stem for page in (root / study.name).glob("*.html"))
        pages.sort(key=lambda page: page != "findings")
        linked = ", ".join(f'<a href="{study.name}/{page}.html">{page}</a>' for page in pages)
        links.append(f"<li>{study.id} {study.name}: {linked or 'no report'}</li>")
    columns = ["", "study", "verdict", "shows", "measured [95% interval] (seeds)"]
    table = Table(f"Studies at {options.preset}", columns, rows, text_columns=5)
    body = ["<h1>The paper, item by item</h1>", table_element(table), "<h2>Reports</h2>", f"<ul>{''.join(links)}</ul>"]
    return write_page(root / "index.html", "The paper, item by item", body)


if __name__ == "__main__":
    exit_with_message(main)
