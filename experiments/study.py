"""A study: an item of the paper's catalogue, as a claim, arms at three sizes, and what is measured of their runs.

The modules of `experiments/paper/` each declare one as `STUDY` and say in their docstring, by these labels:

    Claim:     what it shows, in a sentence          Expected:  the paper's numbers, or what is to be seen
    Source:    table or figure                       Cost:      chips and hours
    Axes:      what differs between arms             Command:   what runs it here
    Last run:  what it measured here, written by `experiments.all`

A preset is settings by name: a `Config`, which is trained under every arm and seed; `Simulated`, rules for the
simulator; or settings of the study's own, which its measures read.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from experiments.runner import Runs
from experiments.simulate_selection import SimulationOptions, simulate_cells
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.report.comparison import choose_split
from lilo_jax.report.summary import ANY, interval_of, summarize
from lilo_jax.report.tables import interval, is_range

PRESETS = ("tiny", "small", "paper")
LABELS = ("Claim", "Source", "Axes", "Expected", "Cost", "Command", "Last run")
BASELINE = "uniform"
TEST = "test"
CORRELATION, RATIO = (-1.0, 1.0), (0.0, math.inf)
"""What they can be."""

Settings = Mapping[str, Any]
"""By name: see the head of this file."""
Arms = Mapping[str, Config]
Part = Literal["all", "early", "late"]
"""Which steps: all, or the first or last third of them."""
Claim = Literal["above", "below", "near", "none"]
"""How a value should stand to what it is compared with; none: nobody has claimed anything."""


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Rules that the simulator runs beside uniform, in its standard world.

    Attributes:
        rules: name to settings.
        samples: rollouts a question.
        steps: of every run.
    """

    rules: Mapping[str, Any]
    samples: int = 8
    steps: int = 300

    def run(self, seeds: Sequence[int], jobs: int) -> dict[str, Any]:
        """Arm to its summary; see `lilo_jax.report.simulation.summarize_cell`."""
        texts = {name: rule_text(rule) for name, rule in self.rules.items()}
        options = SimulationOptions(
            rules=",".join(texts.values()),
            seeds=len(seeds),
            first_seed=seeds[0],
            steps=self.steps,
            samples=self.samples,
            jobs=jobs,
        )
        (cell,) = simulate_cells(options).values()
        found = cell["arms"]
        return {BASELINE: found[BASELINE]} | {name: found[text] for name, text in texts.items()}


def rule_text(rule: Any) -> str:
    """A rule as the simulator reads it: its name with the settings that are not its defaults."""
    usual = type(rule)()
    changed = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    changed = {name: value for name, value in changed.items() if value != getattr(usual, name)}
    settings = ",".join(f"{name}={value!r}" for name, value in changed.items())
    return configuration.settings_name("curriculum", rule) + (f"({settings})" if settings else "")


