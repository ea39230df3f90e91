"""What every contender is asked to do: shapes of models, sizes of the work, and the inputs, all from fixed seeds.

Only NumPy and the standard library: this module is imported in the peers' interpreters as well.
"""

import dataclasses
import json
import math
from typing import Any, Literal

import numpy as np

FIRST_WORD = 16
"""Prompts hold no id below this one: no padding and no special token."""
PAD, EOS, BOS, UNKNOWN = 0, 1, 2, 3

Device = Literal["cpu", "accelerator"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Llama-shaped decoder with tied embeddings and no biases."""

    num_layers: int
    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    vocab_size: int
    rope_theta: float = 1e6  # the one value that tunix 0.1.7's Llama knows
    norm_epsilon: float = 1e-5


SHAPES = {
    "tiny": Shape(2, 32, 4, 2, 8, 64, 128),
    "small": Shape(8, 512, 8, 4, 64, 1408, 8192),
    "smollm2-135m": Shape(30, 576, 9, 3, 64, 1536, 49_152),
    "qwen2.5-0.5b": Shape(24, 896, 14, 2, 64, 4864, 151_936, norm_epsilon=1e-6),
    "qwen2.5-1.5b": Shape(28, 1536, 12, 2, 128, 8960, 151_936, norm_epsilon=1e-6),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much work.

    Attributes:
        rows, prompt_tokens, new_tokens: a rollout is `rows` requests, each of so many tokens.
        group: samples per prompt where samples share a prompt.
        sequences, microbatch: rows of scoring, of an update and of a whole GRPO step, and how many at a time.
        slots, requests_per_slot, mean_length, longest: requests of unequal length (log-normal), and how many rows
            decode at a time.
        trajectories, boundaries, children, child_tokens: the Monte-Carlo phase restarts each trajectory
            (`prompt_tokens` + `new_tokens`) at each boundary, so many times.
    """

    rows: int = 64
    prompt_tokens: int = 64
    new_tokens: int = 128
    group: int = 8
    sequences: int = 16
    microbatch: int = 8
    slots: int = 16
    requests_per_slot: int = 16
    mean_length: float = 40.0
    longest: int = 256
    trajectories: int = 4
    boundaries: int = 8
    children: int = 9
    child_tokens: int = 64

    @property
    def sequence_tokens(self) -> int:
        """Tokens of a whole sequence."""
        return self.prompt_tokens + self.new_tokens


TINY = Sizes(
    rows=4, prompt_tokens=8, new_tokens=8, group=2, sequences=4, microbatch=2, slots=2, requests_per_slot=3,
    mean_length=4.0, longest=8, trajectories=2, boundaries=2, children=2, child_tokens=4,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """One piece of work for one process; travels as JSON.

    Attributes:
        work: "parity", "roofline", "rollout", "lengths", "monte_carlo", "scoring", "update" or "grpo".
        variant: which way of doing it; each work names its own.
        device: "cpu" (one core, CPU seconds count) or "accelerator" (wall seconds count).
        dtype: of the activations.
    """

    work: str
    variant: str
    shape: Shape
    sizes: Sizes
    device: Device = "cpu"
    dtype: Dtype = "float32"

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Job":
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"shape": Shape(**fields["shape"]), "sizes": Sizes(**fields["sizes"])})


def tokens(job: Job, rows: int, length: int, *, seed: int) -> np.ndarray:
    """Random ids of words, int32 [rows, length]."""
    rng = np.random.default_rng(seed)
    return rng.integers(FIRST_WORD, job.shape.vocab_size, size=(rows, length), dtype=np.int32)


def prompts(job: Job) -> np.ndarray:
    """The distinct prompts of a rollout: one per request, or in the variant "groups" one per group."""
    rows = job.sizes.rows // (job.sizes.group if job.variant == "groups" else 1)
    return tokens(job, rows, job.sizes.prompt_tokens, seed=1)


def sequences(job: Job) -> np.ndarray:
    """Prompts with completions, to be scored or trained on; in the variant "groups" those of a group share a prompt."""
    rows, sizes = tokens(job, job.sizes.sequences, job.sizes.sequence_tokens, seed=2), job.sizes
    if job.variant == "groups":
        prompts = rows[:: sizes.group, : sizes.prompt_tokens]
        rows[:, : sizes.prompt_tokens] = np.repeat(prompts, sizes.group, axis=0)
    return rows


def budgets(sizes: Sizes) -> np.ndarray:
    """Log-normal lengths, int32: log-deviation 1, so most are short and a few reach the cap."""
    normal = np.random.default_rng(3).standard_normal(sizes.slots * sizes.requests_per_slot)
    lengths = sizes.mean_length * np.exp(normal - 0.5)
    return np.clip(np.rint(lengths), 1, sizes.longest).astype(np.int32)


def boundaries(sizes: Sizes) -> list[int]:
    """Lengths of the prefixes from which a trajectory is restarted: equally spaced, the prompt's end first."""
    stride = math.ceil(sizes.new_tokens / sizes.boundaries)
    return [sizes.prompt_tokens + k * stride for k in range(sizes.boundaries)]


def trajectories(job: Job) -> np.ndarray:
    """The sequences that the Monte-Carlo phase restarts."""
    return tokens(job, job.sizes.trajectories, job.sizes.sequence_tokens, seed=4)


def as_text(rows: np.ndarray) -> list[str]:
    """Token ids as words of the word-level tokenizer."""
    return [" ".join(f"w{i}" for i in row) for row in rows]
