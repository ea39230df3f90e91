"""Configuration: frozen dataclasses, checked before any compute, overridden from the command line, dumped, reloaded.

A run is a pure function of its `Config`.  Where it writes and whether it resumes is in `Launch`, which changes no
number.  Config objects stop at the wiring: pure functions take arrays and numbers.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

import jax
import optax
import tyro

from lilo_jax.bounds import Count, NotNegative, Positive, PositiveShare, Share, ShareBelowOne, Whole
from lilo_jax.checking import Naming, build, shown
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.evaluation.calibration import AuditConfig
from lilo_jax.evaluation.protocols import Protocol, protocol
from lilo_jax.json_lines import to_json
from lilo_jax.mesh import MeshConfig
from lilo_jax.models.architecture import fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.lora import LoraConfig
from lilo_jax.rewards import RewardConfig
from lilo_jax.rl import ALGORITHMS
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.sampling import TokenRule
from lilo_jax.tasks import TASKS
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.noise import NoiseConfig
from lilo_jax.types import PyTree

TABLES: dict[str, Mapping[str, type]] = {"algorithm": ALGORITHMS, "curriculum": CURRICULA, "task": TASKS}
"""The fields of `Config` that hold the settings of something chosen by name."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The model's own tokenizer where it has one; else a SentencePiece model that is trained on the task's text."""

    kind: Literal["auto", "char", "bpe"] = "auto"
    """if trained: a token per character, or byte-pair merges; auto takes char for a task with unique answers"""
    vocab_size: Count = 512
    """if trained: upper bound on the number of ids"""
    chat: bool = False
    """prompts are put as a user's turn into the model's chat template"""


@dataclasses.dataclass(frozen=True)
class ModelConfig(DecoderConfig):
    """The decoder, and the model that training starts from."""

    path: str = ""
    """Hugging Face directory, hub id or run directory whose weights, shape and tokenizer are the start; empty: random
    weights of the shape given here.  --sft.steps 0 goes straight to reinforcement learning"""
    revision: str = ""
    """branch, tag or commit of a hub id"""
    critic: str = ""
    """exported critic, or run directory, that the critic starts from; empty: the policy's weights with a new head"""
    reference_dtype: Literal["float32", "bfloat16"] = "float32"
    """of the frozen weights that a KL term keeps the policy near to; bfloat16 takes half the memory"""

    @property
    def decoder(self) -> DecoderConfig:
        """Without the start."""
        return DecoderConfig(**fields_of(DecoderConfig, self))


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How completions are sampled."""

    questions: Count = 8
    """|B|: questions trained on per step"""
    samples: Count = 8
    """G: rollouts per question"""
    max_new_tokens: Count = 11
    """longest completion, its end token included"""
    min_new_tokens: Whole = 0
    """no end token is drawn before this many tokens"""
    stop: tuple[str, ...] = ()
    """strings that end a completion; the answer is what stands before"""
    temperature: Positive = 1.0
    top_p: PositiveShare = 1.0
    top_k: Whole = 0
    """draw from the k most likely tokens; 0 from all"""
    min_p: Share = 0.0
    """draw from the tokens at least this share as likely as the most likely one"""
    slots: Whole = 0
    """completions decoding at the same time; 0 decodes all of a call"""
    prefill_tokens: Count = 2048
    """prompt tokens run at the same time; bounds the memory of prefill"""
    calls: Count = 1
    """sampling calls per round: completions of one are graded while the next decodes"""

    @property
    def rule(self) -> TokenRule:
        """How a token is drawn."""
        return TokenRule(self.temperature, self.top_p, self.top_k, self.min_p)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up, a schedule, and global-norm clipping."""

    learning_rate: Positive = 5e-4
    """peak"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """what follows the warm-up"""
    warmup_steps: Whole = 10
    """optimiser steps of linear warm-up, the first of them at peak / (warmup_steps + 1)"""
    final_fraction: Share = 0.0
    """learning rate at the end of a linear or cosine schedule, as a share of the peak"""
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.99
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    decayed: Literal["matrices", "all"] = "matrices"
    """weights that decay: all but norms and biases, or all"""
    max_gradient_norm: Positive = 1.0

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of `total_steps` optimiser steps."""
        decay = max(total_steps - self.warmup_steps, 1)
        after = {
            "constant": optax.constant_schedule(self.learning_rate),
            "linear": optax.linear_schedule(self.learning_rate, self.learning_rate * self.final_fraction, decay),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, decay, self.final_fraction),
        }[self.schedule]
        warmup = optax.linear_schedule(
            self.learning_rate / (self.warmup_steps + 1), self.learning_rate, self.warmup_steps
        )
        schedule = optax.join_schedules([warmup, after], [self.warmup_steps])
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),
            optax.adamw(
                schedule,
                b1=self.beta1,
                b2=self.beta2,
                eps=self.epsilon,
                weight_decay=self.weight_decay,
                mask={"matrices": are_matrices, "all": None}[self.decayed],
            ),
        )


