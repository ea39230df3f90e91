"""Time and memory of an update whose rows are as they are, packed, or packed with each prompt computed once.

    python -m benchmarks.packing                              # a decoder of 4 layers; groups of 8 with prompts of 112
    python -m benchmarks.packing --model DIR --steps 2        # a Hugging Face directory, all weights trained
    python -m benchmarks.packing --forms shared --microbatches 4
    python -m benchmarks.packing --together --prompt 256 --new-tokens 64 --full --steps 7

Each form is a process of its own that takes `--steps` updates by RLOO after one that is not counted.  Prints one JSON
object a line: the tokens that were computed, CPU seconds of an update and of the scoring before it (medians), those of
compiling the update, the bytes of its program beside its arguments, and the peak resident set; then the ratios to the
first form.  With `--together` all forms are in one process and take turns, so that a slow minute hits each of them; the
ratios are then medians over the turns, with their range, and there are no sizes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lilo_jax.device.inference import model_on
from lilo_jax.device.mesh import MeshConfig, make_mesh
from lilo_jax.errors import unknown_name
from lilo_jax.models import Model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.packing import PackedRows, cut_rows, pack_blocks
from lilo_jax.models.scoring import informative_sequences
from lilo_jax.pretrained.sources import decoder_config, open_model
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.prepare import prepare, prepare_blocks
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import UpdateConfig, deal, update
from lilo_jax.storage.json_lines import to_json
from lilo_jax.types import FollowUps, PyTree, Sequences, Trainable, TrainBatch

FORMS = ("plain", "packed", "shared")
SMALL = DecoderConfig(
    num_layers=4, embed_dim=256, num_heads=4, num_kv_heads=2, head_dim=64, mlp_dim=704, vocab_size=8192,
    tie_embeddings=True,
)  # fmt: skip


class Work(NamedTuple):
    """What is trained on, and how."""

    model: str
    groups: int
    samples: int
    prompt: int
    new_tokens: int
    microbatches: int
    remat: str
    chunk: int
    steps: int
    equal: int
    full: bool


def training_batch(work: Work, vocabulary: int) -> TrainBatch:
    """Groups of one prompt each; a completion has a third of the new tokens on average, or all.  Host arrays."""
    rng = np.random.default_rng(0)
    rows, width = work.groups * work.samples, work.prompt + work.new_tokens
    tokens = rng.integers(vocabulary, size=(rows, width)).astype(np.int32)
    tokens[:, : work.prompt] = np.repeat(tokens[: work.groups, : work.prompt], work.samples, axis=0)
    lengths = rng.integers(1, max(2 * work.new_tokens // 3, 2), rows).astype(np.int32)
    if work.full:
        lengths = np.full(rows, work.new_tokens, np.int32)
    zeros = np.zeros((rows, work.new_tokens), np.float32)
    group = np.repeat(np.arange(work.groups, dtype=np.int32), work.samples)
    return TrainBatch(
        sequences=cut_rows(Sequences(tokens, np.full(rows, work.prompt, np.int32), lengths)),
        row_mask=np.ones(rows, bool),
        informative=group >= work.equal,
        group=group,
        reward=rng.integers(2, size=rows).astype(np.float32),
        sampler_logprobs=zeros,
        place=np.arange(work.groups, dtype=np.int32),
        group_mask=np.ones(work.groups, bool),
        reasoning_step=zeros.astype(np.int32),
        follow_ups=FollowUps.none(zeros.shape),
        old_logprobs=zeros - 2,
        reference_logprobs=zeros,
        old_values=zeros,
        advantages=rng.normal(size=zeros.shape).astype(np.float32),
        returns=zeros,
    )


def load(work: Work) -> tuple[Model, PyTree]:
    """The model and its weights."""
    mesh, execution = make_mesh(MeshConfig()), {"remat": work.remat}
    if not work.model:
        model = model_on(DecoderConfig(**vars(SMALL) | execution), mesh)
        rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0))
        return model, jax.tree.map(lambda x: jnp.asarray(rng.normal(scale=0.05, size=x.shape), x.dtype), shapes)
    source = open_model(work.model)
    model = model_on(decoder_config(source, **execution), mesh)
    return model, source.weights(model, mesh)


class Prepared(NamedTuple):
    """A form that is ready to run.

    Attributes:
        scoring, update: run it once.
        found: its name, and what is known of it before it runs.
    """

    scoring: Callable[[], None]
    update: Callable[[], None]
    found: dict[str, Any]


def prepared(form: str, work: Work, model: Model, params: PyTree) -> Prepared:
    """Scoring and update of a form, compiled; the weights are given away."""
    optimizer, algorithm = OptimizerConfig().build(100), Rloo().build()
    config = UpdateConfig(microbatches=work.microbatches, chunk=work.chunk, pack=form != "plain")
    batch = training_batch(work, params["trunk"]["embedding"].shape[0])
    key = jax.random.key(0)
    plans, scored = None, None
    if config.pack:
        blocks = (np.asarray(deal(key, batch.informative, config)), prepare_blocks(len(batch.row_mask), config))
        plans, scored = (pack_blocks(informative_sequences(batch), rows, share=form == "shared") for rows in blocks)

    def step(policy: Trainable, batch: TrainBatch, plans: PackedRows | None) -> Trainable:
        return update(
            model, algorithm, optimizer, policy, None, batch, key, plans, config=config, temperature=1.0
        )[0]  # fmt: skip

    def score(params: PyTree, batch: TrainBatch, plans: PackedRows | None) -> TrainBatch:
        return prepare(model, algorithm, params, None, None, batch, plans, config=config, temperature=1.0)[0]

    tokens = batch.sequences.tokens if plans is None else plans.sequence
    batch, plans, scored = jax.tree.map(jnp.asarray, (batch, plans, scored))
    policy = Trainable(params=params, optimizer=jax.jit(optimizer.init)(params))
    began = time.process_time()
    run = jax.jit(step, donate_argnums=0).lower(policy, batch, plans).compile()
    compiled = time.process_time() - began
    run_scoring = jax.jit(score).lower(policy.params, batch, scored).compile()

    def take_step() -> None:
        nonlocal policy
        policy = jax.block_until_ready(run(policy, batch, plans))

    def take_scores() -> None:
        jax.block_until_ready(run_scoring(policy.params, batch, scored))

    found = {
        "packing": form,
        "tokens": tokens.size,
        "shape": list(tokens.shape if plans is None else tokens.shape[1:]),
        "compile_cpu_seconds": compiled,
        "temporary_bytes": getattr(run.memory_analysis(), "temp_size_in_bytes", None),
    }
    return Prepared(take_scores, take_step, found)


def measure(form: str, work: Work) -> dict[str, Any]:
    """Updates in this process."""
    ready = prepared(form, work, *load(work))
    seconds = turns([ready], work.steps)[0]
    medians = {f"{name}_cpu_seconds": statistics.median(values) for name, values in seconds.items()}
    return ready.found | {
        "cpu_seconds": medians["update_cpu_seconds"],
        "scoring_cpu_seconds": medians["scoring_cpu_seconds"],
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def turns(forms: Sequence[Prepared], steps: int) -> list[dict[str, list[float]]]:
    """CPU seconds of scoring, update and both, by form; each form runs once a turn, and the first does not count."""
    found: list[dict[str, list[float]]] = [{"scoring": [], "update": [], "both": []} for _ in forms]
    for turn in range(1 + steps):
        for form, seconds in zip(forms, found, strict=True):
            began = time.process_time()
            form.scoring()
            scored = time.process_time()
            form.update()
            if turn:
                ended = time.process_time()
                parts = {"scoring": scored - began, "update": ended - scored, "both": ended - began}
                for name, value in parts.items():
                    seconds[name].append(value)
    return found


def together(forms: Sequence[str], work: Work) -> Iterator[dict[str, Any]]:
    """Each form's medians, and how many times less than the first it takes, turn by turn: median, least, most."""
    model, params = load(work)
    ready = [prepared(form, work, model, jax.tree.map(jnp.copy, params)) for form in forms]
    found = turns(ready, work.steps)
    for form, seconds in zip(ready, found, strict=True):
        medians = {f"{name}_cpu_seconds": statistics.median(values) for name, values in seconds.items()}
        less = {}
        for name, values in seconds.items():
            ratios = [first / own for first, own in zip(found[0][name], values, strict=True)]
            less[f"{name}_times_less"] = [round(f(ratios), 3) for f in (statistics.median, min, max)]
        yield {"packing": form.found["packing"], "tokens": form.found["tokens"], **medians, **less}


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="Hugging Face directory; empty: a small decoder")
    parser.add_argument("--remat", default="none", choices=("none", "products", "layers"), help="see --model.remat")
    for name, default in (("groups", 4), ("samples", 8), ("prompt", 112), ("new-tokens", 32), ("microbatches", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chunk", type=int, default=UpdateConfig().chunk)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--equal", type=int, default=0, help="groups of equal rewards, which no packed form computes")
    parser.add_argument("--forms", default=",".join(FORMS), help="in this order")
    parser.add_argument("--full", action="store_true", help="completions have all new tokens")
    parser.add_argument("--core", type=int, help="pin to this core, and compute with one thread")
    parser.add_argument("--together", action="store_true", help="all forms in this process, in turns")
    parser.add_argument("--inside", action="store_true", help="measure the one form in this process")
    arguments = vars(parser.parse_args())
    inside, forms = arguments.pop("inside"), arguments.pop("forms").split(",")
    alternating, core = arguments.pop("together"), arguments.pop("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
        os.environ["NPROC"] = "1"  # read when the first array is made
    for form in forms:
        if form not in FORMS:
            raise unknown_name("form", form, FORMS)
    if inside:
        print(to_json(measure(forms[0], Work(**arguments))))
        return
    if alternating:
        for record in together(forms, Work(**arguments)):
            print(to_json(record), flush=True)
        return
    full = ["--full"] if arguments.pop("full") else []
    given = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()] + full
    found = []
    for form in forms:
        command = [sys.executable, "-m", "benchmarks.packing", "--inside", "--forms", form, *given]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        print(line, flush=True)
        found.append(json.loads(line))
    for other in found[1:]:
        ratios = {
            name: round(other[name] / found[0][name], 3)
            for name in ("tokens", "cpu_seconds", "temporary_bytes", "peak_resident_bytes")
        }
        print(to_json({"packing": f"{other['packing']} / {found[0]['packing']}", **ratios}), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
