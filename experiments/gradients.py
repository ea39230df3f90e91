"""What Foster et al. 2025 say of gradients, measured on a model: a question's rollouts, its success and its gradients.

Where one sequence of tokens is right, success rates and values are known exactly: p is that sequence's probability, and
the value of a state is that of what is left of it, or 0 once it was left.  Else p is the mean of a question's rollouts,
and what needs values or the gradients of single tokens is left out.
"""

import functools
import math
import operator
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from lilo_jax.config import Config, of_run
from lilo_jax.device.gradients import gradient_products
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import response_text
from lilo_jax.pretrained.inference import LoadedModel, generate, load
from lilo_jax.pretrained.sources import open_model
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.tokenizers.encoding import encode_pairs, question_ids
from lilo_jax.training.lengths import chat_of
from lilo_jax.types import Completions, Sequences

QUESTIONS, SAMPLES = 96, 8
"""Of a checkpoint: training questions, the first, and rollouts of each."""
TELL_SECONDS = 60.0


class Gradients(NamedTuple):
    """Q questions, G rollouts of each, T tokens at most; all float64.

    Attributes:
        success: p, [Q].
        reward: [Q, G].
        response: ||sum_t g_t||^2, [Q, G].
        squares: estimator to ||gradient||^2 of each question, [Q]; "exact" is that of the expectation.
        tokens: what is known of single tokens where one sequence is right.
    """

    success: Float[np.ndarray, "Q"]
    reward: Float[np.ndarray, "Q G"]
    response: Float[np.ndarray, "Q G"]
    squares: dict[str, Float[np.ndarray, "Q"]]
    tokens: "TokenGradients | None" = None

    @property
    def learnability(self) -> Float[np.ndarray, "Q"]:
        """P (1 - p)."""
        return self.success * (1 - self.success)


class TokenGradients(NamedTuple):
    """Of single tokens.

    Attributes:
        mask: tokens that there are, [Q, G, T].
        increments: A_t = V(s_{t+1}) - V(s_t), exact, [Q, G, T].
        products: g_t . g_t', [Q, G, T, T].
    """

    mask: Bool[np.ndarray, "Q G T"]
    increments: Float[np.ndarray, "Q G T"]
    products: Float[np.ndarray, "Q G T T"]


class Correlation(NamedTuple):
    """Pearson's, of `n` pairs; `p` is the probability of one as large by chance (two-sided, t-distribution)."""

    r: float
    p: float
    n: int


def correlation(x: np.ndarray, y: np.ndarray) -> Correlation:
    """Of two arrays of one shape; NaN if one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, x.size)
    found = scipy.stats.pearsonr(x.ravel(), y.ravel())
    return Correlation(float(found.statistic), float(found.pvalue), x.size)


@functools.lru_cache(maxsize=16)
def of_checkpoint(path: str) -> Gradients:
    """The gradients of a run's last checkpoint on its first training questions."""
    config = of_run(RunDirectory(path))
    task = config.task.build(config.seed)
    source = open_model(path)
    tokenizer = source.tokenizer()
    loaded = load(source, tokenizer=tokenizer, stop=config.rollout.stop)
    questions, chat, width = task.splits["train"][:QUESTIONS], chat_of(config, task), config.rollout.max_new_tokens
    prompts = [question_ids(tokenizer, question, chat=chat) for question in questions]
    rule = config.rollout
    temperature, top_p = (1.0, 1.0) if task.unique_answers else (rule.temperature, rule.top_p)  # exact rates are at 1
    protocol = Protocol(SAMPLES, temperature, top_p, width, stop=rule.stop, seed=config.seed)
    drawn = list(generate(loaded, prompts, protocol))
    rollouts = _Rollouts(
        np.stack([np.asarray(c.tokens)[:, :width] for c in drawn]), np.stack([np.asarray(c.lengths) for c in drawn])
    )
    if task.unique_answers:
        right = encode_pairs(tokenizer, [(q.prompt, q.answer) for q in questions], chat=chat)
        return _exact(loaded, prompts, rollouts, right)
    reward = np.array([_rewards(task, tokenizer, config, q, own) for q, own in zip(questions, drawn, strict=True)])
    return _sampled(loaded, prompts, rollouts, reward, temperature)


class _Rollouts(NamedTuple):
    """Tokens [Q, G, T] and lengths [Q, G]."""

    tokens: np.ndarray
    lengths: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return np.arange(self.tokens.shape[2]) < self.lengths[..., None]


def _rewards(task: Task, tokenizer: Tokenizer, config: Config, question: Question, drawn: Completions) -> list[float]:
    texts = (
        response_text(tokenizer, tokens[:length].tolist(), ended=bool(ended), stop=config.rollout.stop)
        for tokens, length, ended in zip(drawn.tokens, drawn.lengths, drawn.ended, strict=True)
    )
    return [float(task.grade(question, text) is Verdict.CORRECT) for text in texts]


def _sampled(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], rollouts: _Rollouts, reward: np.ndarray, temperature: float
) -> Gradients:
    whole = np.ones((1, rollouts.tokens.shape[2]))
    products = _products(loaded, _rows(prompts, rollouts), whole, temperature)
    squares = {name: _size(products, own[..., 0]) / reward.shape[1] ** 2 for name, own in advantages(reward).items()}
    return Gradients(reward.mean(axis=1), reward, np.einsum("qgg->qg", products), squares)


