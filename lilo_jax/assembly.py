"""From a config to the parts of a run: task, tokenizer, encoded questions, mesh and programs.

Everything that can be wrong with a config is found here or before, so that no compute is spent on a run that cannot
finish.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.uniform import Uniform
from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.mesh import make_mesh, mesh_shape, put_replicated
from lilo_jax.programs import Programs, ProgramSettings, build_programs
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling import stop_table
from lilo_jax.storage.checkpoints import load_arrays
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.graders import Graders, Reader
from lilo_jax.tokenizers import SentencePiece, Tokenizer
from lilo_jax.types import Array, PyTree, Question, Sequences, Task


@dataclasses.dataclass(frozen=True)
class EncodedQuestions:
    """Questions with their prompts as token ids.

    Attributes:
        questions: N questions.
        tokens: int32 [N, P], right-padded.
        lengths: int32 [N].
    """

    questions: Sequence[Question]
    tokens: np.ndarray
    lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class Assembly:
    """The parts of a run."""

    config: Config
    task: Task
    tokenizer: Tokenizer
    pool: EncodedQuestions
    held_out: Mapping[str, EncodedQuestions]
    mesh: Mesh
    programs: Programs
    graders: Graders
    stop_table: Array | None


def validate(config: Config) -> None:
    """Checks what can be checked without reading data; raises `UsageError` in one sentence with the cure."""
    rollout, update, model = config.rollout, config.update, config.model
    positive = {
        "rollout.questions": rollout.questions,
        "rollout.samples": rollout.samples,
        "rollout.max-new-tokens": rollout.max_new_tokens,
        "rollout.prefill-tokens": rollout.prefill_tokens,
        "rollout.calls": rollout.calls,
        "update.epochs": update.epochs,
        "update.minibatches": update.minibatches,
        "update.microbatches": update.microbatches,
        "update.chunk": update.chunk,
        "model.num-layers": model.num_layers,
        "evaluation.every": config.evaluation.every,
        "evaluation.rows": config.evaluation.rows,
        "storage.save-every": config.storage.save_every,
        "storage.keep": config.storage.keep,
        "sft.batch": config.sft.batch,
    }
    for name, value in positive.items():
        if value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    if config.num_steps < 0 or config.sft.steps < 0:
        raise UsageError("--num-steps and --sft.steps must not be negative")
    if rollout.temperature <= 0 or not 0 < rollout.top_p <= 1 or rollout.top_k < 0 or not 0 <= rollout.min_p <= 1:
        raise UsageError(
            "--rollout.temperature must be positive, --rollout.top-p in (0, 1], --rollout.top-k at least 0 and "
            "--rollout.min-p in [0, 1]"
        )
    if not 0 <= rollout.min_new_tokens <= rollout.max_new_tokens or rollout.slots < 0:
        raise UsageError(
            "--rollout.min-new-tokens must be between 0 and --rollout.max-new-tokens, and --rollout.slots at least 0"
        )
    if "" in rollout.stop:
        raise UsageError("--rollout.stop must not hold an empty string: leave it out, or give the text to stop at")
    if model.num_heads % model.num_kv_heads or model.head_dim % 2:
        raise UsageError("--model.num-kv-heads must divide --model.num-heads, and --model.head-dim must be even")
    try:
        mesh_shape(config.mesh, jax.device_count())
    except ValueError as error:
        raise UsageError(str(error)) from None


def check(config: Config) -> Task:
    """Reads the task and checks everything that can be checked without a model; returns the task.

    Raises `UsageError`, in one sentence with the cure, before any compute is spent.
    """
    validate(config)
    task = config.task.build(config.seed)
    for name in config.evaluation.splits:
        if name not in task.splits or name == "train":
            raise unknown_name("evaluation split", name, set(task.splits) - {"train"})
    shards = math.prod(mesh_shape(config.mesh, jax.device_count())[:2])
    if config.sft.batch % shards or config.evaluation.rows % shards:
        raise UsageError(f"--sft.batch and --evaluation.rows must be multiples of the {shards} row shards of the mesh")
    if config.num_steps:
        try:
            _check_batch(config, pool_size=len(task.splits["train"]), shards=shards)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return task


def _check_batch(config: Config, *, pool_size: int, shards: int) -> None:
    rollout, update = config.rollout, config.update
    if rollout.questions > pool_size:
        raise UsageError(f"--rollout.questions {rollout.questions} is more than the {pool_size} of the pool")
    curriculum = config.curriculum.build(pool_size=pool_size, questions=rollout.questions, samples=rollout.samples)
    if curriculum.train_rows % (update.minibatches * update.microbatches * shards):
        raise UsageError(
            f"a batch of {curriculum.train_rows} rows does not divide into {update.minibatches} minibatches x "
            f"{update.microbatches} microbatches x {shards} row shards (mesh data x fsdp); change --rollout.questions, "
            f"--rollout.samples, --update.minibatches, --update.microbatches or --mesh"
        )
    block = getattr(config.algorithm, "whiten_rows", 0)
    if block and curriculum.train_rows % block:
        raise UsageError(f"--algorithm.whiten-rows {block} does not divide the batch of {curriculum.train_rows} rows")


def train_tokenizer(config: Config, task: Task) -> Tokenizer:
    """A tokenizer trained on the task's demonstrations and training prompts."""
    kind = config.tokenizer.kind
    if kind == "auto":
        kind = "char" if task.unique_answers else "bpe"
    texts = [prompt + response for prompt, response in task.demonstrations]
    texts += [question.prompt for question in task.splits["train"]]
    return SentencePiece.train(texts, kind=kind, vocab_size=config.tokenizer.vocab_size)


