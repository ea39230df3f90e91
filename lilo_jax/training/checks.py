"""Everything that can be wrong with a config, found before any compute is spent on a run that cannot finish."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax

from lilo_jax import bounds
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.device import capacity
from lilo_jax.device.mesh import mesh_shape
from lilo_jax.device.reference import check_place
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.grading.workers import Grade
from lilo_jax.models.architecture import Architecture, check_architecture, fields_of, plain_attention
from lilo_jax.models.attention import attention_kernel
from lilo_jax.models.lora import TARGETS
from lilo_jax.pretrained.sources import open_model
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.identity import check_splits
from lilo_jax.tasks.noise import plant
from lilo_jax.tasks.shots import with_shots
from lilo_jax.tasks.suites import inherited, suites, with_settings
from lilo_jax.tokenizers import prompt_ids, turns
from lilo_jax.tokenizers.lengths import UNBOUNDED, Asked, check_lengths
from lilo_jax.training.lengths import (
    chat_of,
    check_demonstrations,
    longest_bytes,
    prompt_tokens,
    tokenizer_of,
    without_longer,
)
from lilo_jax.training.plan import refuse_too_large
from lilo_jax.training.rehearsal import rehearse


def validate(config: Config) -> None:
    """Checks what can be checked without reading data; raises `UsageError` in one sentence with the cure."""
    rollout, model = config.rollout, config.model
    bounds.check(config)
    for field in configuration.TABLES:
        if not callable(getattr(getattr(config, field), "build", None)):
            raise UsageError(f"--{field} must be settings with a build method, got {getattr(config, field)!r}")
    if rollout.min_new_tokens > rollout.max_new_tokens:
        raise UsageError("--rollout.min-new-tokens must be at most --rollout.max-new-tokens")
    if config.tokenizer.system and not config.tokenizer.chat:
        raise UsageError("--tokenizer.system is a turn of a chat template: add --tokenizer.chat, or leave it out")
    if "" in rollout.stop:
        raise UsageError("--rollout.stop must not hold an empty string: leave it out, or give the text to stop at")
    _validate_algorithm(config)
    _validate_lora(config)
    _validate_sizes(config)
    config.reward.build(max_new_tokens=rollout.max_new_tokens)
    plant([], config.noise, config.seed)
    try:
        check_architecture(model)
        mesh_shape(config.mesh, jax.device_count())
        attention_kernel(
            model.attention,
            platform=jax.default_backend(),
            dtype=model.compute_dtype,
            head_dim=model.head_dim,
            plain=plain_attention(model),
            split=config.mesh.sequence > 1,
        )
        check_place(model.reference_place, jax.local_devices()[0])
    except ValueError as error:
        raise UsageError(str(error)) from None


def _validate_algorithm(config: Config) -> None:
    try:
        algorithm = config.algorithm.build()
    except ValueError as error:
        raise UsageError(str(error)) from None
    if config.num_steps:
        _check_samples(config, "algorithm", algorithm.least_samples)


def _check_samples(config: Config, field: str, least: int) -> None:
    """Refuses groups that are too small for an algorithm or a curriculum to tell anything by."""
    if config.rollout.samples < least:
        name = configuration.settings_name(field, getattr(config, field))
        raise UsageError(
            f"--rollout.samples must be at least {least}, because the {field} {name} compares the rollouts of a "
            f"question, got {config.rollout.samples}"
        )


def _validate_sizes(config: Config) -> None:
    """Refuses arrays with more elements than their indices can count."""
    rollout, evaluation, audit = config.rollout, config.evaluation, config.audit
    tokens = ("--rollout.max-new-tokens", rollout.max_new_tokens)
    products = [
        (("--rollout.questions", rollout.questions), ("--rollout.samples", rollout.samples), tokens),
        (("--evaluation.rows", evaluation.rows), ("--evaluation.max-new-tokens", config.protocol.max_new_tokens)),
        (("--audit.questions", audit.questions), ("--audit.samples", audit.samples), tokens),
    ]
    for factors in products:
        if math.prod(value for _, value in factors) >= bounds.TOO_LARGE:
            numbers = " x ".join(f"{name} {value}" for name, value in factors)
            raise UsageError(f"{numbers} must be below {bounds.TOO_LARGE}: lower one of them")


def _validate_lora(config: Config) -> None:
    lora = config.lora
    if not lora.targets or len(set(lora.targets)) < len(lora.targets):
        raise UsageError("--lora.targets must be one or more different names")
    for name in lora.targets:
        if name not in TARGETS:
            raise unknown_name("LoRA target", name, TARGETS)
    if lora.rank and not config.model.path and not config.sft.steps:
        raise UsageError("--lora.rank needs a base: give --model.path, or let --sft.steps make one")
    if lora.rank and not config.num_steps:
        raise UsageError("--lora.rank is for reinforcement learning, and fine-tuning trains all weights: leave it out")
    if lora.rank and config.model.critic:
        raise UsageError("--model.critic cannot start a critic of adapters: leave it out, or set --lora.rank 0")
    if config.model.critic and not config.algorithm.build().needs_values:
        raise UsageError("--model.critic is given, but the algorithm trains no critic: leave it out")


def resolve(config: Config) -> Config:
    """The config with the shape of the model that it starts from filled in; refuses to be told another one."""
    bounds.check(config)
    model = config.model
    if not model.path:
        return config
    source = open_model(model.path, model.revision)
    found, default = source.architecture(), Architecture()
    if model.context_length:  # the one thing that a user may choose
        found = dataclasses.replace(found, context_length=model.context_length)
    for name, given in fields_of(Architecture, model).items():
        fixed = getattr(found, name)
        if given not in (getattr(default, name), fixed):
            flag = f"--model.{name.replace('_', '-')}"
            raise UsageError(f"{flag} is {given}, but {model.path} fixes it as {fixed}: leave it out")
    tokenizer = source.tokenizer()
    source.check()
    if config.tokenizer.chat:
        prompt_ids(tokenizer, "?", chat=turns(chat=True, system=config.tokenizer.system))
    if model.critic:
        _check_critic(model.critic, found)
    start = dataclasses.replace(model, path=_absolute(model.path), critic=_absolute(model.critic))
    return dataclasses.replace(config, model=dataclasses.replace(start, **fields_of(Architecture, found)))


def _absolute(path: str) -> str:
    """A directory's whole path, so that a run of adapters finds its base from anywhere; a hub id as it is."""
    directory = pathlib.Path(path).expanduser()
    return str(directory.resolve()) if path and directory.is_dir() else path