def are_matrices(params: PyTree) -> PyTree:
    """Which weights are neither a norm's nor a bias, by their names; of the structure of `params`."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        return not str(path[-1].key).endswith(("scale", "bias"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


@dataclasses.dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning, which makes the starting point of RL."""

    steps: Whole = 800
    """0: reinforcement learning starts from the model as it is"""
    batch: Count = 64
    """demonstrations per step"""
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=4e-3,
        schedule="cosine",
        warmup_steps=30,
        final_fraction=0.02,
        beta2=0.98,
        weight_decay=0.01,
        decayed="all",
    )
    pack: bool = False
    """short demonstrations share a row where that saves a quarter of the tokens; the loss stays the same"""


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Accuracy on held-out questions."""

    every: Count = 10
    """steps between evaluations"""
    splits: tuple[str, ...] = ()
    """held-out sets evaluated each time; empty: all that the task has"""
    suites: tuple[str, ...] = ()
    """test sets of other tasks, NAME or NAME=PATH, such as math500 or collegemath=data/college"""
    protocol: str = ""
    """vineppo, oat or greedy: its samples, temperature, top-p and max-new-tokens where they are not given, its stop
    strings, prompt style and grader"""
    samples: Count = 4
    """completions per question where accuracy must be sampled; a task with unique answers is evaluated exactly"""
    temperature: NotNegative = 1.0
    top_p: PositiveShare = 1.0
    max_new_tokens: Whole = 0
    """longest completion; 0: as in training"""
    max_questions: Whole = 0
    """questions per set, the first ones; 0 takes all"""
    rows: Count = 256
    """sequences per device call"""


@dataclasses.dataclass(frozen=True)
class StorageConfig:
    """What is kept on disk."""

    save_every: Count = 50
    """steps between checkpoints; the last step is always saved"""
    keep: Count = 2
    """checkpoints kept: should the newest be damaged, the one before it is there"""
    rollouts_every: Whole = 20
    """steps between records of full rollouts; 0 records none"""
    generations: Literal["last", "all", "none"] = "last"
    """which evaluations keep their responses, where accuracy is sampled"""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run."""

    seed: Whole = 0
    """of everything random"""
    num_steps: Whole = 200
    task: Any = Chain()
    """settings of the task; choose another with --task NAME"""
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    sft: SftConfig = SftConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    noise: NoiseConfig = NoiseConfig()
    curriculum: Any = Lilo()
    """settings of the curriculum; choose another with --curriculum NAME"""
    algorithm: Any = Ppo()
    """settings of the algorithm; choose another with --algorithm NAME"""
    update: UpdateConfig = UpdateConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    critic_learning_rate: NotNegative = 0.0
    """peak of the critic's own optimiser, which else is set up as the policy's; 0: the policy's"""
    mesh: MeshConfig = MeshConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    audit: AuditConfig = AuditConfig()
    storage: StorageConfig = StorageConfig()

    @property
    def protocol(self) -> Protocol:
        """How held-out questions are evaluated: as a named protocol says, where nothing else was given."""
        evaluation, stop = self.evaluation, self.rollout.stop
        given = {name: getattr(evaluation, name) for name in ("samples", "temperature", "top_p", "max_new_tokens")}
        if not evaluation.protocol:
            given["max_new_tokens"] = evaluation.max_new_tokens or self.rollout.max_new_tokens
            return Protocol(**given, stop=stop)
        named, default = protocol(evaluation.protocol), EvaluationConfig()
        changed = {name: value for name, value in given.items() if value != getattr(default, name)}
        return dataclasses.replace(named, **changed, stop=tuple(dict.fromkeys([*stop, *named.stop])))


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where a run writes and how it starts; none of it changes a number."""

    output_dir: str = "runs/latest"
    resume: Literal["auto", "must", "never", "previous"] = "auto"
    """auto: go on where the same config stopped, or begin; must: only go on; never: only begin; previous: like auto,
    from the newest checkpoint that is not damaged; those that are move aside"""
    stop_at: Whole = 0
    """save and stop before this step; 0 runs to the end"""
    max_seconds: NotNegative = 0.0
    """save and stop at the first step that begins after so many seconds; 0 sets no limit"""
    grace: Positive = 25.0
    """seconds from SIGTERM, SIGHUP or Ctrl-C to the end of the process at the latest; Ctrl-C twice ends at once"""
    graders: Whole = 0
    """processes for what cannot be graded at once; 0: one per core, started when first needed"""
    print_config: bool = False
    """print the resolved config as JSON and exit"""
    debug: bool = False
    """show the traceback of an error"""

    def of_part(self, path: pathlib.Path) -> "Launch":
        """How a run that is a part of this one starts: wherever it is, it goes on to its end."""
        resume: Literal["auto", "previous"] = "previous" if self.resume == "previous" else "auto"
        return dataclasses.replace(self, output_dir=str(path), resume=resume, stop_at=0)


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line of a single run."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch()


# ------------------------------------------------------------------------------------------------- names and settings
def settings_class(field: str, name: str) -> type:
    """The settings class of a table entry, or of a user's own `package.module:ClassName`."""
    if ":" not in name:
        if name not in TABLES[field]:
            raise unknown_name(field, name, TABLES[field])
        return TABLES[field][name]
    module_name, class_name = name.split(":", 1)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever the module does when it is imported
        raise UsageError(f"cannot load {field} {name!r}: {error}; the form is package.module:ClassName") from error
    if not (dataclasses.is_dataclass(found) and callable(getattr(found, "build", None))):
        raise UsageError(f"{field} {name!r} is not a dataclass with a build method")
    return cast(type, found)


