"""Rollouts from inside completions: where steps begin, what states share, and what VinePPO makes of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, ModelConfig
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device.mesh import put_replicated
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.measures import wilson
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.evaluation.sampler import sample
from lilo_jax.keys import start_keys, stream_key
from lilo_jax.questions import Verdict
from lilo_jax.rl.contract import FollowUpRequests
from lilo_jax.rl.monte_carlo import until_certain, wilson_width
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.steps import newlines
from lilo_jax.tokenizers import SentencePiece
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import validate
from lilo_jax.training.collection import collect, training_batch
from lilo_jax.training.follow_ups import add_follow_ups, step_of_each_token
from lilo_jax.training.run import run
from lilo_jax.training.trainer import admit
from lilo_jax.types import FollowUps, Prompts

QUESTIONS, SAMPLES, SLOTS = 4, 5, 8


# ------------------------------------------------------------------------------------------------- steps of tokens
def test_a_token_belongs_to_the_step_in_which_it_begins():
    tokens = [b"1+1", b"=2\n", b"so", b"\n\n", b"#### ", b"2", b""]
    # Steps: "1+1=2", "\nso\n\n#### 2"; the token "=2\n" begins in the first and its newline is in the second.
    assert step_of_each_token(tokens, newlines).tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert step_of_each_token([b"a", b"\nb", b"\n", b"c"], newlines).tolist() == [0, 1, 2, 2]
    assert step_of_each_token([], newlines).tolist() == []
    assert step_of_each_token([b""], newlines).tolist() == [0]


def test_characters_may_be_spread_over_tokens():
    euro = "€".encode()
    tokens = [b"5 ", euro[:1], euro[1:], b"\n", "é".encode(), b"\n!"]
    assert step_of_each_token(tokens, newlines).tolist() == [0, 0, 0, 1, 1, 2]
    broken = [euro[:2], b"\nx", b"\xff", b"\ny"]  # no UTF-8 at all
    assert step_of_each_token(broken, newlines).tolist() == [0, 1, 1, 2]


def test_what_follows_a_stop_string_begins_no_step():
    tokens = [b"a", b"\nb", b"\n\nPro", b"blem:", b"\nc"]
    assert step_of_each_token(tokens, newlines, stop=("\n\nProblem:",)).tolist() == [0, 1, 1, 1, 1]
    # The empty line belongs to the step before it, and with it the token that begins there.
    assert step_of_each_token(tokens, newlines).tolist() == [0, 1, 1, 2, 3]


# ------------------------------------------------------------------------------------------------------- the setup
def grade_by_parity(question, response):
    """Chance, as far as an untrained model is concerned: about half of all responses are right."""
    return Verdict.CORRECT if sum(map(ord, question.prompt + response)) % 2 == 0 else Verdict.WRONG


def grade_and_sometimes_fail(question, response):
    return Verdict.TIMEOUT if sum(map(ord, response)) % 3 == 0 else grade_by_parity(question, response)


CONFIG = Config(
    num_steps=3,
    task=Chain(pool=40, validation=8, test=8, longer=4, demonstrations=64),
    model=ModelConfig(
        num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
        train_layers="scanned", decode_layers="scanned",
    ),
    rollout=RolloutConfig(questions=QUESTIONS, samples=SAMPLES, max_new_tokens=SLOTS),
    curriculum=Uniform(),
    algorithm=VinePpo(rollouts=9, whitening="none", kl_coefficient=0.0),
    update=UpdateConfig(chunk=8),
    evaluation=EvaluationConfig(rows=8),
)  # fmt: skip


@functools.cache
def task_and_tokenizer():
    """A tokenizer with few characters, of which some end a completion: many completions begin alike."""
    task = CONFIG.task.build(0)
    texts = [prompt + response for prompt, response in task.demonstrations]
    tokenizer = SentencePiece.train(texts + [q.prompt for q in task.splits["train"]], kind="char", vocab_size=64)
    tokenizer.end_ids = (*tokenizer.end_ids, *(tokenizer.encode(c)[-1] for c in "abc."))
    return task, tokenizer


def assembly_of(algorithm=CONFIG.algorithm, *, curriculum=CONFIG.curriculum, grade=grade_by_parity):
    task, tokenizer = task_and_tokenizer()
    config = dataclasses.replace(CONFIG, algorithm=algorithm, curriculum=curriculum)
    return assemble(config, task=task._replace(grade=grade), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def params(random_weights):
    assembly = assembly_of()
    weights = random_weights(jax.eval_shape(assembly.programs.init, jax.random.key(0)), deviation=0.6)
    return put_replicated(assembly.mesh, weights)


def followed(assembly, params, *, step=0):
    """(batch with follow-ups, sampling calls made for them as (prompts, requests, completions), ledger)."""
    copy = jax.tree.map(lambda x: x + 0, params)
    facts = no_facts(len(assembly.pool.questions))
    state = assembly.programs.start(copy, None, start_keys(1), facts)
    clock, ledger, calls = PhaseClock(), Ledger(), []
    collected = collect(assembly.collector, state, assembly.policy(state), step, clock)
    admission, state = admit(assembly.collector, state, collected, step, clock)
    batch = training_batch(assembly.collector, collected, admission)

    def recording(params, prompts, requests, key, stop_table, **settings):
        completions = assembly.sampler.run(params, prompts, requests, key, stop_table, **settings)
        calls.append(jax.device_get((prompts, requests, completions)))
        return completions

    spied = assembly.collector._replace(sampler=assembly.sampler._replace(run=recording))
    split = assembly.task.steps or newlines
    return add_follow_ups(spied, split, assembly.policy(state), batch, step, ledger, clock), calls, ledger


@pytest.fixture(scope="module")
def nine(params):
    return followed(assembly_of(), params)


def prefix_of(batch, row, t):
    kept = int(batch.sequences.prompt_lengths[row]) + t
    return int(batch.place[batch.group[row]]), tuple(batch.sequences.tokens[row, :kept].tolist())


def places(batch):
    """The states that VinePPO measures on this task: before every token that adds a character, or several at once."""
    return [
        (i, t)
        for i, n in enumerate(batch.sequences.completion_lengths)
        for t in range(n)
        if batch.row_mask[i] and (t == 0 or batch.reasoning_step[i, t] != batch.reasoning_step[i, t - 1])
    ]


def outcomes(assembly, batch, call):
    """(tokens of the prefix) -> rewards of its children, graded anew."""
    _, requests, children = call
    found = {}
    for i in np.flatnonzero(requests.budget):
        row, start = int(requests.prompt[i]), int(batch.sequences.prompt_lengths[requests.prompt[i]])
        key = prefix_of(batch, row, int(requests.prefix_length[i]) - start)
        ids = [*key[1][start:], *children.tokens[i, : children.lengths[i]].tolist()]
        question = assembly.pool.questions[key[0]]
        right = children.ended[i] and grade_by_parity(question, assembly.tokenizer.decode(ids[:-1])) is Verdict.CORRECT
        found.setdefault(key, []).append(float(right))
    return found


# ------------------------------------------------------------------------------------------------------ fixed budget
@pytest.mark.slow
def test_every_state_has_nine_rollouts_and_equal_states_share_them(nine):
    batch, calls, ledger = nine
    assembly, measured = assembly_of(), places(batch)
    assert len(calls) == 1
    rewards = outcomes(assembly, batch, calls[0])
    assert rewards.keys() == {prefix_of(batch, i, t) for i, t in measured}
    assert QUESTIONS < len(rewards) < len(measured) - QUESTIONS * (SAMPLES - 1) + 1  # a question's prompt is one state
    assert {len(r) for r in rewards.values()} == {9}
    assert 0.05 < np.mean([np.mean(r) for r in rewards.values()]) < 0.95
    asked = np.zeros_like(batch.follow_ups.asked)
    for i, t in measured:
        asked[i, t] = 9
        assert batch.follow_ups.reward_sum[i, t] == sum(rewards[prefix_of(batch, i, t)])
    np.testing.assert_array_equal(batch.follow_ups.asked, asked)
    np.testing.assert_array_equal(batch.follow_ups.attempts, asked)
    requests, children = calls[0][1:]
    live = requests.budget > 0
    assert len(set(requests.id[live].tolist())) == live.sum() == 9 * len(rewards)
    assert np.all(children.lengths[live] <= requests.budget[live])
    counts = ledger.to_dict()
    assert counts["follow_up/generated"] == children.lengths.sum()
    assert counts["follow_up/saved"] == 0


@pytest.mark.slow
def test_advantages_are_what_each_step_adds_and_children_are_not_trained_on(nine, params):
    batch, calls, _ = nine
    assembly = assembly_of()
    rewards = outcomes(assembly, batch, calls[0])
    value = np.zeros(batch.follow_ups.asked.shape)
    for i, t in places(batch):
        value[i, t] = np.mean(rewards[prefix_of(batch, i, t)])
    mask = np.arange(SLOTS) < batch.sequences.completion_lengths[:, None]
    facts = no_facts(len(assembly.pool.questions))
    state = assembly.programs.start(jax.tree.map(lambda x: x + 0, params), None, start_keys(1), facts)
    prepared, metrics = assembly.programs.prepare(state, put_replicated(assembly.mesh, batch))
    expected = reference.step_advantages(value, mask, batch.reward, mask, batch.reasoning_step)
    np.testing.assert_allclose(prepared.advantages, expected, atol=1e-6)
    assert batch.sequences.tokens.shape[0] == QUESTIONS * SAMPLES
    mean = {name: float(m.total / m.weight) for name, m in metrics.items()}
    assert mean["follow_up/rollouts"] == 9
    measured = np.array([value[i, t] for i, t in places(batch)])
    assert mean["follow_up/value_mean"] == pytest.approx(measured.mean(), abs=1e-5)
    assert mean["follow_up/value_variance"] == pytest.approx(measured.var(), abs=1e-5)
    assert mean["follow_up/steps"] == pytest.approx(len(measured) / len(batch.reward))


def test_shared_and_separate_prefixes_give_the_same_tokens_and_values(nine, params, capsys):
    """Every state prefilled by itself, as an engine without shared prefixes would, and the cost of either."""
    batch, [(prompts, requests, shared)], ledger = nine
    assembly, live = assembly_of(), np.flatnonzero(requests.budget)
    of_state = {}
    for i in live:
        of_state.setdefault((int(requests.prompt[i]), int(requests.prefix_length[i])), len(of_state))
    tokens = np.zeros((len(of_state), batch.sequences.tokens.shape[1]), np.int32)
    for (row, length), state in of_state.items():
        tokens[state, :length] = batch.sequences.tokens[row, :length]
    lengths = np.array([length for _, length in of_state], np.int32)
    owner = np.zeros(len(requests.budget), np.int32)
    owner[live] = [of_state[int(requests.prompt[i]), int(requests.prefix_length[i])] for i in live]
    own = requests.replace(prompt=owner)
    key = stream_key(CONFIG.seed, "follow_up", 0)
    separate = jax.device_get(sample(assembly.sampler, params, Prompts(tokens, lengths), own, key))
    for name in ("tokens", "lengths", "ended"):
        np.testing.assert_array_equal(getattr(separate, name), getattr(shared, name), err_msg=name)
    np.testing.assert_allclose(separate.logprobs, shared.logprobs, rtol=1e-4, atol=5e-5)
    prefilled = ledger.to_dict()["follow_up/prefilled"]
    assert prefilled == prompts.lengths.sum()
    furthest = {}
    for row, length in of_state:
        furthest[row] = max(furthest.get(row, 0), length)
    assert prefilled == sum(furthest.values()) < lengths.sum() / 2
    with capsys.disabled():
        print(
            f"\nprefilled tokens: {prefilled} shared, {lengths.sum()} separate, {9 * lengths.sum()} a rollout at a time"
        )


# ------------------------------------------------------------------------------------------------------ other budgets
@pytest.mark.slow
def test_more_rollouts_only_where_the_value_is_uncertain(nine, params):
    """Rounds of three: the rollouts of a state are the first ones that it has with a fixed budget."""
    fixed, fixed_calls, fixed_ledger = nine
    width = 0.6
    algorithm = dataclasses.replace(CONFIG.algorithm, budget="until_certain", first_rollouts=3, interval_width=width)
    batch, calls, ledger = followed(assembly_of(algorithm), params)
    everything = outcomes(assembly_of(), fixed, fixed_calls[0])
    assert len(calls) == 3
    saved = 0
    for i, t in places(batch):
        rewards = everything[prefix_of(batch, i, t)]
        number = 3
        while number < 9 and wilson_width(jnp.float32(sum(rewards[:number])), jnp.float32(number)) > width:
            number += 3
        assert batch.follow_ups.asked[i, t] == batch.follow_ups.attempts[i, t] == number
        assert batch.follow_ups.reward_sum[i, t] == sum(rewards[:number])
    assert set(np.unique(batch.follow_ups.asked)) == {0, 3, 6, 9}
    generated = {}
    for _, requests, children in calls:
        for i in np.flatnonzero(requests.budget):
            generated.setdefault((int(requests.prompt[i]), int(requests.prefix_length[i])), []).append(
                int(children.lengths[i])
            )
    saved = sum((9 - len(n)) * np.mean(n) for n in generated.values())
    counts = ledger.to_dict()
    assert counts["follow_up/saved"] == int(saved) > 0
    assert counts["follow_up/generated"] == sum(map(sum, generated.values()))
    total = counts["follow_up/generated"] + counts["follow_up/saved"]
    assert total == pytest.approx(fixed_ledger.to_dict()["follow_up/generated"], rel=0.15)  # an estimate, not a count


@pytest.mark.slow
def test_the_last_measured_state_is_credited_with_the_outcome_and_what_follows_with_nothing(params):
    batch, [_], _ = followed(assembly_of(dataclasses.replace(CONFIG.algorithm, max_steps=2)), params)
    assert batch.follow_ups.asked[batch.reasoning_step > 2].max() == 0
    assert batch.reasoning_step.max() > 3
    assembly = assembly_of(dataclasses.replace(CONFIG.algorithm, max_steps=2))
    advantages, _ = assembly.programs.algorithm.advantages(batch)
    for i, step in enumerate(batch.reasoning_step):
        if step.max() > 2:
            last = int(np.argmax(step == 2))
            assert batch.follow_ups.asked[i, last] == 9
            value = batch.follow_ups.reward_sum[i, last] / 9
            assert advantages[i, last] == pytest.approx(batch.reward[i] - value, abs=1e-6)
            assert not np.any(advantages[i, step > 2])


def test_rollouts_whose_grader_failed_are_no_attempts_and_are_not_asked_for_again(params):
    batch, calls, _ = followed(assembly_of(grade=grade_and_sometimes_fail), params)
    found = batch.follow_ups
    assert len(calls) == 1
    asked = found.asked > 0
    assert np.all(asked[~batch.row_mask] == 0)
    assert np.all(found.asked[asked] == 9)
    assert np.any(found.attempts[asked] < 9)
    assert np.all(found.reward_sum <= found.attempts)


@pytest.mark.slow
def test_only_groups_that_are_trained_on_are_followed(params):
    batch, [(prompts, _, _)], _ = followed(assembly_of(curriculum=Lilo(pool_ratio=4)), params)
    assert len(batch.row_mask) == len(prompts.lengths) == QUESTIONS * SAMPLES
    assert len(set(batch.place.tolist())) == QUESTIONS


@pytest.mark.parametrize("attempts", [1, 3, 9, 100])
def test_the_width_is_that_of_the_wilson(attempts):
    for successes in range(0, attempts + 1, max(attempts // 7, 1)):
        low, high = wilson(successes, attempts)
        found = wilson_width(jnp.float32(successes), jnp.float32(attempts))
        assert float(found) == pytest.approx(high - low, abs=1e-6)
    assert float(wilson_width(jnp.float32(0), jnp.float32(0))) == 1


def test_a_budget_never_exceeds_its_most():
    asked = np.array([[0, 3, 3, 8, 9]], np.int32)
    attempts, rewards = np.float32([[0, 3, 3, 4, 4]]), np.float32([[0, 1.5, 0, 2, 2]])
    found = FollowUps(asked=asked, attempts=attempts, reward_sum=rewards)
    # 0 of 3 has a width of 0.56, a half of 3 one of 0.76, a half of 4 one of 0.70 (to two digits).
    assert until_certain(found, first=3, most=9, width=0.6).tolist() == [[3, 3, 0, 1, 0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"rollouts": 0},
        {"max_steps": -1},
        {"clip_epsilon": -1.0},
        {"kl_clamp": 0.0},
        {"whiten_rows": 0},
        {"budget": "until_certain", "first_rollouts": 0},
        {"budget": "until_certain", "first_rollouts": 10},
        {"budget": "until_certain", "interval_width": 1.0},
    ],
)
def test_impossible_budgets_are_refused(changes):

    with pytest.raises(UsageError, match="--algorithm"):
        validate(dataclasses.replace(CONFIG, algorithm=VinePpo(**changes)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (lambda batch: jnp.full(batch.follow_ups.asked.shape, 3), "more than the 2 rollouts"),
        (lambda batch: jnp.ones(batch.follow_ups.asked.shape, jnp.int32), "more than the 2 rollouts"),  # for ever
    ],
)
def test_an_algorithm_that_asks_for_more_than_it_declared_stops_the_run(wanted, message, params):
    @dataclasses.dataclass(frozen=True)
    class Greedy:
        def build(self):
            return CONFIG.algorithm.build()._replace(follow_ups=FollowUpRequests(wanted=wanted, most=2))

    with pytest.raises(RunError, match=message):
        followed(assembly_of(Greedy()), params)


def test_what_is_asked_for_in_the_padding_is_not_sampled(params):
    everywhere = FollowUpRequests(
        wanted=lambda batch: jnp.where(batch.follow_ups.asked == 0, 1, 0) * (batch.follow_ups.asked.max() == 0), most=1
    )

    @dataclasses.dataclass(frozen=True)
    class Everywhere:
        def build(self):
            return CONFIG.algorithm.build()._replace(follow_ups=everywhere)

    batch, _, _ = followed(assembly_of(Everywhere()), params)
    mask = (np.arange(SLOTS) < batch.sequences.completion_lengths[:, None]) & batch.row_mask[:, None]
    np.testing.assert_array_equal(batch.follow_ups.asked, mask)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_children(tiny_config, tiny_start, tmp_path):
    """Two steps, then two more, equal four at once: children depend on seed and step alone."""
    config = configuration.replace(
        tiny_config,
        model__path=tiny_start,
        sft__steps=0,
        num_steps=4,
        algorithm=VinePpo(whitening="batch", budget="until_certain", rollouts=6),
        storage__save_every=2,
    )
    whole = run(config, Launch(output_dir=str(tmp_path / "whole")), bar=False)
    run(config, Launch(output_dir=str(tmp_path / "parts"), stop_at=2), bar=False)
    parts = run(config, Launch(output_dir=str(tmp_path / "parts")), bar=False)
    for name in ("metrics", "ledger", "eval"):
        assert whole.directory.read(name) == parts.directory.read(name)
    jax.tree.map(np.testing.assert_array_equal, whole.state.policy.params, parts.state.policy.params)
    ledger = whole.directory.read("ledger")[-1]
    assert ledger["follow_up/generated"] > 0
    assert ledger["follow_up/saved"] > 0