def _check_critic(path: str, policy: Architecture) -> None:
    critic = fields_of(Architecture, open_model(path).architecture())
    free = ("vocab_size", "context_length", "tie_embeddings", "family")
    different = [n for n, value in fields_of(Architecture, policy).items() if n not in free and critic[n] != value]
    if different:
        raise UsageError(f"the critic in {path} is of another shape than the policy ({', '.join(different)} differ)")


def check(config: Config) -> Task:
    """Reads the task and checks everything that can be checked without a model; returns the task.

    Raises `UsageError`, in one sentence with the cure, before any compute is spent.
    """
    validate(config)
    task = with_shots(config.task.build(config.seed), chat=config.tokenizer.chat)
    if not task.splits.get("train"):
        raise UsageError(
            f"the task {configuration.settings_name('task', config.task)} has no training questions: train on another, "
            f"and give this one to lilo eval --suite or --evaluation.suites"
        )
    for name in config.evaluation.splits:
        if name not in task.splits or name == "train":
            raise unknown_name("evaluation split", name, set(task.splits) - {"train"})
    for name, questions in task.splits.items():
        if not questions:
            raise UsageError(f"the split {name!r} of the task is empty: give it more questions, or leave it out")
    check_splits(task.splits)
    task = without_longer(config, task)
    _check_lengths(config, task)
    shards = math.prod(mesh_shape(config.mesh, jax.device_count())[:2])
    if config.sft.batch % shards or config.evaluation.rows % shards:
        raise UsageError(f"--sft.batch and --evaluation.rows must be multiples of the {shards} row shards of the mesh")
    if config.num_steps:
        config.audit.check(len(task.splits["train"]))
        try:
            curriculum = _check_batch(config, pool_size=len(task.splits["train"]), shards=shards)
        except ValueError as error:
            raise UsageError(str(error)) from None
        _check_facts(curriculum.wants, config, task)
        rehearse(curriculum, task.splits["train"], config.rollout.questions)
    longest, common = prompt_tokens(config, task)
    refuse_too_large(config, longest, capacity.memory(), common)
    return task


def _check_batch(config: Config, *, pool_size: int, shards: int) -> Curriculum:
    """The curriculum, whose batch divides as it must."""
    rollout, update = config.rollout, config.update
    if rollout.questions > pool_size:
        raise UsageError(f"--rollout.questions {rollout.questions} is more than the {pool_size} of the pool")
    curriculum = config.curriculum.build(pool_size=pool_size, questions=rollout.questions, samples=rollout.samples)
    _check_samples(config, "curriculum", curriculum.least_samples)
    if config.algorithm.build().needs_belief and curriculum.estimate is None:
        names = [configuration.settings_name(field, getattr(config, field)) for field in ("algorithm", "curriculum")]
        raise UsageError(
            "the baseline of {} is what the curriculum believes of a question, and {} believes nothing: take "
            "--curriculum frontier, mopps or spo, or leave --algorithm.baseline out".format(*names)
        )
    if curriculum.train_rows % (update.minibatches * update.microbatches * shards):
        raise UsageError(
            f"a batch of {curriculum.train_rows} rows does not divide into {update.minibatches} minibatches x "
            f"{update.microbatches} microbatches x {shards} row shards (mesh data x fsdp); change --rollout.questions, "
            f"--rollout.samples, --update.minibatches, --update.microbatches or --mesh"
        )
    block = getattr(config.algorithm, "whiten_rows", 0) if getattr(config.algorithm, "whitening", "") == "blocks" else 0
    if block and curriculum.train_rows % block:
        raise UsageError(f"--algorithm.whiten-rows {block} does not divide the batch of {curriculum.train_rows} rows")
    return curriculum