def settings_name(field: str, settings: Any) -> str:
    """The name under which `settings_class` finds the class of `settings`."""
    for name, known in TABLES[field].items():
        if type(settings) is known:
            return name
    return f"{type(settings).__module__}:{type(settings).__qualname__}"


# ------------------------------------------------------------------------------------------------------ dump and load
def to_dict(config: Config) -> dict[str, Any]:
    """A JSON-ready dictionary; named settings carry their name."""
    values = json.loads(to_json(dataclasses.asdict(config)))
    for path, value in flat(dataclasses.asdict(config)).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{path.replace('_', '-')} is {value}: give a finite number")
    for field in TABLES:
        values[field] = {"name": settings_name(field, getattr(config, field)), **values[field]}
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary by paths: `{"rollout": {"questions": 8}}` is `{"rollout.questions": 8}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def from_dict(values: Any, source: str = "config") -> Config:
    """The inverse of `to_dict`; `UsageError` at anything that is not a config, naming the field and its `source`."""

    def naming(path: tuple[str, ...]) -> str:
        return f"{source}: {'.'.join(path)}" if path else source

    if isinstance(values, Mapping):
        named = {field: _named(field, values[field], naming) for field in TABLES if field in values}
        values = {**values, **named}
    return build(Config, values, naming)


def _named(field: str, values: Any, naming: Naming) -> Any:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise UsageError(f"{naming((field,))} must be an object with the name of a {field}, got {shown(values)}")
    settings = {key: value for key, value in values.items() if key != "name"}
    return build(settings_class(field, values["name"]), settings, naming, (field,))


def load(path: pathlib.Path) -> Config:
    """Reads a `config.json`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no config at {path}: is {path.parent} a run directory?") from None
    except OSError as error:
        raise UsageError(f"{path} is not a config: {error}") from None
    return from_text(content, path)


def from_text(content: bytes, path: pathlib.Path) -> Config:
    """The config in the content of the `config.json` at `path`, which a mistake is named by."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a config: {error}") from None
    return from_dict(values, str(path))


def replace(config: Config, **changes: Any) -> Config:
    """A copy with changes to nested fields: `replace(config, rollout__questions=32, seed=1)`."""
    for path, value in changes.items():
        group, _, field = path.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, group), **{field: value})
        config = dataclasses.replace(config, **{group: value})
    return config


# ------------------------------------------------------------------------------------------------------- command line
def parse(options: T, args: Sequence[str], *, prog: str, description: str) -> T:
    """Overrides the fields of `options`, a dataclass with a `config: Config` field, from the command line.

    `--task NAME`, `--curriculum NAME` and `--algorithm NAME` choose settings first (those of `options` where it has
    that name already, else the defaults), which the rest then overrides;
    `--task.path` alone means the dataset task.  Mistakes as in `command_line`.
    """
    args = list(args)
    if not any(re.match(r"--task(=|$)", a) for a in args) and any(re.match(r"--task\.path(=|$)", a) for a in args):
        args += ["--task", "dataset"]
    config = options.config  # type: ignore[attr-defined]
    for field in TABLES:
        name, args = _take_option(args, f"--{field}")
        if name is not None and type(getattr(config, field)) is not settings_class(field, name):
            config = dataclasses.replace(config, **{field: settings_class(field, name)()})
    options = dataclasses.replace(options, config=config)  # type: ignore[type-var]
    return command_line(options, args, prog=prog, description=description)


def command_line(options: T, args: Sequence[str], *, prog: str, description: str) -> T:
    """Overrides the fields of a dataclass; `UsageError` in one sentence on anything that it does not understand."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(type(options), default=options, args=args, prog=prog, description=description)
    except SystemExit as exit_:
        if exit_.code:
            raise UsageError(_one_sentence(printed.getvalue(), prog)) from None
        raise


def option_value(args: Sequence[str], flag: str) -> str | None:
    """The value given to an option on a command line, or None."""
    return _take_option(list(args), flag)[0]


def _take_option(args: list[str], flag: str) -> tuple[str | None, list[str]]:
    for i, arg in enumerate(args):
        if arg == flag:
            if i + 1 == len(args) or args[i + 1].startswith("--"):
                raise UsageError(f"{flag} needs a name")
            return args[i + 1], args[:i] + args[i + 2 :]
        if arg.startswith(flag + "="):
            return arg.removeprefix(flag + "="), args[:i] + args[i + 1 :]
    return None, args


def _one_sentence(message: str, prog: str) -> str:
    """Folds tyro's boxed message into one line: what was wrong, the nearest option, where help is."""
    lines = [line.strip(" │|╭╮╰╯") for line in re.sub(r"^╭─+ (.*?) ─*╮", r"\1\n---", message.strip()).splitlines()]
    sections = re.split(r"\n[─-]{3,}(?:\n|$)", "\n".join(lines))
    sections = [" ".join(section.split()) for section in sections if section.strip()]
    wrong = sections[1] if len(sections) > 1 else " ".join(sections)
    nearest = re.search(r"Perhaps you meant:?\s*(--\S+)", " ".join(sections))
    hint = f"; did you mean {nearest[1]}?" if nearest else ""
    return f"{wrong.rstrip('.')}{hint} (see {prog} --help)"