class Finding(NamedTuple):
    """A measured value beside what was claimed of it.

    Attributes:
        what: it is, in words.
        value: `mean`, `low`, `high` (None of one seed) and how many `seeds`.
        than: what it is compared with: 1 for a ratio, 0 for a difference.
        claim: of the source.
        form: of the numbers.
        said: the value in words, where it is more than a number with its interval.
    """

    what: str
    value: Mapping[str, Any]
    than: float
    claim: Claim
    form: str = ".3f"
    said: str = ""

    @property
    def verdict(self) -> str:
        """Agrees: the 95% interval lies on the claimed side.  Disagrees: on the other.  Else, and where few seeds have
        no more than a range, open.
        """
        low, high = self.value["low"], self.value["high"]
        if self.claim == "none":
            return "no claim"
        if low is None or high is None or is_range(self.value):
            return "open"
        if self.claim == "near":
            return "agrees" if low <= self.than <= high else "disagrees"
        above, below = low > self.than, high < self.than
        if not above and not below:
            return "open"
        return "agrees" if above == (self.claim == "above") else "disagrees"

    @property
    def claimed(self) -> str:
        """How the value should stand, in words."""
        if self.claim == "none":
            return "nothing"
        if self.said:
            return {"above": "less", "below": "more", "near": "as much"}[self.claim]
        return f"{'about' if self.claim == 'near' else self.claim} {self.than:g}"

    def shown(self) -> str:
        """The value with its interval and seeds."""
        if self.said:
            return f"{self.what}: {self.said}"
        if self.value["mean"] is None:
            return f"{self.what}: none ({self.value['seeds']})"
        return f"{self.what}: {self.value['mean']:{self.form}}{interval(self.value, self.form)} ({self.value['seeds']})"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the measures of a study read, of one setting.

    Attributes:
        name: of the setting.
        settings: as the study declares it, with the options of the command line.
        seeds: of the runs.
        runs: arm to seed to run; none where nothing was trained.
        cell: arm to its summary, where the simulator ran; see `lilo_jax.report.simulation.summarize_cell`.
    """

    name: str
    settings: Any
    seeds: Sequence[int]
    runs: Runs = dataclasses.field(default_factory=dict)
    cell: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def arms(self) -> list[str]:
        """Their names."""
        return [*(self.runs or self.cell)]

    def splits(self) -> list[str]:
        """Held-out sets that every run was evaluated on."""
        every = [run for runs in self.runs.values() for run in runs.values()]
        found = [dict.fromkeys(record["split"] for record in run.read("eval")) for run in every]
        return [split for split in found[0] if all(split in own for own in found)]

    def split(self) -> str:
        """The one that is meant where none is named: `test` if there is one."""
        return choose_split(self.runs)

    def summary(self, baseline: str = BASELINE, split: str = "") -> Mapping[str, Any]:
        """`speedup`, `start`, `final` and `gap_to_baseline` as `lilo_jax.report.summary.summarize` has them.

        Args:
            baseline: arm; of a simulation always uniform.
            split: "": that of `split()`.
        """
        if not self.cell:
            return summarize(self.runs, split or self.split(), baseline)
        keys = {"speedup": "speedup", "final": "final", "gap_to_baseline": "gap_at_steps"}
        return {name: {arm: row[key] for arm, row in self.cell.items()} for name, key in keys.items()}

    def of_metric(self, name: str, arm: str, part: Part = "all") -> dict[int, float]:
        """A metric's mean over all steps, or over the first or last third; seeds in which it was never measured are
        left out.
        """
        found = {}
        for seed, run in self.runs[arm].items():
            values = [r[name] for r in run.read("metrics") if r.get(name) is not None]
            third = max(len(values) // 3, 1)
            chosen = {"all": values, "early": values[:third], "late": values[-third:]}[part]
            if chosen:
                found[seed] = sum(chosen) / len(chosen)
        return found


Measure = Callable[[Evidence], Iterable[Finding]]


@dataclasses.dataclass(frozen=True)
class Study:
    """An item of the catalogue.

    Attributes:
        id: 1 to 34.
        module: of the docstring that describes it: `__name__`.
        text: that docstring.
        tiny, small, paper: settings of each preset.
        arms: from what the arms have in common to the arms.
        measures: what is read off the runs of each setting.
        seeds: how many at tiny, of which an interval needs five; other presets have 3.
        begins: arm whose finished runs all others start from, in place of a fine-tuning; "": none.
        show: more to say of the evidence, as Markdown.
    """

    id: int
    module: str
    text: str
    tiny: Settings
    small: Settings
    paper: Settings
    measures: tuple[Measure, ...]
    arms: Callable[[Config], Arms] = lambda config: {"as_it_is": config}
    seeds: int = 5
    begins: str = ""
    show: Callable[[Evidence], str] = lambda evidence: ""

    @property
    def name(self) -> str:
        """Of the module, without its package."""
        return self.module.rpartition(".")[2]

    @property
    def title(self) -> str:
        """The first sentence of the docstring."""
        return self.text.strip().partition("\n")[0].rstrip(".")

    def said(self, label: str) -> str:
        """What the docstring says under one of the `LABELS`, on one line; "" if it does not."""
        others = "|".join(LABELS)
        found = re.search(rf"^{label}: (.*?)(?=^(?:{others}): |\Z)", self.text, re.DOTALL | re.MULTILINE)
        return " ".join(found[1].split()) if found else ""

    def preset(self, name: str) -> Settings:
        """The settings of a preset."""
        return {"tiny": self.tiny, "small": self.small, "paper": self.paper}[name]

    def number_of_seeds(self, preset: str) -> int:
        """How many seeds a preset has."""
        return self.seeds if preset == "tiny" else 3

    def described(self, preset: Settings) -> dict[str, Any]:
        """Every number of a preset, JSON-ready: of each setting all, of an arm what differs from that."""
        return {name: _described(settings, self.arms) for name, settings in preset.items()}

    def findings(self, evidence: Sequence[Evidence]) -> Iterator[Finding]:
        """What the measures find in each setting, named by it where there are several."""
        for own in evidence:
            prefix = f"{own.name}, " if len(evidence) > 1 else ""
            for measure in self.measures:
                yield from (found._replace(what=prefix + found.what) for found in measure(own))


def _described(settings: Any, arms: Callable[[Config], Arms]) -> dict[str, Any]:
    if isinstance(settings, Simulated):
        rules = {name: rule_text(rule) for name, rule in settings.rules.items()}
        return {"rules": rules, "samples": settings.samples, "steps": settings.steps}
    if not isinstance(settings, Config):
        return dataclasses.asdict(settings)
    shared = configuration.to_dict(settings)
    flat = configuration.flat(shared)
    differing = {
        name: {k: v for k, v in configuration.flat(configuration.to_dict(arm)).items() if flat.get(k, ...) != v}
        for name, arm in arms(settings).items()
    }
    return {"config": shared, "arms": differing}


def is_trained(settings: Any) -> bool:
    """Whether a setting is trained, not simulated or computed."""
    return isinstance(settings, Config)


def of_seeds(values: Mapping[int, float], within: tuple[float, float] = ANY) -> dict[str, Any]:
    """A value by seed as its mean with the 95% t-interval, or the range of few seeds, for a finding.

    The interval is no wider than what the value can be, and what is no number is left out.
    """
    values = {seed: value for seed, value in values.items() if math.isfinite(value)}
    return interval_of(values, within) | {"seeds": str(len(values))}


def study_files() -> list[pathlib.Path]:
    """The modules of the catalogue."""
    here = pathlib.Path(__file__).parent / "paper"
    return [path for path in sorted(here.glob("*.py")) if path.stem != "__init__"]
