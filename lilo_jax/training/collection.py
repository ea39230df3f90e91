"""Rounds of propose, sample, grade and measure, until a step has the groups it needs; then the training batch.

Tokens of a step live on the host between sampling and training: they pass through the grader anyway, and only small
statistics go back to the device for selection.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from lilo_jax.curriculum.statistics import nothing_collected
from lilo_jax.device.mesh import put_replicated
from lilo_jax.device.programs import Programs
from lilo_jax.errors import RunError
from lilo_jax.evaluation.judge import Judge
from lilo_jax.evaluation.responses import Answer, Graded, settled
from lilo_jax.evaluation.sampler import Sampler, sample
from lilo_jax.keys import stream_key
from lilo_jax.models.packing import prompt_width
from lilo_jax.questions import Verdict
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.tasks.noise import ROLLOUT
from lilo_jax.tokenizers.encoding import EncodedQuestions
from lilo_jax.types import (
    Admission,
    Completions,
    Estimate,
    FollowUps,
    GroupStatistics,
    Prompts,
    Proposal,
    PyTree,
    Requests,
    Sequences,
    TrainBatch,
    TrainState,
)


@dataclasses.dataclass
class Rollout:
    """One completion with everything known about it."""

    group: int
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    sampler_logprobs: np.ndarray
    ended: bool
    response: str
    verdict: Verdict
    reward: float

    @property
    def graded(self) -> bool:
        """Whether the grader came to a verdict about the answer."""
        return not self.verdict.is_failure


@dataclasses.dataclass
class Collected:
    """The groups of a step.

    Attributes:
        statistics: GroupStatistics, on the device.
        place, round: int32 [K], host copies; -1 in empty entries.
        rollouts: all of them, in the order in which they were requested.
        prefilled: prompt tokens that were run, by group.
    """

    statistics: GroupStatistics
    place: np.ndarray
    round: np.ndarray
    rollouts: list[Rollout]
    prefilled: np.ndarray


class Collector(NamedTuple):
    """What rolls out questions of the pool and judges the responses.

    Attributes:
        programs: compiled functions, with the curriculum.
        pool: the training questions.
        sampler, judge: of their responses.
        rollout: how many of what.
    """

    programs: Programs
    pool: EncodedQuestions
    sampler: Sampler
    judge: Judge
    rollout: RolloutConfig


def collect(collector: Collector, state: TrainState, policy: PyTree, step: int, clock: PhaseClock) -> Collected:
    """Serves the curriculum's proposals for one step; `policy` are the weights that `state` holds."""
    programs, seed = collector.programs, collector.judge.seed
    curriculum = programs.curriculum
    collected = _nothing_collected(collector, state)
    for round_index in range(curriculum.max_rounds):
        with clock.phase("select"):
            key = stream_key(seed, "propose", step, round_index)
            asked = programs.propose(state.curriculum, collected.statistics, key)
            proposal = jax.device_get(asked)
        if not proposal.mask.any():
            break
        with clock.phase("sample"):
            expected = jax.device_get(programs.expected_lengths(state.curriculum, asked.places))
            calls = _open_groups(collector, collected, proposal, expected, round_index)
            key = stream_key(seed, "sample", step)
            running = [sample(collector.sampler, policy, call.prompts, call.requests, key) for call in calls]
        grading = []
        for call, completions in zip(calls, running, strict=True):
            with clock.phase("sample"):
                completions = jax.device_get(completions)
            with clock.phase("grade"):
                grading.append((call, completions, _submit(collector, collected, call, completions)))
        with clock.phase("grade"):
            for call, completions, graded in grading:
                collected.rollouts += _rollouts(collector, collected, call, completions, graded, step)
        with clock.phase("select"):
            collected.statistics = _measure(collector, collected)
    return collected


def _submit(collector: Collector, collected: Collected, call: "Call", completions: Completions) -> list[Graded]:
    """Starts the grading of a call's completions."""
    answers = []
    for row in call.rows:
        question = collector.pool.questions[collected.place[call.group(row)]]
        ids = completions.tokens[row, : completions.lengths[row]].tolist()
        answers.append(Answer(question, ids, bool(completions.ended[row])))
    return collector.judge.submit(answers)