def _exact(loaded: LoadedModel, prompts: Sequence[Sequence[int]], rollouts: _Rollouts, right: Sequences) -> Gradients:
    shape = count, samples, width = rollouts.tokens.shape
    scored = loaded.programs.score(loaded.params, right, completion_width=width, temperature=1.0)
    logprobs = np.asarray(scored.logprobs, np.float64)
    success = np.exp(logprobs.sum(axis=1))
    reward, increments = outcome(*rollouts, _completions(right, width), np.asarray(right.completion_lengths), logprobs)
    products = _products(loaded, _rows(prompts, rollouts), np.eye(width), 1.0)
    squares = {
        name: _size(products, np.broadcast_to(own, shape).reshape(count, -1)) / samples**2
        for name, own in (advantages(reward) | {"ppo_vineppo": increments}).items()
    }
    # grad p = p grad log p: the expectation of every unbiased estimator.
    answers = jax.tree.map(lambda x: x[:, None], right)
    squares["exact"] = success**2 * _products(loaded, answers, np.ones((1, width)), 1.0)[:, 0, 0]
    of_tokens = np.einsum("qgtgu->qgtu", products.reshape(count, samples, width, samples, width))
    response = of_tokens.sum(axis=(2, 3))
    return Gradients(success, reward, response, squares, TokenGradients(rollouts.mask, increments, of_tokens))


def _products(
    loaded: LoadedModel, rows: Sequences, sums: Float[np.ndarray, "K T"], temperature: float
) -> Float[np.ndarray, "Q GK GK"]:
    """Of the gradients of each question's responses; tells every minute how far it is."""
    products = gradient_products(loaded.programs.model, sums, temperature=temperature)
    found, told = [], time.monotonic()
    for place in range(len(rows.tokens)):
        group = jax.tree.map(operator.itemgetter(place), rows)
        found.append(np.asarray(products(loaded.params, group), np.float64))
        if time.monotonic() > told + TELL_SECONDS:
            print(f"gradients of {place + 1} of {len(rows.tokens)} questions", file=sys.stderr, flush=True)
            told = time.monotonic()
    return np.stack(found)


def _size(products: Float[np.ndarray, "Q N N"], weights: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q"]:
    """||sum_i w_i g_i||^2 of each question."""
    return np.einsum("qi,qij,qj->q", weights, products, weights)


def advantages(reward: Float[np.ndarray, "Q G"]) -> dict[str, Float[np.ndarray, "Q G 1"]]:
    """What each estimator multiplies the gradients of a rollout's tokens with."""
    mean, size = reward.mean(axis=1, keepdims=True), reward.shape[1]
    deviation = reward.std(axis=1, ddof=1, keepdims=True)
    found = {
        "reinforce": reward,
        "rloo": (reward - mean) * size / (size - 1),
        "grpo_normalised": (reward - mean) / (deviation + 1e-8),
        "grpo_unnormalised": reward - mean,
    }
    return {name: weight[..., None] for name, weight in found.items()}


def outcome(
    tokens: np.ndarray, lengths: np.ndarray, answers: np.ndarray, answer_lengths: np.ndarray, logprobs: np.ndarray
) -> tuple[Float[np.ndarray, "Q G"], Float[np.ndarray, "Q G T"]]:
    """Rewards, and exact increments of the value, of Q x G responses to questions with one right answer each.

        V(s_t) = prod_{k >= t} pi(a*_k) while the response is the answer's beginning, else 0;   V(end) = r

    Args:
        tokens: [Q, G, T], anything beyond `lengths` [Q, G].
        answers: right tokens [Q, T] of `answer_lengths` [Q].
        logprobs: of the answers' tokens, zero beyond them, [Q, T].
    """
    width = tokens.shape[2]
    live = np.arange(width) < lengths[..., None]
    same = (tokens == answers[:, None]) & live & (np.arange(width) < answer_lengths[:, None, None])
    on_way = np.cumprod(np.concatenate([np.ones((*same.shape[:2], 1)), same], axis=2), axis=2)  # before each token
    left = np.cumsum(logprobs[:, ::-1], axis=1)[:, ::-1]
    value = on_way * np.exp(np.pad(left, ((0, 0), (0, 1))))[:, None]
    reward = np.take_along_axis(on_way, answer_lengths[:, None, None].repeat(same.shape[1], 1), axis=2)[..., 0]
    after = np.where(np.arange(1, width + 1) >= lengths[..., None], reward[..., None], value[..., 1:])
    return reward, np.where(live, after - value[..., :-1], 0.0)


def _completions(right: Sequences, width: int) -> np.ndarray:
    """The answers' tokens, [Q, width]."""
    place = right.prompt_lengths[:, None] + np.arange(width)
    return np.take_along_axis(right.tokens, np.minimum(place, right.tokens.shape[1] - 1), axis=1)


def _rows(prompts: Sequence[Sequence[int]], rollouts: _Rollouts) -> Sequences:
    """Prompts with the responses behind them, [Q, G, ...]."""
    count, samples, width = rollouts.tokens.shape
    rows = np.zeros((count, samples, max(map(len, prompts)) + width), np.int32)
    for place, prompt in enumerate(prompts):
        rows[place, :, : len(prompt)] = prompt
        rows[place, :, len(prompt) : len(prompt) + width] = rollouts.tokens[place]
    starts = np.array([[len(prompt)] * samples for prompt in prompts], np.int32)
    return Sequences(rows, starts, rollouts.lengths.astype(np.int32))