def _check_facts(wants: Wants, config: Config, task: Task) -> None:
    """Refuses a curriculum whose facts the data cannot give."""
    questions = task.splits["train"]
    categories = len({question.category for question in questions})
    if wants.categories and not wants.levels and categories < 2:
        raise UsageError(
            "the curriculum chooses between categories: give the questions a field category, or take another"
        )
    if wants.categories and categories > wants.categories:
        raise UsageError(
            f"the questions have {categories} categories and the curriculum tells {wants.categories} apart: raise "
            f"--curriculum.categories"
        )
    if wants.truth and not task.unique_answers:
        raise UsageError(
            "the curriculum wants exact success rates, which only a task with unique answers has: take another task"
        )
    if wants.truth and not tokenizer_of(config, task).unique_segmentation:
        raise UsageError(
            "the curriculum wants exact success rates, which only a tokenizer of single characters can tell: take "
            "--tokenizer.kind char and a model trained with it"
        )
    levels = [question.level for question in questions if question.level is not None]
    if wants.levels and len(levels) < len(questions):
        raise UsageError("the curriculum turns a generator's level, which the questions do not have: take another")
    if wants.levels and not 0 <= min(levels) <= max(levels) < wants.levels:
        raise UsageError(
            f"the questions' levels go from {min(levels)} to {max(levels)} and the curriculum knows 0 to "
            f"{wants.levels - 1}: raise --curriculum.levels"
        )


def _check_lengths(config: Config, task: Task) -> None:
    """Refuses what the model has no room for; a tokenizer is trained only if the bytes of the texts do not tell."""
    rollout, protocol, chat = config.rollout, config.protocol, chat_of(config, task)
    bounded = hasattr(config.task, "longest")
    sets = {"train": Asked(task.splits["train"], rollout.max_new_tokens, "--rollout.max-new-tokens", bounded)}
    for name, (questions, _, _) in held_out_sets(config, task).items():
        option = "--evaluation.max-new-tokens"
        sets[name] = Asked(questions, protocol.max_new_tokens, option, bounded and name in task.splits)
    context = config.model.context_length
    new = max(asked.new_tokens for asked in sets.values()) if context else 0
    if longest_bytes(config, (asked.questions for asked in sets.values())) + new > (context or UNBOUNDED):
        check_lengths(tokenizer_of(config, task), sets, context, chat=chat)
    if config.sft.steps:
        check_demonstrations(lambda: tokenizer_of(config, task), task, context, chat=chat)


def questions_of(config: Config, task: Task) -> dict[str, Sequence[Question]]:
    """All questions that a run depends on, by split or suite, those left out as too long among them.

    Args:
        config: checked.
        task: as `check` returned it.
    """
    evaluated = {name: questions for name, (questions, _, _) in held_out_sets(config, task).items()}
    return {**evaluated, **task.splits, **({"left out": task.left_out} if task.left_out else {})}


def held_out_sets(config: Config, task: Task) -> dict[str, tuple[Sequence[Question], Grade, bool]]:
    """The questions of every set to evaluate on, their grader, and whether their answers are unique.

    Suites are asked and graded as the task is, and both as a named protocol says.
    """
    most, protocol = config.evaluation.max_questions or None, config.protocol
    names = config.evaluation.splits or [name for name in task.splits if name != "train"]
    if len(set(names)) < len(names):
        raise UsageError("--evaluation.splits names a split twice")
    asked = with_settings(config.task, template=protocol.template, grader=protocol.grader)
    chat = config.tokenizer.chat
    held = task if asked == config.task else with_shots(asked.build(config.seed), chat=chat)
    left_out = {question.asked for question in task.left_out}
    kept = {name: [q for q in held.splits[name] if q.asked not in left_out] for name in names if left_out}
    sets = {name: (kept.get(name, held.splits[name])[:most], held.grade, held.unique_answers) for name in names}
    trained = {question.asked: question.name for question in task.splits["train"]}
    for name, suite in suites(
        config.evaluation.suites, **inherited(config.task, template=protocol.template, grader=protocol.grader)
    ).items():
        if name in sets:
            raise UsageError(f"--evaluation.suites {name} has the name of a split of the task: leave it out")
        if {prompt for prompt, _ in task.shots} & {question.prompt for question in suite.splits["test"]}:
            raise UsageError(f"a worked example of --task.shots is a question of --evaluation.suites {name}: lower it")
        suite = with_shots(suite._replace(shots=task.shots), chat=chat)
        questions = suite.splits["test"]
        if shared := [question for question in questions if question.asked in trained]:
            raise UsageError(
                f"{len(shared)} questions of --evaluation.suites {name} are trained on: give other data (first "
                f"{shared[0].name}, which is {trained[shared[0].asked]} as well)"
            )
        sets[name] = (questions[:most], suite.grade, suite.unique_answers)
    return sets
