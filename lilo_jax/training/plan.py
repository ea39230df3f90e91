"""What a run will need, from sizes alone: bytes of memory by what they hold, and seconds of a step.

Nothing is compiled for it, so that a plan that cannot fit is refused before anything is spent.  The numbers are
estimates: `tests/test_plan.py` compares the memory of an update with what the compiler counts.

Of N weights, n of them trained, by an optimiser that keeps two numbers for each, all in float32:

    weights 4 N      optimiser 8 n      gradients 4 n, and 4 n more where micro-batches add them up

A micro-batch of R rows of T tokens keeps of each layer, for the backward pass, what `_layer_floats` counts for a
token; `chunk` tokens have logits at a time; a completion being sampled has keys and values in every layer.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import jax

from lilo_jax.config import Config
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.statistics import nothing_collected
from lilo_jax.device.mesh import RULES, mesh_shape
from lilo_jax.errors import UsageError
from lilo_jax.models.architecture import Architecture
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.lora import TARGETS, LoraConfig
from lilo_jax.types import CurriculumState

SIZE = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a number."""
LOGITS_COPIES = 3
"""Of the logits of a chunk: themselves, their exponentials, their gradient."""
GIB = 2**30
DOUBT = 1.5
"""Factor by which an estimate may be too high: only what needs more than that is refused."""
WORTH_SAYING = GIB // 4
"""Bytes from which on a plan is told."""


def weight_count(model: Architecture) -> int:
    """Weights of a decoder, norms and biases left out."""
    attention = model.embed_dim * model.head_dim * 2 * (model.num_heads + model.num_kv_heads)
    tables = 1 if model.tie_embeddings else 2
    return (
        model.num_layers * (attention + 3 * model.embed_dim * model.mlp_dim)
        + tables * model.vocab_size * model.embed_dim
    )


def adapter_count(model: Architecture, lora: LoraConfig) -> int:
    """Weights of the adapters."""
    attention, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    widths = {"query": attention, "key": keys, "value": keys, "output": attention}
    sums = (model.embed_dim + widths.get(name, model.mlp_dim) for name in lora.targets if name in TARGETS)
    return model.num_layers * lora.rank * sum(sums)


def plan_bytes(config: Config, prompt: int, common: int = 0) -> dict[str, int]:
    """Most bytes that a run holds at the same time on all devices together, by what they hold.

    Args:
        config: of the run.
        prompt: tokens of the longest prompt.
        common: tokens that all prompts begin with, which stand once in packed rows.
    """
    model = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or config.tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model)
    phases = [_learning_bytes(config, prompt, common, phase) for phase in (_update_bytes, _sampling_bytes)]
    phases = phases * bool(config.num_steps) + [_fine_tuning_bytes(config, prompt)] * bool(config.sft.steps)
    return max(phases, key=lambda held: sum(held.values()), default={})


def _learning_bytes(
    config: Config, prompt: int, common: int, phase: Callable[[Config, int, int, int], dict[str, int]]
) -> dict[str, int]:
    """The state of a run, and what a phase of a step holds beside it."""
    model, algorithm = config.model, config.algorithm.build()
    whole, adapters, learners = weight_count(model), adapter_count(model, config.lora), 1 + algorithm.needs_values
    weights = 4 * (whole + learners * adapters if adapters else learners * whole)
    rests = algorithm.needs_reference and not adapters and model.reference_place == "device"
    reference = SIZE[model.reference_dtype] * whole * rests
    copies = mesh_shape(config.mesh, jax.device_count())[0]
    trained = copies * learners * (adapters or whole)
    return {"weights": copies * (weights + reference), "optimiser": 8 * trained} | phase(
        config, prompt, common, trained
    )


def _update_bytes(config: Config, prompt: int, common: int, trained: int) -> dict[str, int]:
    rollout, update = config.rollout, config.update
    rows = rollout.questions * rollout.samples / (update.minibatches * update.microbatches)
    learners = 1 + config.algorithm.build().needs_values
    gradients = {"gradients": 4 * trained * (2 if update.microbatches > 1 else 1)}
    # packed, a prompt stands once for its samples, and what all of them begin with once for all
    prompts = common + max(rows / rollout.samples, 1) * (prompt - common) if update.pack else rows * prompt
    tokens = rows * rollout.max_new_tokens + prompts
    return gradients | _sequence_bytes(config, rows, tokens, prompt + rollout.max_new_tokens, learners)


def _fine_tuning_bytes(config: Config, prompt: int) -> dict[str, int]:
    """All that fine-tuning holds; a demonstration is taken to be as long as a prompt with its longest response."""
    trained = weight_count(config.model) * mesh_shape(config.mesh, jax.device_count())[0]
    kept = {"weights": 4 * trained, "optimiser": 8 * trained, "gradients": 4 * trained}
    longest = prompt + config.rollout.max_new_tokens
    return kept | _sequence_bytes(config, config.sft.batch, config.sft.batch * longest, longest, 1)


