"""Settings that follow the model: what a command line that names a model to start from leaves open.

The defaults of `Config` are for a model of random weights and a generated task.  `for_model` is a pure function; every
value that it chooses is told with its reason, and a value that was given is never changed.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

from lilo_jax import bounds
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.device import capacity
from lilo_jax.errors import UsageError
from lilo_jax.models.architecture import Architecture, fields_of
from lilo_jax.pretrained.sources import RunModel, decoder_config, open_model
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.shots import BETWEEN, with_shots
from lilo_jax.tokenizers import prompt_ids, turns
from lilo_jax.training.checks import resolve
from lilo_jax.training.plan import GIB, finer, plan_bytes, weight_count

FIELDS = (
    "sft.steps",
    "sft.optimizer.learning_rate",
    "model.context_length",
    "tokenizer.chat",
    "task.template",
    "rollout.stop",
    "rollout.max_new_tokens",
    "update.pack",
    "lora.rank",
    "update.microbatches",
    "optimizer.learning_rate",
)
"""What may be chosen, in the order in which it is: a later rule sees what an earlier one chose."""
LARGE = 10_000_000
"""Weights from which on a model is taken for a language model that was trained on text."""
BILLION = 10**9
ROOM = 0.8
"""Share of the memory that a plan should take at most: estimates err, and others want some."""
RANK = 16

Choice = tuple[str, Any, str]
"""Field, value, reason."""


class _ModelFacts(NamedTuple):
    """What is known of the model to start from.

    Attributes:
        architecture: its shape.
        chat: whether prompts are turns of its chat template.
        prompt: tokens of the task's longest prompt.
        new_tokens: that a response to the task may need; 0: the task does not say.
    """

    architecture: Architecture
    chat: bool
    prompt: int
    new_tokens: int


def settle(config: Config, given: Set[str], output_dir: str) -> Config:
    """The config with what it leaves open chosen for its model, each choice printed; without a model as it is.

    Where the directory holds a run, its values are taken: it goes on as it began, on a machine with other memory too.

    Args:
        config: from a command line.
        given: dotted names of the fields that were given.
        output_dir: of the run.
    """
    if not config.model.path:
        return config
    bounds.check(config)
    directory = RunDirectory(output_dir)
    if directory.config_path.exists():
        return as_stored(config, given, configuration.load(directory.config_path))
    resolve(config)  # what cannot be used is refused before anything is told of it
    try:
        config, lines = for_model(config, given, facts_of(config), capacity.memory())
    except ValueError as error:  # of settings that do not fit together
        raise UsageError(str(error)) from None
    for line in lines:
        print(line, file=sys.stderr)
    return config


def as_stored(config: Config, given: Set[str], stored: Config) -> Config:
    """The config with the choices of a stored one, where nothing was given."""
    for field in FIELDS:
        if field not in given and _has(config, field) and _has(stored, field):
            config = changed(config, field, value_of(stored, field))
    return config


def facts_of(config: Config) -> _ModelFacts:
    """Reads the model's settings, not its weights, and the task's longest prompt."""
    source = open_model(config.model.path, config.model.revision)
    tokenizer = source.tokenizer()
    chat = source.config.tokenizer.chat if isinstance(source, RunModel) else tokenizer.chat is not None
    task = with_shots(config.task.build(config.seed), chat=chat)
    questions = [question for split in task.splits.values() for question in split]
    longest = max(questions, key=lambda question: len(question.prompt), default=None)
    return _ModelFacts(
        architecture=Architecture(**fields_of(Architecture, decoder_config(source))),
        chat=chat,
        prompt=len(prompt_ids(tokenizer, longest.prompt, chat=turns(chat=chat, shots=task.shots))) if longest else 1,
        new_tokens=getattr(config.task, "NEW_TOKENS", 0),
    )


def for_model(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> tuple[Config, list[str]]:
    """The config with what was not given chosen for its model, and a line for each choice.

    Args:
        config: as it was given.
        given: dotted names of the fields that were given.
        model: what is known of the model.
        memory: bytes of the devices; 0: unknown.
    """
    lines = []
    for rule in (_fine_tuning, _context, _prompts, _new_tokens, _packing, _memory, _rate):
        for field, value, reason in rule(config, given, model, memory):
            if field not in given and _has(config, field) and value_of(config, field) != value:
                config = changed(config, field, value)
                lines.append(f"--{field.replace('_', '-')}{_shown(value)}: {reason}")
    return config, lines


def _fine_tuning(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    """None unless it was asked for; then at a rate that leaves the model what it knows."""
    if config.num_steps:
        yield "sft.steps", 0, "a trained model is fine-tuned only if --sft.steps asks for it"
    if (config.sft.steps and "sft.steps" in given) or not config.num_steps:
        rate = 2e-5 if weight_count(model.architecture) < BILLION else 1e-5
        if _is_large(model):
            yield "sft.optimizer.learning_rate", rate, "4e-3 is for random weights, and would undo what was learnt"


def _context(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    yield "model.context_length", model.architecture.context_length, "the model's own"


def _prompts(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    """A model that has a chat template was trained on it; whoever gives a template has said what a prompt is."""
    wanted = config.tokenizer.chat or "tokenizer.chat" not in given
    if model.chat and wanted and not given & {"task.template", "task.template_file"}:
        yield "tokenizer.chat", True, "the model has a chat template (--tokenizer.no-chat leaves it out)"
        yield "task.template", "none", "the chat template says where the question stands"
    elif not config.tokenizer.chat and getattr(config.task, "shots", None):
        yield "rollout.stop", (BETWEEN,), "what stands between worked examples ends a response"


def _new_tokens(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    room = model.architecture.context_length - model.prompt if model.architecture.context_length else model.new_tokens
    if model.new_tokens:
        yield "rollout.max_new_tokens", max(min(model.new_tokens, room), 1), "what responses to this task may need"


def _packing(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    if _is_large(model):
        yield "update.pack", True, "a prompt is computed once for its samples, and short responses share a row"


def _memory(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    """Micro-batches, which change no result, before adapters."""
    shape = dataclasses.replace(config.model, **fields_of(Architecture, model.architecture))
    config = dataclasses.replace(config, model=shape)
    needs = sum(plan_bytes(config, model.prompt).values())
    if not memory or not config.num_steps or needs <= ROOM * memory:
        return
    whole = f"the update needs about {needs / GIB:.1f} of the {memory / GIB:.1f} GiB otherwise"
    may_adapt = "lora.rank" not in given and not config.model.critic
    for rank in dict.fromkeys([config.lora.rank, RANK if may_adapt else config.lora.rank]):
        adapted = changed(config, "lora.rank", rank)
        for pieces in [config.update.microbatches, *([] if "update.microbatches" in given else finer(config))]:
            if sum(plan_bytes(changed(adapted, "update.microbatches", pieces), model.prompt).values()) <= ROOM * memory:
                yield "lora.rank", rank, f"trains adapters alone: {whole}"
                yield "update.microbatches", pieces, whole
                return


def _rate(config: Config, given: Set[str], model: _ModelFacts, memory: int) -> Iterator[Choice]:
    """1e-6 for all weights is what papers take from a billion weights on; smaller models bear, and need, more."""
    if not _is_large(model):
        return
    small = weight_count(model.architecture) < BILLION
    if config.lora.rank:
        yield "optimizer.learning_rate", 2e-5 if small else 1e-5, "adapters of a trained model"
    else:
        yield "optimizer.learning_rate", 5e-6 if small else 1e-6, "all weights of a trained model"


def _is_large(model: _ModelFacts) -> bool:
    return weight_count(model.architecture) >= LARGE


# ------------------------------------------------------------------------------------------------- fields by their path
def value_of(config: Any, field: str) -> Any:
    """The value of a field, by its dotted name."""
    return functools.reduce(getattr, field.split("."), config)


def changed(settings: Any, field: str, value: Any) -> Any:
    """Settings with another value in a field, by its dotted name."""
    group, _, rest = field.partition(".")
    return dataclasses.replace(settings, **{group: changed(getattr(settings, group), rest, value) if rest else value})


def _has(config: Any, field: str) -> bool:
    *groups, name = field.split(".")
    return hasattr(functools.reduce(getattr, groups, config), name)


def _shown(value: Any) -> str:
    """As it follows an option; a switch has no value."""
    if isinstance(value, tuple):
        return "".join(f" {each!r}" for each in value)
    return "" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}"