def _rollouts(
    collector: Collector,
    collected: Collected,
    call: "Call",
    completions: Completions,
    graded: list[Graded],
    step: int,
) -> list[Rollout]:
    """What became of a call's requests, in their order."""
    rollouts = []
    for row, one, judgement in zip(call.rows, graded, settled(graded), strict=True):
        prompt, length = call.requests.prompt[row], completions.lengths[row]
        prompt_ids = call.prompts.tokens[prompt, : call.prompts.lengths[prompt]]
        tokens, logprobs = completions.tokens[row, :length], completions.logprobs[row, :length]
        question = collector.pool.questions[collected.place[call.group(row)]]
        draw = (step, ROLLOUT, int(call.requests.id[row]))
        response = one.response
        verdict, reward = collector.judge.rewarded(question, response, judgement.verdict, int(length), draw)
        ended = bool(completions.ended[row])
        group, (ids, sampled, scores) = call.group(row), map(np.asarray, (prompt_ids, tokens, logprobs))
        rollouts.append(Rollout(group, ids, sampled, scores, ended, response, verdict, reward))
    return rollouts


def _nothing_collected(collector: Collector, state: TrainState) -> Collected:
    nothing = nothing_collected(collector.programs.curriculum, state.curriculum)
    empty = np.asarray(nothing.place)
    return Collected(
        put_replicated(collector.sampler.mesh, nothing), empty.copy(), empty.copy(), [], np.zeros(len(empty), np.int64)
    )


@dataclasses.dataclass
class Call:
    """The requests of one sampling call, padded to a size that recurs.

    Attributes:
        groups: which group each prompt belongs to; prompts beyond them are padding.
        prompts, requests: host arrays.
    """

    groups: np.ndarray
    prompts: Prompts
    requests: Requests

    @property
    def rows(self) -> np.ndarray:
        """The rows of `requests` that are not padding."""
        return np.flatnonzero(self.requests.budget)

    def group(self, row: int) -> int:
        """The group of a request."""
        return int(self.groups[self.requests.prompt[row]])


def _open_groups(
    collector: Collector, collected: Collected, proposal: Proposal, expected: np.ndarray, round_index: int
) -> list[Call]:
    """Gives every proposed question its group, and makes its requests."""
    wanted = np.flatnonzero(proposal.mask)
    places, samples, continues = (
        np.asarray(x)[wanted] for x in (proposal.places, proposal.samples, proposal.continues)
    )
    first_free = int(np.sum(collected.place >= 0))
    opened = continues < 0
    groups = np.where(opened, first_free + np.cumsum(opened) - 1, continues)
    _check_proposal(collector, collected, places, continues)
    collected.place[groups], collected.round[groups[opened]] = places, round_index
    collected.prefilled[groups] += collector.pool.lengths[places]

    already = np.bincount([rollout.group for rollout in collected.rollouts], minlength=len(collected.place))
    capacity = collector.programs.curriculum.max_samples
    if np.any(already[groups] + samples > capacity):
        raise RunError(f"the curriculum asked for more than the {capacity} rollouts per group that it declared")
    first_ids = groups * capacity + already[groups]
    parts = np.array_split(np.arange(len(wanted)), min(collector.rollout.calls, len(wanted)))
    return [
        _call(collector, groups[p], places[p], samples[p], first_ids[p], expected[wanted[p]], len(proposal.mask))
        for p in parts
    ]


def _call(
    collector: Collector,
    groups: np.ndarray,
    places: np.ndarray,
    samples: np.ndarray,
    first_ids: np.ndarray,
    expected: np.ndarray,
    size: int,
) -> Call:
    """The sampling call for some questions, `samples` of each, whose requests are numbered from `first_ids` on."""
    num_prompts, num_requests = _padded_sizes(collector, size, len(places), int(samples.sum()))
    prompt_of = np.repeat(np.arange(len(places)), samples)
    sample_of = np.concatenate([np.arange(n) for n in samples])

    def column(values: np.ndarray, dtype: type = np.int32) -> np.ndarray:
        return np.pad(values, (0, num_requests - len(values))).astype(dtype)

    requests = Requests(
        prompt=column(prompt_of),
        prefix_length=np.maximum(column(collector.pool.lengths[places][prompt_of]), 1),
        id=column(first_ids[prompt_of] + sample_of),
        budget=column(np.full(len(prompt_of), collector.rollout.max_new_tokens)),
        expected_length=column(expected[prompt_of], np.float32),
    )
    extra, lengths = num_prompts - len(places), collector.pool.lengths[places]
    tokens = collector.pool.tokens[places, : prompt_width(lengths, collector.pool.tokens.shape[1])]
    prompts = Prompts(tokens=np.pad(tokens, ((0, extra), (0, 0))), lengths=np.pad(lengths, (0, extra)))
    return Call(groups, prompts, requests)


def _check_proposal(collector: Collector, collected: Collected, places: np.ndarray, continues: np.ndarray) -> None:
    """Stops at a curriculum's mistake, which would otherwise credit rollouts to the wrong question or repeat them."""
    pool_size, joining = len(collector.pool.lengths), continues >= 0
    if np.any((places < 0) | (places >= pool_size)):
        raise RunError(f"the curriculum proposed a question outside of its pool of {pool_size}")
    joined = continues[joining]
    if np.any(joined >= len(collected.place)) or np.any(collected.place[joined] != places[joining]):
        raise RunError("the curriculum continued a group that is not of the question it named")
    if len(np.unique(joined)) < len(joined):
        raise RunError("the curriculum continued a group twice in one proposal")