def _sequence_bytes(config: Config, rows: float, tokens: float, longest: int, learners: int) -> dict[str, int]:
    """What the tokens of some rows leave for the backward pass, and the logits of a chunk."""
    chunk = min(config.update.chunk, rows * config.rollout.max_new_tokens)
    return {
        "activations": round(tokens * learners * activation_bytes(config.model, longest)),
        "logits": round(LOGITS_COPIES * 4 * chunk * config.model.vocab_size),
    }


def activation_bytes(model: DecoderConfig, tokens: int) -> int:
    """Bytes that a token of a sequence keeps for the backward pass, in all layers of one model.

    Args:
        model: its shape, and how it is run.
        tokens: of the sequence.
    """
    on_cpu, layers = jax.default_backend() == "cpu", model.num_layers
    size = SIZE["float32" if on_cpu else model.compute_dtype]  # a CPU computes in float32 whatever is asked
    everything = _layer_floats(model, tokens)
    products = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim + 2 * (model.embed_dim + model.mlp_dim)
    kept = {
        "none": layers * everything,
        "products": layers * (products + model.embed_dim) + everything,
        "layers": layers * model.embed_dim + everything,
    }
    in_vain = on_cpu and model.train_layers == "unrolled"  # the compiler finds that it has what is computed again
    return size * kept["none" if in_vain else model.remat]


def _layer_floats(model: Architecture, tokens: int) -> int:
    """Numbers that a token keeps in one layer: residuals and norms, heads before and after rotation, scores, MLP."""
    heads = model.head_dim * (3 * model.num_heads + 3 * model.num_kv_heads)
    return 6 * model.embed_dim + heads + 3 * model.num_heads * tokens + 5 * model.mlp_dim


def _sampling_bytes(config: Config, prompt: int, common: int, trained: int) -> dict[str, int]:
    """Weights made ready for it, keys and values, logits of a token each."""
    model, rollout = config.model, config.rollout
    size = SIZE[model.compute_dtype]
    decoding = rollout.slots or rollout.questions * rollout.samples
    token = cache_token_bytes(model)
    prompts = common + rollout.questions * (prompt - common)
    return {
        "weights to sample with": size * weight_count(model),
        "keys and values": token * (decoding * (prompt + rollout.max_new_tokens) + prompts),
        "logits": LOGITS_COPIES * 4 * decoding * model.vocab_size,
    }


def cache_token_bytes(model: DecoderConfig) -> int:
    """Bytes of the keys and values of a token in all layers."""
    cached = SIZE[model.compute_dtype if model.cache_dtype == "compute" else model.cache_dtype]
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * cached


def step_operations(config: Config, prompt: int, candidates: int, common: int = 0) -> dict[str, float]:
    """Floating-point operations of a step by phase, if every prompt and completion is as long as it may be.

    With a gradient a pass takes three times the operations of `forward_operations`.

    Args:
        config: of the run.
        prompt: tokens of the longest prompt.
        candidates: questions rolled out.
        common: tokens that all prompts begin with, computed once.
    """
    rollout, update, algorithm = config.rollout, config.update, config.algorithm.build()
    end, rows = prompt + rollout.max_new_tokens, rollout.questions * rollout.samples

    def forward(prompts: int, rows: int, common: int) -> float:
        parts = ((0, common, 1), (common, prompt, prompts), (prompt, end, rows))
        return sum(count * forward_operations(config, start, stop) for start, stop, count in parts)

    trained = forward(rollout.questions, rows, common) if update.pack else forward(rows, rows, 0)
    scored = (update.old_logprobs == "scored") + algorithm.needs_reference + algorithm.needs_values
    return {
        "sampling": forward(candidates, candidates * rollout.samples, common),
        "scoring": trained * scored,
        "update": 3 * trained * update.epochs * (1 + algorithm.needs_values),
    }


def forward_operations(config: Config, start: float, stop: float) -> float:
    """Operations of a forward pass of the tokens at the places `start` to `stop` of one sequence.

    Two for each token and each of N weights but a table that embeddings are only looked up in; for each of K keys that
    a token sees, itself included, and of L layers of H heads of width D two for its score and two for its value:

        2 N (stop - start) + 4 L H D K,    K = (stop (stop + 1) - start (start + 1)) / 2

    A layer with a window is counted as one without.
    """
    model = config.model
    weights = weight_count(dataclasses.replace(model, tie_embeddings=True)) + adapter_count(model, config.lora)
    keys = (stop * (stop + 1) - start * (start + 1)) / 2
    return 2 * weights * (stop - start) + 4 * model.num_layers * model.num_heads * model.head_dim * keys


def candidates(curriculum: Curriculum, state: CurriculumState) -> int:
    """Questions that a round of a step rolls out; of the state, shapes are enough."""
    return len(nothing_collected(curriculum, state).place) // curriculum.max_rounds