def encode_prompts(tokenizer: Tokenizer, questions: Sequence[Question]) -> EncodedQuestions:
    """Begin token and prompt tokens of each question, padded to the longest."""
    rows = [[tokenizer.bos_id, *tokenizer.encode(question.prompt)] for question in questions]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max(initial=1)), tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return EncodedQuestions(questions=questions, tokens=tokens, lengths=lengths)


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> Sequences:
    """Prompts with their responses and the end token, as host arrays."""
    rows: list[list[int]] = []
    starts: list[int] = []
    for prompt, response in pairs:
        prompt_ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        rows.append([*prompt_ids, *tokenizer.encode(response), tokenizer.end_ids[0]])
        starts.append(len(prompt_ids))
    tokens = np.full((len(rows), max(map(len, rows))), tokenizer.pad_id, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    prompt_lengths = np.array(starts, np.int32)
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(tokens=tokens, prompt_lengths=prompt_lengths, completion_lengths=lengths - prompt_lengths)


def assemble(config: Config, task: Task, *, tokenizer: Tokenizer | None = None, graders: int = 0) -> Assembly:
    """Builds the parts of a run.

    Args:
        config: checked.
        task: as `check` returned it.
        tokenizer: of the starting model; None trains one.
        graders: processes that grade; 0 for none.
    """
    tokenizer = tokenizer or train_tokenizer(config, task)
    mesh = make_mesh(config.mesh)
    model = config.model
    if not model.vocab_size:
        model = dataclasses.replace(model, vocab_size=tokenizer.vocab_size)
    if model.vocab_size < tokenizer.vocab_size:
        raise UsageError(f"--model.vocab-size {model.vocab_size} is below the tokenizer's {tokenizer.vocab_size}")
    settings = ProgramSettings(
        model=model,
        algorithm=config.algorithm,
        curriculum=config.curriculum,
        rollout=config.rollout,
        update=config.update,
        optimizer=config.optimizer,
        optimizer_steps=config.num_steps * config.update.epochs * config.update.minibatches,
        sft_optimizer=config.sft.optimizer,
        sft_steps=config.sft.steps,
        pool_size=len(task.splits["train"]),
        end_ids=tokenizer.end_ids,
    )
    held_out = config.evaluation.splits or [name for name in task.splits if name != "train"]
    return Assembly(
        config=config,
        task=task,
        tokenizer=tokenizer,
        pool=encode_prompts(tokenizer, task.splits["train"]),
        held_out={name: encode_prompts(tokenizer, task.splits[name]) for name in held_out},
        mesh=mesh,
        programs=build_programs(settings, mesh),
        graders=Graders(
            Reader(task.grade, tokenizer, config.rollout.stop), task=config.task, seed=config.seed, workers=graders
        ),
        stop_table=put_replicated(mesh, _stop_table(tokenizer, config.rollout.stop, model.vocab_size)),
    )


def _stop_table(tokenizer: Tokenizer, stop: Sequence[str], vocab_size: int) -> np.ndarray | None:
    """The automaton of the stop strings over the model's ids, or None without any."""
    if not stop:
        return None
    token_bytes = tokenizer.token_bytes()
    return stop_table([*token_bytes, *[b""] * (vocab_size - len(token_bytes))], stop)


def start_config(config: Config) -> Config:
    """The config of the supervised fine-tuning that a run starts from: equal for all runs that can share it."""
    return configuration.replace(
        Config(),
        seed=config.seed,
        num_steps=0,
        task=config.task,
        tokenizer=config.tokenizer,
        model=config.model,
        sft=config.sft,
        mesh=config.mesh,
        evaluation=config.evaluation,
        curriculum=Uniform(),
        algorithm=Rloo(),
        update__chunk=config.update.chunk,
        rollout__max_new_tokens=config.rollout.max_new_tokens,
    )


def load_start(path: str, config: Config) -> tuple[Tokenizer, PyTree]:
    """Tokenizer and policy weights (host arrays) of the run that a config starts from; refuses another model's."""
    directory = RunDirectory(path)
    stored = configuration.load(directory.config_path)
    ours, theirs = dataclasses.asdict(config.model), dataclasses.asdict(stored.model)
    shape_only = {"compute_dtype", "cache_dtype", "train_layers", "decode_layers", "remat"}
    different = [name for name in ours if name not in shape_only and ours[name] != theirs[name]]
    if different:
        listed = ", ".join(f"{name} is {theirs[name]} there and {ours[name]} here" for name in different)
        raise UsageError(f"{path} holds another model ({listed}); set --model.* to that run's values")
    tokenizer = SentencePiece.load(directory.tokenizer_path)
    _, arrays, _ = load_arrays(directory.checkpoints_path)
    return tokenizer, _nested(arrays, prefix="policy/params/")


def _nested(arrays: Mapping[str, np.ndarray], *, prefix: str) -> PyTree:
    tree: dict = {}
    for name, array in arrays.items():
        if name.startswith(prefix):
            *parents, leaf = name.removeprefix(prefix).split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = array
    return tree
