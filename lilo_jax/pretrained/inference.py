"""A model without a run: completions of prompts, log-probs of given tokens, hidden states."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lilo_jax.device.inference import InferencePrograms, InferenceSettings, build_inference
from lilo_jax.device.mesh import MeshConfig, make_mesh, put_replicated, put_rows, row_shards
from lilo_jax.errors import RunError
from lilo_jax.evaluation.completions import bucket, completions_of, padded
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import stop_automaton
from lilo_jax.keys import stream_key
from lilo_jax.models.packing import length_blocks
from lilo_jax.pretrained.sources import PretrainedModel, decoder_config
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests, Sequences, TokenScores

ROWS = 64
"""Prompts of one device call."""
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
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], protocol: Protocol, *, rows: int = ROWS, first: int = 0
) -> Iterator[Completions]:
    """Completions of each prompt, in the order of the prompts; host arrays of `protocol.samples` rows.

    A completion depends on the model, the prompt, its place among the prompts and the seed, not on what else is asked.

    Args:
        loaded: from `load`, with the protocol's stop strings.
        prompts: token ids, at least one each.
        protocol: how they are sampled.
        rows: completions of one device call.
        first: place of the first prompt whose completions are wanted.
    """
    key = stream_key(protocol.seed, "generate")

    def draw(prompts: Prompts, requests: Requests, protocol: Protocol) -> Completions:
        running = loaded.programs.sample(
            loaded.params,
            prompts,
            requests,
            key,
            loaded.stop_table,
            rule=protocol.rule,
            max_new_tokens=protocol.max_new_tokens,
            slots=SLOTS,
        )
        return jax.device_get(running)

    for completions in completions_of(draw, prompts, protocol, rows=rows, first=first):
        _check_finite(completions.logprobs)
        yield completions


def logprobs(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The log-prob of every token but the first, given those before it: float32 [n - 1] of each row, in order.

    Args:
        loaded: from `load`.
        rows: token ids, at least one each.
    """
    return [np.asarray(found.logprobs) for found in scores(loaded, rows)]


def scores(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> list[TokenScores]:
    """The log-prob of every token but the first, and the entropy of what it was one of: float32 [n - 1], in order.

    Args:
        loaded: from `load`.
        rows: token ids, at least one each.
    """
    results = [TokenScores(logprobs=np.zeros(0, np.float32), entropy=np.zeros(0, np.float32))] * len(rows)
    sizes = np.array([len(row) for row in rows], int)
    shards = row_shards(loaded.mesh)
    for part, width in length_blocks(sizes, bucket(int(sizes.max(initial=1))), multiple=shards):
        tokens, lengths = padded([rows[i] for i in part], len(part), width)
        sequences = Sequences(
            tokens=tokens, prompt_lengths=np.ones_like(lengths), completion_lengths=np.maximum(lengths - 1, 0)
        )
        placed = put_rows(loaded.mesh, sequences)
        found = jax.device_get(
            loaded.programs.score(loaded.params, placed, completion_width=width - 1, temperature=1.0)
        )
        for row, i in enumerate(part):
            results[i] = jax.tree.map(lambda x, row=row, i=i: x[row, : len(rows[i]) - 1], found)
            _check_finite(results[i].logprobs)
    return results


def span_means(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], spans: np.ndarray, *, layers: Sequence[int]
) -> np.ndarray:
    """Hidden states between the layers, averaged over spans of tokens: float32 [layers, rows, spans, D].

    Args:
        loaded: from `load`.
        rows: token ids, at least one each.
        spans: int [rows, spans, 2]: the places of a span's first token, and of the one after its last.
        layers: 0 for the embeddings, i for the output of the i-th layer, the last one normed.
    """
    width, blocks = bucket(max(map(len, rows))), []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        tokens, _ = padded(part, ROWS, width)
        edges = np.pad(spans[start : start + ROWS].astype(np.int32), ((0, ROWS - len(part)), (0, 0), (0, 0)))
        placed = put_rows(loaded.mesh, (tokens, edges[..., 0], edges[..., 1]))
        blocks.append(loaded.programs.span_means(loaded.params, *placed, layers=tuple(layers))[:, : len(part)])
    found = np.concatenate(jax.device_get(blocks), axis=1)
    _check_finite(found)
    return found


def _check_finite(values: Array) -> None:
    if not np.isfinite(values).all():
        raise RunError(
            "a log-prob or hidden state of the model is not a finite number, although all weights are: its activations "
            "overflow; try --dtype float32, or another model"
        )