def refuse_too_large(config: Config, prompt: int, memory: int, common: int = 0) -> None:
    """Raises `UsageError` with a setting that would fit if a plan needs more than there is, whatever the estimate errs.

    Args:
        config: of the run.
        prompt: tokens of the longest prompt.
        memory: bytes of all devices; 0: unknown, and nothing is refused.
        common: tokens that all prompts begin with.
    """
    needed = sum(plan_bytes(config, prompt, common).values())
    if not memory or needed <= DOUBT * memory:
        return
    held = ", ".join(f"{name} {size / GIB:.1f}" for name, size in plan_bytes(config, prompt, common).items())
    cure = next(
        (say for say, other in _smaller(config) if sum(plan_bytes(other, prompt, common).values()) <= memory), ""
    )
    raise UsageError(
        f"the run needs about {needed / GIB:.1f} GiB ({held}) and there are {memory / GIB:.1f}: "
        + (f"{cure} would fit" if cure else "take a smaller model, or a machine with more memory")
    )


def _smaller(config: Config) -> Iterator[tuple[str, Config]]:
    """Plans that take less memory, with the options that make them; those that change no number come first."""

    def of(group: str, **changes: object) -> Config:
        return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **changes)})

    for batch in (config.sft.batch >> n for n in range(1, config.sft.batch.bit_length())) if config.sft.steps else ():
        yield f"--sft.batch {batch}", of("sft", batch=batch)
    for pieces in finer(config):
        yield f"--update.microbatches {pieces}", of("update", microbatches=pieces)
    most = max(finer(config), default=config.update.microbatches)
    config = of("update", microbatches=most)
    both = f"--update.microbatches {most}"
    if config.model.remat == "none":
        config = of("model", remat="layers", train_layers="auto")
        both += " --model.remat layers"
        yield both, config
    if config.update.chunk > 128:
        config = of("update", chunk=128)
        yield f"{both} --update.chunk 128", config
    if not config.lora.rank and not config.model.critic and (config.model.path or config.sft.steps):
        config = of("lora", rank=16)
        both += " --lora.rank 16"
        yield both, config
    for questions in (n for n in range(config.rollout.questions - 1, 0, -1)):
        yield f"{both} --rollout.questions {questions}", of("rollout", questions=questions)


def finer(config: Config) -> list[int]:
    """Numbers of micro-batches above the config's that divide its batch, in order."""
    rows = config.rollout.questions * config.rollout.samples // config.update.minibatches
    shards = math.prod(mesh_shape(config.mesh, jax.device_count())[:2])
    return [n for n in range(config.update.microbatches + 1, rows + 1) if rows % (n * shards) == 0]


def undivided(config: Config, mesh: Mapping[str, int]) -> Iterator[str]:
    """What stays whole on every device of an axis that does not divide its size, in sentences.

    Args:
        config: with the shape of its model.
        mesh: sizes of the axes.
    """
    model = config.model
    sizes = {
        "kv heads": (model.num_kv_heads, "kv_heads", "keys, values and their cache"),
        "heads": (model.num_heads, "heads", "queries and the attention's output"),
        "columns of the MLP": (model.mlp_dim, "mlp", "the MLP's weights and activations"),
        "tokens of the vocabulary": (model.vocab_size, "vocab", "embeddings, head and logits"),
        "columns of the model width": (model.embed_dim, "embed", "weights, gradients and moments"),
    }
    for name, (size, meaning, what) in sizes.items():
        axes = {axis: mesh[axis] for axis in RULES[meaning] if mesh[axis] > 1}
        if size % (parts := math.prod(axes.values())):
            options = " x ".join(f"--mesh.{axis} {count}" for axis, count in axes.items())
            yield f"{options} does not divide the {size} {name}: {what} are whole on each of {parts} devices"


def shown(config: Config, prompt: int, candidates: int, *, memory: int, speed: float, common: int = 0) -> list[str]:
    """What a step will need, a line for memory and one for time.

    Args:
        config: of the run.
        prompt: tokens of the longest prompt.
        candidates: questions rolled out in a step.
        memory: bytes of all devices; 0: unknown.
        speed: operations that they do in a second.
        common: tokens that all prompts begin with.
    """
    needs, operations = plan_bytes(config, prompt, common), step_operations(config, prompt, candidates, common)
    held = ", ".join(f"{name} {size / GIB:.2f}" for name, size in needs.items())
    seconds = {name: count / speed for name, count in operations.items()}
    phases = ", ".join(f"{name} {took:.2g}" for name, took in seconds.items())
    doubtful = 0 < memory < sum(needs.values())
    return [
        f"memory, estimated: {sum(needs.values()) / GIB:.2f} GiB"
        + f" of {memory / GIB:.1f}" * bool(memory)
        + f" ({held})"
        + ": it may not fit" * doubtful,
        f"a step, estimated: {sum(seconds.values()):.2g} s or more ({phases}), at the {speed / 1e9:.0f} billion "
        f"operations a second of a product of matrices here",
    ]