def _padded_sizes(collector: Collector, size: int, prompts: int, requests: int) -> tuple[int, int]:
    """Prompts and requests of the smallest rung that holds these: a call's share of |B|, times 2^k, at most the
    share of the proposal's own size.

    Few rungs mean few compilations; every step of uniform and of LILO is on the same one.
    """
    rollout, most = collector.rollout, collector.programs.curriculum.max_samples
    share, size = -(-rollout.questions // rollout.calls), -(-size // rollout.calls)
    scale = 1
    while share * scale < prompts or share * rollout.samples * scale < requests:
        scale *= 2
    return max(min(share * scale, size), prompts), max(min(share * rollout.samples * scale, size * most), requests)


def _measure(collector: Collector, collected: Collected) -> GroupStatistics:
    """Statistics of all groups so far, from rows padded to the step's capacity."""
    capacity = len(collected.place) * collector.programs.curriculum.max_samples
    rollouts = collected.rollouts

    def column(values: list, dtype: type) -> np.ndarray:
        return np.pad(np.array(values, dtype), (0, capacity - len(values)))

    columns = {
        "place": collected.place,
        "round": collected.round,
        "group": column([r.group for r in rollouts], np.int32),
        "reward": column([r.reward for r in rollouts], np.float32),
        "correct": column([r.verdict is Verdict.CORRECT for r in rollouts], bool),
        "graded": column([r.graded for r in rollouts], bool),
        "length": column([len(r.completion_ids) for r in rollouts], np.int32),
        "row_mask": column([True] * len(rollouts), bool),
    }
    return collector.programs.statistics(**put_replicated(collector.sampler.mesh, columns))


# --------------------------------------------------------------------------------------------------- training batch
def training_batch(
    collector: Collector, collected: Collected, admission: Admission, believed: Estimate | None = None
) -> TrainBatch:
    """The rows of the admitted groups, group after group, padded to the curriculum's `train_rows`; host arrays.

    Args:
        collector: for the sizes.
        collected: the groups of the step.
        admission: which are trained on.
        believed: what was believed of each collected group's question, if the algorithm asks.
    """
    if len(np.unique(admission.indices[admission.mask])) < admission.mask.sum():
        raise RunError("the curriculum admitted the same group twice")
    admitted = {int(g): q for q, (g, live) in enumerate(zip(admission.indices, admission.mask, strict=True)) if live}
    rows = sorted((r for r in collected.rollouts if r.group in admitted), key=lambda r: admitted[r.group])
    num_rows = collector.programs.curriculum.train_rows
    if len(rows) > num_rows:
        raise RunError(f"the curriculum admitted {len(rows)} rollouts, more than the {num_rows} that it declared")
    prompt_width, width = collector.pool.tokens.shape[1], collector.rollout.max_new_tokens
    tokens = np.zeros((num_rows, prompt_width + width), np.int32)
    logprobs = np.zeros((num_rows, width), np.float32)
    for i, row in enumerate(rows):
        prompt_length, length = len(row.prompt_ids), len(row.completion_ids)
        tokens[i, :prompt_length] = row.prompt_ids
        tokens[i, prompt_length : prompt_length + length] = row.completion_ids
        logprobs[i, :length] = row.sampler_logprobs

    def column(values: list, dtype: type) -> np.ndarray:
        return np.pad(np.array(values, dtype), (0, num_rows - len(values)))

    zeros, graded = np.zeros((num_rows, width), np.float32), column([r.graded for r in rows], bool)
    return TrainBatch(
        sequences=Sequences(
            tokens=tokens,
            prompt_lengths=np.maximum(column([len(r.prompt_ids) for r in rows], np.int32), 1),
            completion_lengths=column([len(r.completion_ids) for r in rows], np.int32),
        ),
        row_mask=graded,
        informative=graded,
        group=column([admitted[r.group] for r in rows], np.int32),
        reward=column([r.reward for r in rows], np.float32),
        sampler_logprobs=logprobs,
        place=np.where(admission.mask, collected.place[admission.indices], -1).astype(np.int32),
        group_mask=np.asarray(admission.mask),
        reasoning_step=zeros.astype(np.int32),
        follow_ups=FollowUps.none(zeros.shape),
        old_logprobs=zeros,
        reference_logprobs=zeros,
        old_values=zeros,
        advantages=zeros,
        returns=zeros,
        belief=believed and Estimate(believed.mean[admission.indices], believed.variance[admission.indices]),
    )
