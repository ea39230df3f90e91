"""A model without a run: completions of prompts, and log-probs of given tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lilo_jax.device.inference import InferencePrograms, InferenceSettings, build_inference
from lilo_jax.device.mesh import MeshConfig, make_mesh, put_replicated, put_rows
from lilo_jax.errors import RunError
from lilo_jax.evaluation.completions import bucket, completions_of, padded
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import stop_automaton
from lilo_jax.keys import stream_key
from lilo_jax.pretrained.sources import PretrainedModel, decoder_config
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests, Sequences

ROWS = 64
"""Prompts, or sequences, of one device call."""
SLOTS = 128
"""Completions decoding at a time; more would take memory for little speed."""


class LoadedModel(NamedTuple):
    """A model on the devices.

    Attributes:
        params: its weights.
        programs: what runs it.
        mesh: where.
        stop_table: automaton of the strings that end a completion, or None.
    """

    params: PyTree
    programs: InferencePrograms
    mesh: Mesh
    stop_table: Array | None


def load(
    source: PretrainedModel,
    *,
    dtype: str = "float32",
    tokenizer: Tokenizer | None = None,
    stop: Sequence[str] = (),
    min_new_tokens: int = 0,
) -> LoadedModel:
    """The model on all devices, ready to run.

    Args:
        source: see `lilo_jax.pretrained.sources.open_model`.
        dtype: of activations: float32 or bfloat16.
        tokenizer: of the model, for completions; `logprobs` needs none.
        stop: strings that end a completion.
        min_new_tokens: no end token is drawn before this many tokens.
    """
    config = decoder_config(source, compute_dtype=dtype)
    mesh = make_mesh(MeshConfig(data=1, fsdp=jax.device_count()))
    end_ids, known_ids = (tokenizer.end_ids, tokenizer.vocab_size) if tokenizer else ((), config.vocab_size)
    rollout = RolloutConfig(min_new_tokens=min_new_tokens)
    programs = build_inference(InferenceSettings(config, rollout, end_ids, known_ids), mesh)
    table = stop_automaton(tokenizer, stop, config.vocab_size) if tokenizer else None
    return LoadedModel(source.weights(programs.model, mesh), programs, mesh, put_replicated(mesh, table))


def generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], protocol: Protocol, *, rows: int = ROWS
) -> Iterator[Completions]:
    """Completions of each prompt, in the order of the prompts; host arrays of `protocol.samples` rows.

    A completion depends on the model, the prompt, its place among the prompts and the seed, not on what else is asked.

    Args:
        loaded: from `load`, with the protocol's stop strings.
        prompts: token ids, at least one each.
        protocol: how they are sampled.
        rows: completions of one device call.
    """
    key = stream_key(protocol.seed, "generate")

    def draw(prompts: Prompts, requests: Requests, protocol: Protocol) -> Completions:
        running = loaded.programs.sample(
            loaded.params,
            put_rows(loaded.mesh, prompts),
            put_replicated(loaded.mesh, requests),
            key,
            loaded.stop_table,
            rule=protocol.rule,
            max_new_tokens=protocol.max_new_tokens,
            slots=SLOTS,
        )
        return jax.device_get(running)

    for completions in completions_of(draw, prompts, protocol, rows=rows):
        _check_finite(completions.logprobs)
        yield completions


def logprobs(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The log-prob of every token but the first, given those before it: float32 [n - 1] of each row, in order.

    Args:
        loaded: from `load`.
        rows: token ids, at least one each.
    """
    results: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(rows), ROWS):
        part = by_length[start : start + ROWS]
        tokens, lengths = padded([rows[i] for i in part], ROWS, bucket(max(len(rows[part[-1]]), 2)))
        sequences = Sequences(
            tokens=tokens, prompt_lengths=np.ones_like(lengths), completion_lengths=np.maximum(lengths - 1, 0)
        )
        placed = put_rows(loaded.mesh, sequences)
        width = tokens.shape[1] - 1
        scores = loaded.programs.score(loaded.params, placed, completion_width=width, temperature=1.0)
        found = np.asarray(scores.logprobs)
        for row, i in enumerate(part):
            results[i] = found[row, : len(rows[i]) - 1]
            _check_finite(results[i])
    return results


def _check_finite(logprobs: Array) -> None:
    if not np.isfinite(logprobs).all():
        raise RunError(
            "a log-prob of the model is not a finite number, although all weights are: its activations overflow; try "
            "--dtype float32, or another model"
        )
