"""A model without a run: completions of prompts, and log-probs of given tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lilo_jax.config import RolloutConfig
from lilo_jax.keys import stream_key
from lilo_jax.mesh import MeshConfig, make_mesh, put_replicated, put_rows
from lilo_jax.pretrained import PretrainedModel, decoder_config
from lilo_jax.programs import InferencePrograms, InferenceSettings, build_inference
from lilo_jax.types import Completions, Prompts, PyTree, Requests, Sequences

ROWS = 64
"""Prompts, or sequences, of one device call."""


class LoadedModel(NamedTuple):
    """A model on the devices.

    Attributes:
        params: its weights.
        programs: what runs it.
        mesh: where.
    """

    params: PyTree
    programs: InferencePrograms
    mesh: Mesh


def load(
    source: PretrainedModel,
    *,
    dtype: str = "float32",
    rollout: RolloutConfig | None = None,
    known_ids: int = 0,
    end_ids: tuple[int, ...] = (),
) -> LoadedModel:
    """The model on all devices, ready to run.

    Args:
        source: see `lilo_jax.pretrained.open_model`.
        dtype: of activations: float32 or bfloat16.
        rollout: how completions are sampled; not read by `logprobs`.
        known_ids, end_ids: of the tokenizer; see `lilo_jax.sampling.sample`.
    """
    config = decoder_config(source, compute_dtype=dtype)
    mesh = make_mesh(MeshConfig(data=1, fsdp=jax.device_count()))
    settings = InferenceSettings(config, rollout or RolloutConfig(), end_ids, known_ids or config.vocab_size)
    programs = build_inference(settings, mesh)
    return LoadedModel(source.weights(programs.model, mesh), programs, mesh)


def generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], *, rollout: RolloutConfig, samples: int, seed: int
) -> Iterator[Completions]:
    """Completions of each prompt, `samples` rows, in the order of the prompts; host arrays.

    A completion depends on the model, the prompt, its place among the prompts and the seed, not on what else is asked.

    Args:
        loaded: from `load`, with the same `rollout`.
        prompts: token ids, at least one each.
        rollout: how they are sampled.
        samples: completions of each prompt.
        seed: of the draws.
    """
    slots = _bucket(max(map(len, prompts), default=1))
    key = stream_key(seed, "generate")
    for start in range(0, len(prompts), ROWS):
        part = prompts[start : start + ROWS]
        rows = min(ROWS, _bucket(len(part)))
        tokens, lengths = _padded(part, rows, slots)
        prompt = np.repeat(np.arange(rows), samples).astype(np.int32)
        requests = Requests(
            prompt=prompt,
            prefix_length=np.maximum(lengths[prompt], 1),
            id=(start * samples + np.arange(rows * samples)).astype(np.int32),
            budget=np.where(prompt < len(part), rollout.max_new_tokens, 0).astype(np.int32),
            expected_length=np.zeros(rows * samples, np.float32),
        )
        placed = put_rows(loaded.mesh, Prompts(tokens=tokens, lengths=lengths)), put_replicated(loaded.mesh, requests)
        completions = jax.device_get(loaded.programs.sample(loaded.params, *placed, key, None, rule=rollout.rule))
        for i in range(len(part)):
            yield jax.tree.map(lambda x, i=i: x[i * samples : (i + 1) * samples], completions)


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
        tokens, lengths = _padded([rows[i] for i in part], ROWS, _bucket(max(len(rows[part[-1]]), 2)))
        sequences = Sequences(
            tokens=tokens, prompt_lengths=np.ones_like(lengths), completion_lengths=np.maximum(lengths - 1, 0)
        )
        placed = put_rows(loaded.mesh, sequences)
        slots = tokens.shape[1] - 1
        scores = loaded.programs.score(loaded.params, placed, completion_slots=slots, temperature=1.0)
        found = np.asarray(scores.logprobs)
        for row, i in enumerate(part):
            results[i] = found[row, : len(rows[i]) - 1]
    return results


def _padded(rows: Sequence[Sequence[int]], count: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int32 [count, slots] with their lengths; those beyond the given ones are empty."""
    tokens, lengths = np.zeros((count, slots), np.int32), np.zeros(count, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], lengths[i] = row, len(row)
    return tokens, lengths


def _bucket(size: int) -> int:
    """The next power of two: few sizes mean few compilations."""
    return 1 << max(size - 1, 0).bit_length()
