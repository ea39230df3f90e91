"""What can be known of a question before it is rolled out, as columns: text, surprise, hidden states, last visit."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.features import projected, standardized, text_counts
from lilo_jax.curriculum.rules.frontier import DEPTHS
from lilo_jax.evaluation.generations import Generations
from lilo_jax.pretrained.inference import LoadedModel, scores, span_means
from lilo_jax.questions import Verdict

SHARES = (0, 0.25, 0.5, 0.75, 1)
"""Layers whose states are read: shares of the way from the embeddings, 0, to the last layer, 1."""
SPANS = ("prompt", "question", "last 16", "last 8", "last")
"""Tokens over which states are averaged: all, those that not all prompts share, the last ones."""
COMPONENTS = 32
"""Principal components of the states of a layer and span."""
PROJECTED = 64
"""Columns of a random projection, `frontier`'s default."""
VISIT, FRONTIER = "last visit", "frontier's"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Measured(NamedTuple):
    """What is known of Q questions.

    Attributes:
        generations: the responses to each, of an earlier visit first.
        surprise: float64 [Q, responses], of each response the mean of -log p over its tokens.
        layers: read ones, 0 being the embeddings.
        states: float32 [layers, Q, spans, D].
        reading: float32 [Q, 4], see `read_surprise`.
        visit: how many responses are of the earlier visit; the others are what is predicted.
    """

    generations: Sequence[Generations]
    surprise: np.ndarray
    layers: Sequence[int]
    states: np.ndarray
    reading: np.ndarray
    visit: int

    @property
    def correct(self) -> np.ndarray:
        """Float64 [Q, responses]; NaN where the grader failed."""
        responses = [[r.verdict for r in one.responses] for one in self.generations]
        return np.array([[np.nan if v.is_failure else float(v is Verdict.CORRECT) for v in row] for row in responses])

    def of(self, places: np.ndarray) -> "Measured":
        """The same of some of the questions."""
        return self._replace(
            generations=[self.generations[i] for i in places],
            surprise=self.surprise[places],
            states=self.states[:, places],
            reading=self.reading[places],
        )


# ------------------------------------------------------------------------------------------------- read by the model
def spans(prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Begin and end of each span's tokens in each prompt, int [Q, spans, 2].

    The question's own tokens are what stands between the beginning and the end that all prompts share: template, worked
    examples and turns of a chat are left out.
    """
    before, after = _shared(prompts), _shared([ids[::-1] for ids in prompts])
    found = []
    for n in map(len, prompts):
        begin = min(before, n - 1)
        own = (begin, max(n - after, begin + 1))
        found.append([(0, n), own, *((max(n - last, 0), n) for last in (16, 8, 1))])
    return np.array(found)


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike."""
    columns = enumerate(zip(*rows, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, rows)))


def read_states(loaded: LoadedModel, prompts: Sequence[Sequence[int]], depth: int) -> tuple[list[int], np.ndarray]:
    """The layers of `SHARES` of a model of this depth, and their states: float32 [layers, Q, spans, D]."""
    layers = sorted({round(share * depth) for share in SHARES})
    return layers, span_means(loaded, prompts, spans(prompts), layers=layers)


def read_surprise(loaded: LoadedModel, prompts: Sequence[Sequence[int]], pad: int) -> np.ndarray:
    """How the model takes the question: float32 [Q, 4].

    Mean and lowest log-prob of the question's own tokens, mean entropy of what they were predicted by, and entropy of
    the prediction of the response's first token.
    """
    found = []
    for one, (begin, end) in zip(scores(loaded, [[*ids, pad] for ids in prompts]), spans(prompts)[:, 1], strict=True):
        own = slice(max(begin, 1) - 1, max(end, 2) - 1)
        logprobs, entropy = one.logprobs[own], one.entropy[own]
        found.append([logprobs.mean(), logprobs.min(), entropy.mean(), one.entropy[-1]])
    return np.array(found, np.float32)


# ---------------------------------------------------------------------------------------------------- to be learnt from
def features(measured: Measured) -> Iterator[tuple[str, np.ndarray]]:
    """Each kind of features by name: [Q, width], whose columns have variances that sum to 1 for each part of it.

    Nothing in them is an outcome of the rollouts that are predicted.  Scales, components and projections are of all
    questions, as a pool is known before any of it is rolled out.
    """
    counts, visit = _counts(measured), _visit(measured)
    yield "constant", np.zeros((len(counts), 1))
    yield "counts", _scaled(counts)
    yield "prompt entropy", _scaled(measured.reading)
    yield "counts, prompt entropy", _scaled(counts, measured.reading)
    yield from state_features(measured)
    yield frontiers(measured), _scaled(*_frontiers(measured))
    yield VISIT, _scaled(visit)
    yield f"{VISIT}, counts, prompt entropy", _scaled(visit, counts, measured.reading)
    yield f"{VISIT}, {FRONTIER}", _scaled(visit, *_frontiers(measured))


def state_features(measured: Measured) -> Iterator[tuple[str, np.ndarray]]:
    """Hidden states: each layer and span as they are, their principal components, and a random projection."""
    for (i, layer), (j, span) in itertools.product(enumerate(measured.layers), enumerate(SPANS)):
        states, name = measured.states[i, :, j], f"layer {layer}, {span}"
        rotated = _rotated(_scaled(states))
        yield name, rotated
        yield f"{name}, PCA {COMPONENTS}", _unit(rotated[:, :COMPONENTS])
        yield f"{name}, random {PROJECTED}", _scaled(np.asarray(projected(states, PROJECTED)))


def frontiers(measured: Measured) -> str:
    """The name of what `frontier` predicts from."""
    return f"layers {', '.join(map(str, _read(measured)))}, prompt, random {PROJECTED}"


def _read(measured: Measured) -> tuple[int, ...]:
    return Wants(hidden=PROJECTED, depths=DEPTHS).layers(measured.layers[-1])


def _frontiers(measured: Measured) -> list[np.ndarray]:
    whole = measured.states[:, :, SPANS.index("prompt")]
    return [np.asarray(projected(whole[list(measured.layers).index(layer)], PROJECTED)) for layer in _read(measured)]


def _counts(measured: Measured) -> np.ndarray:
    """Of the text: its counts, and the logarithms of one plus its largest and smallest number."""
    rows = []
    for one in measured.generations:
        text = one.question.text or one.question.prompt
        numbers = [float(number) for number in _NUMBER.findall(text)] or [0.0]
        rows.append([*text_counts(text), *np.log1p([max(numbers), min(numbers)])])
    return np.array(rows)


def _visit(measured: Measured) -> np.ndarray:
    """Of the earlier visit: rate of success, mean length, mean surprise of its responses."""
    lengths = [[r.tokens for r in one.responses[: measured.visit]] for one in measured.generations]
    success = np.nanmean(measured.correct[:, : measured.visit], axis=1)
    return np.stack([success, np.mean(lengths, axis=1), measured.surprise[:, : measured.visit].mean(axis=1)], axis=1)


def _scaled(*blocks: np.ndarray) -> np.ndarray:
    return standardized(blocks)[:, :-1]


def _rotated(columns: np.ndarray) -> np.ndarray:
    """The same questions in their principal axes: a ridge regression does not see the difference."""
    axes, lengths, _ = np.linalg.svd(columns, full_matrices=False)
    return axes * lengths


def _unit(columns: np.ndarray) -> np.ndarray:
    """With variances that sum to 1."""
    total = columns.var(axis=0).sum()
    return columns / np.sqrt(total) if total > 0 else columns
