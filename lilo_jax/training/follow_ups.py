"""Rollouts from inside the completions: the states an algorithm asks about, their samples, and what they earned.

A trajectory is prefilled once for all the rollouts that start inside it, and states of the same tokens share theirs.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lilo_jax.errors import RunError
from lilo_jax.evaluation.responses import Answer, ResponseGrader, settled
from lilo_jax.evaluation.sampler import sample
from lilo_jax.keys import stream_key
from lilo_jax.models.packing import prompt_width
from lilo_jax.models.scoring import live_tokens
from lilo_jax.sampling import cut_at_stop
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import FOLLOW_UP
from lilo_jax.training.collection import Collector
from lilo_jax.types import Completions, FollowUps, Prompts, PyTree, Requests, TrainBatch


@dataclasses.dataclass
class _State:
    """A place inside a completion from which rollouts start.

    Attributes:
        row: of the training batch, the first that passes through the state.
        prefix: completion tokens that it keeps.
        asked: rollouts so far.
        attempts: those whose grader came to a verdict.
        reward: what these earned together.
        generated: tokens of all of them.
    """

    row: int
    prefix: int
    asked: int = 0
    attempts: int = 0
    reward: float = 0.0
    generated: int = 0


@dataclasses.dataclass
class States:
    """The states that were asked about, and where in the batch each occurs.

    Attributes:
        states: in the order in which they were first asked about.
        index: int32 [B, C], the state in which each token is chosen; -1 where nothing was asked.
        by_tokens: index of the state that follows some tokens of an answer to a question.
    """

    states: list[_State]
    index: np.ndarray
    by_tokens: dict[tuple[int, bytes], int]

    def find(self, batch: TrainBatch, row: int, prefix: int) -> int:
        """The index of the state before completion token `prefix` of a row, which is new if no row had its tokens."""
        start = batch.sequences.prompt_lengths[row] + prefix
        key = (int(batch.place[batch.group[row]]), batch.sequences.tokens[row, :start].tobytes())
        found = self.by_tokens.setdefault(key, len(self.states))
        if found == len(self.states):
            self.states.append(_State(row, prefix))
        self.index[row, prefix] = found
        return found

    def outcomes(self) -> FollowUps:
        """What was found, at every place where a state occurs."""
        columns = [(s.asked, s.attempts, s.reward) for s in self.states]
        asked, attempts, reward = np.array([*columns, (0, 0, 0.0)]).T  # the last stands for -1
        at = self.index
        return FollowUps(
            asked=asked[at].astype(np.int32),
            attempts=attempts[at].astype(np.float32),
            reward_sum=reward[at].astype(np.float32),
        )


def add_follow_ups(
    collector: Collector,
    split: Callable[[str], Sequence[int]],
    policy: PyTree,
    batch: TrainBatch,
    step: int,
    ledger: Ledger,
    clock: PhaseClock,
) -> TrainBatch:
    """Samples and grades what the algorithm asks for from inside the batch's completions; host arrays.

    Args:
        collector: what samples and judges.
        split: text of a response to the offsets at which its steps begin.
        policy: its weights.
        batch: of the step.
        step: its number.
        ledger: books the tokens.
        clock: measures the phases.
    """
    follow_ups = collector.programs.algorithm.follow_ups
    if follow_ups is None:
        return batch
    most = follow_ups.most
    with clock.phase("select"):
        batch = batch.replace(reasoning_step=_reasoning_steps(collector.judge.graders, split, batch))
    found = States([], np.full(batch.reasoning_step.shape, -1, np.int32), {})
    while True:
        with clock.phase("select"):
            wanted = _wanted(collector, batch, found, most)
        if not wanted:
            break
        prompts, requests, owners = _requests(collector, batch, found.states, wanted, most)
        with clock.phase("sample"):
            key = stream_key(collector.judge.seed, "follow_up", step)
            # By default as many at a time as rollouts are trained on: there may be hundreds of children for each.
            running = sample(
                collector.sampler, policy, prompts, requests, key,
                slots=len(batch.row_mask), max_length=batch.sequences.tokens.shape[1],
            )  # fmt: skip
            children = jax.device_get(running)
        ledger.add("follow_up", "prefilled", int(prompts.lengths.sum()))
        ledger.add("follow_up", "generated", int(children.lengths.sum()))
        with clock.phase("grade"):
            _grade(collector, batch, found.states, owners, requests, children, step)
        batch = batch.replace(follow_ups=found.outcomes())
    ledger.add("follow_up", "saved", sum((most - s.asked) * s.generated / s.asked for s in found.states))
    return batch


def _reasoning_steps(graders: ResponseGrader, split: Callable[[str], Sequence[int]], batch: TrainBatch) -> np.ndarray:
    """int32 [B, C]: the step of the response that each token belongs to, as the task cuts it."""
    sequences = batch.sequences
    steps = np.zeros(batch.sampler_logprobs.shape, np.int32)
    for row in np.flatnonzero(batch.row_mask):
        start, length = sequences.prompt_lengths[row], sequences.completion_lengths[row]
        tokens = [graders.token_bytes[i] for i in sequences.tokens[row, start : start + length]]
        steps[row, :length] = step_of_each_token(tokens, split, stop=graders.stop)
    return steps


def step_of_each_token(
    tokens: Sequence[bytes], split: Callable[[str], Sequence[int]], *, stop: Sequence[str] = ()
) -> np.ndarray:
    """Int [n]: the step in which each token begins, counted from 0; one that adds nothing belongs where it stands.

    Args:
        tokens: what each adds to the text, in UTF-8; a character may be spread over several.
        split: text to the offsets at which steps begin.
        stop: strings at which the response ends; what follows belongs to its last step.
    """
    text = b"".join(tokens).decode("utf-8", errors="surrogateescape")
    sizes = [len(character.encode("utf-8", errors="surrogateescape")) for character in text]
    first_byte = np.concatenate([[0], np.cumsum(sizes, dtype=int)])
    begins = first_byte[np.array(split(cut_at_stop(text, stop)), int)]
    token_begins = np.cumsum([0, *map(len, tokens)])[:-1]
    return np.searchsorted(begins, token_begins, side="right") - 1


def _wanted(collector: Collector, batch: TrainBatch, found: States, most: int) -> dict[int, int]:
    """How many more rollouts each state gets; what several rows ask of one state is given once.

    Raises `RunError` at an algorithm's mistake, which would otherwise repeat random numbers or go on for ever.
    """
    requests = collector.programs.follow_up_requests
    assert requests is not None  # as the algorithm has follow-ups
    requested = np.where(live_tokens(batch), jax.device_get(requests(batch)), 0)
    wanted: dict[int, int] = {}
    for row, prefix in np.argwhere(requested > 0).tolist():
        state = found.find(batch, row, prefix)
        wanted[state] = max(wanted.get(state, 0), int(requested[row, prefix]))
        if found.states[state].asked + wanted[state] > most:
            raise RunError(f"the algorithm asked for more than the {most} rollouts of a state that it declared")
    return wanted


def _requests(
    collector: Collector, batch: TrainBatch, states: list[_State], wanted: dict[int, int], most: int
) -> tuple[Prompts, Requests, list[int]]:
    """The sampling call for the wanted rollouts, padded to a size that recurs, and the state that owns each request.

    A row is prefilled once, as far as the last state that starts inside it needs.
    """
    sequences = batch.sequences
    owners = [state for state, number in wanted.items() for _ in range(number)]
    child = np.concatenate([states[s].asked + np.arange(number) for s, number in wanted.items()])
    rows, kept = np.array([(states[s].row, states[s].prefix) for s in owners], np.int32).T
    starts = sequences.prompt_lengths[rows] + kept
    prefixes = np.zeros(len(sequences.tokens), np.int32)
    np.maximum.at(prefixes, rows, starts)
    padding = (0, _recurring_size(len(owners)) - len(owners))
    requests = Requests(
        prompt=np.pad(rows, padding),
        prefix_length=np.pad(starts, padding, constant_values=1),
        id=np.pad(np.array(owners, np.int32) * most + child.astype(np.int32), padding, constant_values=-1),
        kept=np.pad(kept, padding),
        budget=np.pad(collector.rollout.max_new_tokens - kept, padding).astype(np.int32),
        expected_length=np.pad(sequences.completion_lengths[rows] - kept, padding).astype(np.float32),
    )
    width = prompt_width(prefixes, sequences.tokens.shape[1])
    return Prompts(tokens=sequences.tokens[:, :width], lengths=prefixes), requests, owners


def _recurring_size(count: int) -> int:
    """The smallest of 2^k and 3 * 2^k that is at least `count`: few sizes mean few compilations."""
    power = 1 << max(count - 1, 0).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= count else power


def _grade(
    collector: Collector,
    batch: TrainBatch,
    states: list[_State],
    owners: list[int],
    requests: Requests,
    children: Completions,
    step: int,
) -> None:
    """Credits every state with its rollouts; a rollout's response begins with the tokens that its state keeps."""
    sequences, answers = batch.sequences, []
    for i, owner in enumerate(owners):
        row = states[owner].row
        start = sequences.prompt_lengths[row]
        kept = sequences.tokens[row, start : start + states[owner].prefix]
        ids = np.concatenate([kept, children.tokens[i, : children.lengths[i]]]).tolist()
        question = collector.pool.questions[int(batch.place[batch.group[row]])]
        answers.append(Answer(question, ids, bool(children.ended[i])))
    submitted = collector.judge.submit(answers)
    judgements = settled(submitted)
    for i, (owner, answer, graded) in enumerate(zip(owners, answers, submitted, strict=True)):
        draw = (step, FOLLOW_UP, int(requests.id[i]))
        verdict, reward = collector.judge.rewarded(
            answer.question, graded.response, judgements[i].verdict, len(answer.ids), draw
        )
        state = states[owner]
        state.asked += 1
        state.generated += int(children.lengths[i])
        if not verdict.is_failure:
            state.attempts += 1
            state.reward += reward
