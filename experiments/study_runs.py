"""From a study to its runs and findings: its command line, runs that studies share, and what is written of them.

OUTPUT_DIR/PRESET/runs/START/seed_S/RUN     runs; equal configurations have equal names, so that they run once
OUTPUT_DIR/PRESET/STUDY/                    table.md, result.json, a report of each setting; cpu_seconds.txt: what every
                                            call for it took, those that did not get to their end too
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

from experiments.presets import SMOLLM2
from experiments.real_model import with_model
from experiments.runner import Runs, compare, refuse_ignored
from experiments.study import BASELINE, PRESETS, Arms, Evidence, Finding, Settings, Simulated, Study, is_trained
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, Options
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.report.comparison import choose_split
from lilo_jax.report.html import write_report
from lilo_jax.report.page import escaped, scrolling, sentence, table_element, write_page
from lilo_jax.report.simulation import selection_table, write_selection_page
from lilo_jax.report.summary import summarize
from lilo_jax.report.tables import Table, markdown
from lilo_jax.storage.files import write_whole
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.run_directory import RunDirectory, current_commit
from lilo_jax.training.checks import resolve
from lilo_jax.training.sft import start_config

VERDICTS = ("disagrees", "open", "agrees", "no claim")
"""Of a study: the first of these that one of its findings has."""
CPU_TIME = "cpu_seconds.txt"
COLUMNS = ("measured", "value [95% interval] or (range) (seeds)", "claimed", "verdict")


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """The command line of a study.  Options of the config change every setting that is trained."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/paper")
    preset: str = "tiny"
    """tiny, small or paper"""
    seeds: int = 0
    """number of seeds; 0: those of the study"""
    first_seed: int = 301
    """the first of them; the others follow"""
    jobs: int = 0
    """runs at a time; 0 takes one per CPU core"""


def main(study: Study) -> None:
    """The command of one study: runs it and prints its table."""
    options, settings = parse(study, sys.argv[1:])
    if options.launch.print_config:
        print(to_json(study.described(settings), indent=2))
        return
    result = run_study(study, settings, options)
    written = directory_of(study, options)
    print(
        f"{(written / 'table.md').read_text(encoding='utf-8')}\n{study.name}: {result['verdict']}; reports: {written}"
    )


def parse(study: Study, args: Sequence[str]) -> tuple[StudyOptions, Settings]:
    """The options, and the settings of the preset with the command line's changes."""
    preset = configuration.option_value(args, "--preset") or "tiny"
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    read = functools.partial(configuration.parse, args=args, prog=f"python -m {study.module}", description=study.text)
    options = read(StudyOptions())
    changed = (
        configuration.given_fields(options, Options(), args)
        & configuration.flat(configuration.to_dict(Config())).keys()
    )
    settings = {}
    for name, given in study.preset(preset).items():
        if is_trained(given):
            settings[name] = read(StudyOptions(config=given)).config
            refuse_ignored(settings[name], given, study.arms, args)
        elif changed:
            raise UsageError(
                f"--{min(changed).replace('_', '-')} would be ignored, because nothing is trained in the preset "
                f"{preset} of {study.name}: leave it out, or choose another --preset"
            )
        else:
            settings[name] = given
    if options.seeds < 0:
        raise UsageError("--seeds must be at least 1, or 0 for those of the study")
    return options, settings


def directory_of(study: Study, options: StudyOptions) -> AnyPath:
    """Where what is found is written."""
    return path_of(options.launch.output_dir) / options.preset / study.name


def seeds_of(study: Study, options: StudyOptions) -> list[int]:
    """Of the runs."""
    number = options.seeds or study.number_of_seeds(options.preset)
    return list(range(options.first_seed, options.first_seed + number))


