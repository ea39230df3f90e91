"""Which runs belong together: from run directories to arms, a baseline and a split."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lilo_jax.config import flat
from lilo_jax.errors import UsageError
from lilo_jax.report.summary import Arms
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.run_directory import RunDirectory

BASELINE = "uniform"
"""The curriculum that others are compared with."""
_NOT_AN_ARM = re.compile(r"(seed|num_steps|model\.path|(sft|mesh|storage|audit)\..*)")
"""Fields in which runs of one arm may differ."""


def group_runs(paths: Sequence[AnyPath]) -> dict[str, dict[int, RunDirectory]]:
    """Arm name to seed to run.

    Runs of one arm differ in seed, length and start only.  An arm is named after its curriculum, with its algorithm
    where runs differ in that and with every further setting in which arms of that name differ.  A path may hold runs
    beneath it instead of being one; runs of no steps are not counted.
    """
    runs = [(run, _config(run)) for path in paths for run in runs_in(path)]
    if len({to_json(config.get("task"), sort_keys=True) for _, config in runs}) > 1:
        raise UsageError("the runs are of different tasks, so their accuracies cannot be compared; report them apart")
    with_algorithm = len({config["algorithm"]["name"] for _, config in runs}) > 1
    alike: dict[str, list[tuple[RunDirectory, dict[str, Any]]]] = {}
    for run, config in runs:
        name = config["curriculum"]["name"].rpartition(":")[2]
        alike.setdefault(f"{name}/{config['algorithm']['name']}" if with_algorithm else name, []).append((run, config))
    arms: dict[str, dict[int, RunDirectory]] = {}
    for name, members in alike.items():
        settings = [_settings(config) for _, config in members]
        keys = sorted({key for own in settings for key in own})
        varied = [key for key in keys if len({own.get(key) for own in settings}) > 1]
        for (run, config), own in zip(members, settings, strict=True):
            full = ", ".join([name, *(f"{_label(key, varied)}={own.get(key, 'absent')}" for key in varied)])
            taken = arms.setdefault(full, {})
            seed = int(config["seed"])
            if seed in taken and taken[seed].path != run.path:
                raise UsageError(f"{taken[seed].path} and {run.path} are the same arm and seed; pass one of them")
            taken[seed] = run
    return arms


def choose_baseline(arms: Arms) -> str | None:
    """The uniform arm; among several the one whose steps are most like those of the other arms; None if there is none.

    None too if there is nothing else to compare.
    """
    configs = {arm: _config(next(iter(runs.values()))) for arm, runs in arms.items()}
    uniform = [arm for arm, config in configs.items() if config["curriculum"]["name"] == BASELINE]
    if not uniform or len(arms) == 1:
        return None
    others = [_settings(config) for arm, config in configs.items() if arm not in uniform]

    def likeness(arm: str) -> int:
        own = _settings(configs[arm])
        return sum(own[key] == other.get(key) for other in others for key in own)

    return max(uniform, key=likeness)


def choose_split(arms: Arms) -> str:
    """`test` if every run was evaluated on it, else the last split that every run was evaluated on."""
    evaluated = [
        list(dict.fromkeys(r["split"] for r in run.read("eval"))) for runs in arms.values() for run in runs.values()
    ]
    shared = [split for split in evaluated[0] if all(split in own for own in evaluated)]
    if not shared:
        raise UsageError("the runs have no evaluation on a common split; report them apart, or let them get to one")
    return "test" if "test" in shared else shared[-1]


def differences(runs: Iterable[RunDirectory]) -> list[str]:
    """Settings in which runs differ, seeds and what only says where they run left out; dotted names, sorted."""
    settings = [_settings(_config(run)) for run in runs]
    keys = sorted({key for own in settings for key in own})
    return [key for key in keys if len({own.get(key) for own in settings}) > 1]


def runs_in(path: AnyPath) -> list[RunDirectory]:
    """The runs of a directory: itself, or those beneath it that have steps; a comparison has a config beside them."""
    own: AnyPath = path / "config.json"
    configs: list[AnyPath] = sorted(path.rglob("config.json"))
    if own in configs and (len(configs) == 1 or (path / "eval.jsonl").exists()):
        return [RunDirectory(path)]
    found = [RunDirectory(config.parent) for config in configs if config != own]
    found = [run for run in found if _config(run).get("num_steps")]
    if not found:
        raise UsageError(f"{path} is no run directory and holds none")
    return found


def _label(key: str, keys: Sequence[str]) -> str:
    """The last part of a setting's path, or all of it if another of `keys` ends alike."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _config(run: RunDirectory) -> dict[str, Any]:
    """The stored config as it is: a curriculum of the user's own need not be importable to be reported."""
    try:
        config = run.config_values()
        complete = all(key in config for key in ("seed", "curriculum", "algorithm"))
    except (UsageError, ValueError, TypeError):
        complete = False
    if not complete:
        raise UsageError(f"{run.config_path} is not the config of a run")
    return config


def _settings(config: dict[str, Any]) -> dict[str, str]:
    """Everything that makes an arm, flat: `rollout.questions` to its value as text."""
    return {key: str(value) for key, value in flat(config).items() if not _NOT_AN_ARM.fullmatch(key)}