def run_study(study: Study, settings: Settings, options: StudyOptions) -> dict[str, Any]:
    """Runs what has not been run, measures, and writes the table, the reports and the result, which is returned."""
    directory, seeds = directory_of(study, options), seeds_of(study, options)
    directory.mkdir(parents=True, exist_ok=True)
    with _counting(directory / CPU_TIME) as spent:
        evidence = [collect(study, name, given, seeds, options) for name, given in settings.items()]
        findings = list(study.findings(evidence))
    result: dict[str, Any] = {
        "id": study.id,
        "name": study.name,
        "preset": options.preset,
        "seeds": seeds,
        "key": key_of(study.described(settings), seeds),
        "findings": [
            found._asdict() | {"verdict": found.verdict, "claimed": found.claimed, "shown": found.shown()}
            for found in findings
        ],
        "verdict": verdict_of(findings),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "command": shlex.join(["python", "-m", study.module, "--preset", options.preset]),
        "cpu_seconds": spent(),
    }
    more = "\n\n".join(filter(None, map(study.show, evidence)))
    write_whole(directory / "table.md", f"# {study.title}\n\n{study.said('Claim')}\n\n{table(result)}\n\n{more}\n")
    _write_findings(study, result, more, directory / "findings.html")
    for own in evidence:
        _write_report(study, own, directory / f"{own.name}.html", result["command"])
    write_whole(directory / "result.json", to_json(result, indent=1) + "\n")
    return result


def verdict_of(findings: Sequence[Finding]) -> str:
    """Disagrees if one finding does, else open if one is, else agrees if one does."""
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in VERDICTS if verdict in found), "no claim")


def table(result: Mapping[str, Any]) -> str:
    """The findings as Markdown."""
    return markdown(COLUMNS, _cells(result), text_columns=len(COLUMNS))


def _cells(result: Mapping[str, Any]) -> list[list[str]]:
    return [
        [*f["shown"].rpartition(": ")[::2], f["claimed"], f["verdict"]]  # what is measured, and the value
        for f in result["findings"]
    ]


def collect(study: Study, name: str, settings: Any, seeds: Sequence[int], options: StudyOptions) -> Evidence:
    """Runs a setting, as far as that has not been done, and hands over what its measures read."""
    if is_trained(settings):
        return Evidence(name, settings, seeds, runs=_train(study, settings, seeds, options))
    if isinstance(settings, Simulated):
        return Evidence(name, settings, seeds, cell=settings.run(seeds, options.jobs or os.cpu_count() or 1))
    return Evidence(name, settings, seeds)


def _train(study: Study, config: Config, seeds: Sequence[int], options: StudyOptions) -> Runs:
    if config.model.path == SMOLLM2:
        with_model(configuration.replace(config, model__path=""), pathlib.Path(SMOLLM2))
    share = functools.partial(run_shared, runs_root(options), launch=options.launch, jobs=options.jobs)
    begun, arms = _in_turn(study, config)
    if not begun:
        return share(arms, seeds)
    first = share(begun, seeds)
    runs: Runs = {name: {} for name in arms}
    for seed, run in first[study.begins].items():
        for name, own in share(_going_on(arms, run.path), [seed]).items():
            runs[name] |= own
    return first | runs


def _in_turn(study: Study, config: Config) -> tuple[dict[str, Config], dict[str, Config]]:
    """The arm whose runs the others go on with, if there is one, and the others."""
    arms = dict(study.arms(config))
    return {name: arms.pop(name) for name in [study.begins] if name in arms}, arms


def _going_on(arms: Arms, start: AnyPath) -> dict[str, Config]:
    path = os.path.relpath(start)
    return {name: configuration.replace(arm, model__path=path, sft__steps=0) for name, arm in arms.items()}


def planned(study: Study, settings: Settings, options: StudyOptions) -> dict[AnyPath, bool]:
    """Where every run of a study lies, fine-tunings left out, and whether it is done."""
    root, found = runs_root(options), dict[AnyPath, bool]()
    for config in filter(is_trained, settings.values()):
        begun, arms = _in_turn(study, config)
        for seed in seeds_of(study, options):
            first = [_place(root, arm, seed) for arm in begun.values()]
            later = _going_on(arms, first[0]) if first else arms
            places = [*first, *(_place(root, arm, seed) for arm in later.values())]
            found |= {place: RunDirectory(place).is_done() for place in places}
    return found


def _place(root: AnyPath, config: Config, seed: int) -> AnyPath:
    try:
        name = run_name(config)
    except UsageError:  # the model that it starts from is not here yet
        name = key_of(configuration.to_dict(config))
    return root / start_name(config) / f"seed_{seed}" / name


def runs_root(options: StudyOptions) -> AnyPath:
    """Where the runs that studies share lie."""
    return path_of(options.launch.output_dir) / options.preset / "runs"


def run_shared(root: AnyPath, arms: Mapping[str, Config], seeds: Sequence[int], *, launch: Launch, jobs: int) -> Runs:
    """Runs arms on seeds in places that their configurations name, and so each configuration and seed once.

    Arms that start alike lie in one directory of a comparison, beside the fine-tuning that they share.
    """
    starts: dict[str, dict[str, Config]] = {}
    for name, arm in arms.items():
        starts.setdefault(start_name(arm), {})[name] = arm
    runs: Runs = {}
    for start, group in starts.items():
        shared = start_config(configuration.replace(next(iter(group.values())), seed=0))
        named = {run_name(arm): arm for arm in group.values()}
        found = compare(
            shared,
            named,
            seeds=seeds,
            launch=dataclasses.replace(launch, output_dir=str(root / start)),
            jobs=jobs,
        )
        runs |= {name: found[run_name(arm)] for name, arm in group.items()}
    return {name: runs[name] for name in arms}


def start_name(config: Config) -> str:
    """What runs with the same start have in common, as a name."""
    start = start_config(configuration.replace(config, seed=0))
    return (
        f"{configuration.settings_name('task', config.task).rpartition(':')[2]}_{key_of(configuration.to_dict(start))}"
    )


def run_name(config: Config) -> str:
    """The name of a run's configuration, its seed left out."""
    names = (configuration.settings_name(field, getattr(config, field)) for field in ("curriculum", "algorithm"))
    short = "_".join(name.rpartition(":")[2] for name in names)
    return f"{short}_{key_of(configuration.to_dict(resolve(configuration.replace(config, seed=0))))}"


def key_of(*values: Any) -> str:
    """A short fingerprint of JSON-ready values."""
    return hashlib.sha256(to_json(values, sort_keys=True).encode()).hexdigest()[:10]


@contextlib.contextmanager
def _counting(path: AnyPath) -> Iterator[Callable[[], float]]:
    """Adds the CPU seconds of the block to those that a file has, and hands over what reads them.

    They are those of this process and of its children that have ended.
    """
    before, began = _read(path), sum(os.times()[:4])
    try:
        yield functools.partial(_read, path)
    finally:
        write_whole(path, f"{before + sum(os.times()[:4]) - began:.2f}\n")


def _read(path: AnyPath) -> float:
    return float(path.read_text(encoding="utf-8")) if path.exists() else 0.0


def _write_findings(study: Study, result: Mapping[str, Any], more: str, path: AnyPath) -> None:
    """What the study claims and found, on a page."""
    made = f"{result['command']}, {len(result['seeds'])} seeds, {result['date']}, commit {result['commit'][:7]}"
    said = [f"{label}: {study.said(label)}" for label in ("Claim", "Source", "Axes", "Expected")]
    shown = Table(f"Measured: {result['verdict']}", COLUMNS, _cells(result), [made], text_columns=len(COLUMNS))
    sections = [f"<h1>{sentence(study.title)}</h1>", *(f"<p>{sentence(line)}</p>" for line in said)]
    sections += [table_element(shown)] + ([scrolling("more", f"<pre>{escaped(more)}</pre>")] if more else [])
    write_page(path, study.title, sections)


def _write_report(study: Study, evidence: Evidence, path: AnyPath, command: str) -> None:
    """The report of a setting, as the comparisons of runs and of simulated rules have it."""
    if evidence.runs:
        baseline = BASELINE if BASELINE in evidence.runs else next(iter(evidence.runs))
        summary = summarize(evidence.runs, choose_split(evidence.runs), baseline)
        write_report(path, summary, evidence.runs, title=f"{study.title}: {evidence.name}", command=command)
    elif evidence.cell:
        cells = {evidence.name: {"arms": evidence.cell}}
        write_selection_page(path, cells, [selection_table(evidence.cell, study.title)], command)
