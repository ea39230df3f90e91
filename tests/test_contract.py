"""The parts of the curriculum and algorithm contracts that no shipped method uses, end to end on a tiny run.

The doubles here are what a user could write: a curriculum with a second round that continues some groups and opens
others, that may admit too few and learns from the update; an algorithm that asks for rollouts from inside the
completions; graders that fail.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from lilo_jax import config as configuration
from lilo_jax.config import Config, ModelConfig, Options
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.curriculum.selectors import draw, top_k
from lilo_jax.curriculum.statistics import initial_state, is_mixed, learnability, remember
from lilo_jax.device.mesh import put_replicated, put_rows
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.evaluation.sampler import sample
from lilo_jax.keys import start_keys, stream_key
from lilo_jax.models.scoring import live_tokens
from lilo_jax.questions import Verdict
from lilo_jax.rl.advantages import per_token
from lilo_jax.rl.contract import Algorithm, FollowUpRequests
from lilo_jax.rl.losses import clipped_surrogate
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.chain import Chain
from lilo_jax.tokenizers import SentencePiece
from lilo_jax.training.accounting import book
from lilo_jax.training.assembly import assemble
from lilo_jax.training.collection import collect
from lilo_jax.training.trainer import admit, make_batch, update
from lilo_jax.types import Admission, Mean, Prompts, Proposal, Requests

POOL, QUESTIONS, SAMPLES, FIRST = 40, 6, 5, 2


# ----------------------------------------------------------------------------------------------------- the doubles
@dataclasses.dataclass(frozen=True)
class SecondRound:
    """Two rollouts each; mixed groups go on to the full number, others are replaced; only mixed ones are admitted."""

    first: int = FIRST

    def build(self, *, pool_size, questions, samples):
        def propose(state, collected, key):
            opening = Proposal.opening(draw(key, size=pool_size, k=questions), self.first)
            goes_on = is_mixed(collected)[:questions]
            slots = jnp.arange(questions, dtype=jnp.int32)
            second = opening.replace(
                places=jnp.where(goes_on, collected.place[:questions], opening.places),
                samples=jnp.where(goes_on, samples - self.first, self.first),
                continues=jnp.where(goes_on, slots, -1),
            )
            started = jnp.any(collected.round == 0)
            return jax.tree.map(lambda a, b: jnp.where(started, a, b), second, opening)

        def admit(state, collected, key):
            scores = learnability(collected.successes, collected.attempts)
            return Admission(*top_k(scores, key, k=questions, eligible=is_mixed(collected)))

        def feedback(state, question, mask, signals, step):
            index = jnp.where(mask, question, pool_size)
            memory = {
                "advantage": state.memory["advantage"].at[index].set(signals.advantage_abs, mode="drop"),
                "value": state.memory["value"].at[index].set(signals.value_loss, mode="drop"),
                "step": state.memory["step"].at[index].set(step, mode="drop"),
            }
            return state.replace(memory=memory)

        unknown = jnp.full(pool_size, -1.0)
        memory = {"advantage": unknown, "value": unknown, "step": jnp.full(pool_size, -1, jnp.int32)}
        return Curriculum(
            init=functools.partial(initial_state, memory=memory),
            propose=propose,
            admit=admit,
            observe=remember,
            feedback=feedback,
            max_rounds=2,
            max_samples=samples,
            train_rows=questions * samples,
        )


@dataclasses.dataclass(frozen=True)
class Children:
    """The value of a completion is the mean reward of two children from its middle."""

    def build(self):
        def wanted(batch):
            lengths = batch.sequences.completion_lengths[:, None]
            middle = (jnp.arange(batch.old_logprobs.shape[1])[None] == lengths // 2) & (lengths > 1)
            return jnp.where(middle & (batch.follow_ups.asked == 0), 2, 0)

        def advantages(batch):
            total, count = (x.sum(axis=1) for x in (batch.follow_ups.reward_sum, batch.follow_ups.attempts))
            mask = live_tokens(batch)
            advantage = jnp.where(count > 0, batch.reward - total / jnp.maximum(count, 1), 0)
            return per_token(advantage, mask), per_token(batch.reward, mask)

        def policy_loss(scores, batch):
            surrogate = clipped_surrogate(
                scores.logprobs, batch.old_logprobs, batch.advantages, clip_low=0.2, clip_high=0.2
            )
            return jnp.sum(surrogate * batch.token_weight), {"loss/policy": Mean.of(surrogate, batch.mask)}

        return Algorithm(
            advantages=advantages,
            policy_loss=policy_loss,
            follow_ups=FollowUpRequests(wanted=wanted, most=2),
        )


def checksum(response):
    return sum(map(ord, response))


def grade_by_parity(question, response):
    """Chance, as far as an untrained model is concerned: about half of all responses are right."""
    return Verdict.CORRECT if checksum(question.prompt + response) % 2 == 0 else Verdict.WRONG


def grade_rarely(question, response):
    return Verdict.CORRECT if checksum(question.prompt + response) % 6 == 0 else Verdict.WRONG


def grade_and_sometimes_fail(question, response):
    if checksum(response) % 3 == 0:
        raise RuntimeError("the grader broke")
    if checksum(response) % 3 == 1 and len(response) > 3:
        return Verdict.TIMEOUT
    return grade_by_parity(question, response)


# -------------------------------------------------------------------------------------------------- one tiny assembly
CONFIG = Config(
    num_steps=3,
    task=Chain(pool=POOL, validation=8, test=8, longer=4, demonstrations=64),
    model=ModelConfig(
        num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24,
        train_layers="scanned", decode_layers="scanned",
    ),
    rollout=RolloutConfig(questions=QUESTIONS, samples=SAMPLES, max_new_tokens=8),
    curriculum=SecondRound(),
    algorithm=Rloo(),
    update=UpdateConfig(microbatches=2, chunk=8),
    optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=0),
    evaluation=EvaluationConfig(rows=8),
)  # fmt: skip


@functools.cache
def task_and_tokenizer():
    """A chain task with another grader, and a tokenizer with many end tokens, so that most completions end."""
    task = CONFIG.task.build(0)
    texts = [prompt + response for prompt, response in task.demonstrations]
    tokenizer = SentencePiece.train(texts + [q.prompt for q in task.splits["train"]], kind="char", vocab_size=64)
    tokenizer.end_ids = (*tokenizer.end_ids, *(tokenizer.encode(c)[-1] for c in "abcde."))
    return task._replace(grade=grade_by_parity), tokenizer


def assembly_of(config=CONFIG, grade=grade_by_parity):
    """Equal settings share compiled programs, so this is cheap to call again."""
    task, tokenizer = task_and_tokenizer()
    return assemble(config, task=task._replace(grade=grade), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def start(random_weights):
    """(assembly) -> a fresh state; an update gives its buffers away, so every test asks for its own."""

    def make(assembly):
        shapes = jax.eval_shape(assembly.programs.init, jax.random.key(0))
        params = random_weights(shapes, deviation=0.15)
        facts = no_facts(len(assembly.pool.questions))
        return assembly.programs.start(put_replicated(assembly.mesh, params), None, start_keys(1), facts)

    return make


def host_copy(tree):
    """Arrays of their own: on a CPU `device_get` may share the buffers that an update gives away."""
    return jax.tree.map(np.array, jax.device_get(tree))


def take_step(assembly, state, step):
    """(collected, admission, host copy of the batch, state after the update, ledger) of one training step."""
    clock, ledger = PhaseClock(), Ledger()
    collected = collect(assembly.collector, state, assembly.policy(state), step, clock)
    admission, state = admit(assembly.collector, state, collected, step, clock)
    batch = make_batch(assembly, state, collected, admission, None, step, ledger, clock)
    kept = host_copy(assembly.programs.prepare(state, put_rows(assembly.mesh, batch))[0])
    state, metrics = update(assembly, state, batch, step, clock)
    assert all(np.isfinite(float(m.total)) for m in metrics.values())
    book(assembly.collector, assembly.config.update, collected, admission, batch, ledger)
    return collected, admission, kept, state, ledger


def assert_statistics_recount(collected):
    """The statistics are those of the rollouts, counted again by the reference."""
    rollouts, statistics = collected.rollouts, jax.device_get(collected.statistics)
    expected = reference.group_statistics(
        len(collected.place),
        [r.group for r in rollouts],
        [float(r.verdict is Verdict.CORRECT) for r in rollouts],
        [r.verdict is Verdict.CORRECT for r in rollouts],
        [r.verdict not in (Verdict.ERROR, Verdict.TIMEOUT) for r in rollouts],
        [len(r.completion_ids) for r in rollouts],
        [True] * len(rollouts),
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(statistics, name), values, err_msg=name)
    return statistics


def batch_masks(batch):
    length = np.asarray(batch.sequences.completion_lengths)
    return (np.arange(batch.advantages.shape[1]) < length[:, None]) & batch.row_mask[:, None]


def with_garbage_in_masked_rows(batch):
    """Masked rows filled with what would change the update if any of it were read."""
    hidden = ~np.asarray(batch.row_mask)
    assert hidden.any()
    sequences = batch.sequences.replace(
        tokens=np.where(hidden[:, None], 5, batch.sequences.tokens),
        completion_lengths=np.where(hidden, batch.advantages.shape[1], batch.sequences.completion_lengths),
    )
    names = ("old_logprobs", "advantages", "returns", "sampler_logprobs")
    garbage = {name: np.where(hidden[:, None], np.float32(-3), getattr(batch, name)) for name in names}
    return batch.replace(sequences=sequences, reward=np.where(hidden, np.float32(9), batch.reward), **garbage)


def assert_masked_rows_carry_no_weight(assembly, start, batch, step):
    results = []
    for version in (batch, with_garbage_in_masked_rows(batch)):
        key = stream_key(assembly.config.seed, "update", step)
        state, metrics = assembly.programs.update(start(assembly), put_rows(assembly.mesh, version), key)
        results.append((host_copy(state.policy.params), host_copy(metrics)))
    before = host_copy(start(assembly).policy.params)
    moved = optax.tree.norm(jax.tree.map(np.subtract, results[0][0], before))
    assert float(moved) > 1e-3
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *results)


# ----------------------------------------------------------------------------- second rounds, unequal groups, feedback
@pytest.fixture(scope="module")
def steps(start):
    """Three steps of the second-round curriculum with RLOO: one (assembly, state before, ...) per step."""
    assembly = assembly_of()
    state, taken = start(assembly), []
    for step in range(3):
        before = host_copy(state)
        collected, admission, batch, state, ledger = take_step(assembly, state, step)
        taken.append((assembly, before, collected, admission, batch, host_copy(state), ledger))
    return taken


@pytest.mark.slow
def test_a_second_round_continues_groups_and_opens_others(steps):
    continued = refilled = 0
    for _, _, collected, _, _, _, _ in steps:
        statistics = assert_statistics_recount(collected)
        first_two = [[r.reward for r in collected.rollouts if r.group == g][:FIRST] for g in range(QUESTIONS)]
        mixed = [g for g, rewards in enumerate(first_two) if len(set(rewards)) == 2]
        filled = np.flatnonzero(collected.place >= 0)
        assert len(filled) == QUESTIONS + QUESTIONS - len(mixed)
        assert collected.round[filled].tolist() == [0] * QUESTIONS + [1] * (QUESTIONS - len(mixed))
        expected = [SAMPLES if g in mixed else FIRST for g in filled]
        assert statistics.rollouts[filled].tolist() == expected
        assert len(set(collected.place[:QUESTIONS].tolist())) == QUESTIONS
        continued, refilled = continued + len(mixed), refilled + QUESTIONS - len(mixed)
    assert continued >= 3
    assert refilled >= 3


def test_a_continued_group_has_the_rollouts_it_would_have_had_at_once(steps):
    assembly, before, collected, *_ = steps[0]
    groups = np.repeat(np.arange(QUESTIONS), SAMPLES)
    ids = collected.place[:QUESTIONS]
    prompts = Prompts(tokens=assembly.pool.tokens[ids], lengths=assembly.pool.lengths[ids])
    requests = Requests(
        prompt=groups.astype(np.int32),
        prefix_length=prompts.lengths[groups],
        id=np.arange(QUESTIONS * SAMPLES, dtype=np.int32),
        budget=np.full(len(groups), 8, np.int32),
        expected_length=np.zeros(len(groups), np.float32),
    )
    key = stream_key(assembly.config.seed, "sample", 0)
    params = put_replicated(assembly.mesh, before.policy.params)
    completions = jax.device_get(sample(assembly.sampler, params, prompts, requests, key))
    compared = 0
    for g in range(QUESTIONS):
        found = [r.completion_ids.tolist() for r in collected.rollouts if r.group == g]
        rows = np.flatnonzero(groups == g)[: len(found)]
        assert found == [completions.tokens[row, : completions.lengths[row]].tolist() for row in rows]
        compared += len(found) == SAMPLES
    assert compared >= 1  # at least one group was continued


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"slots": 5}, {"calls": 2}, {"slots": 3, "calls": 3, "prefill_tokens": 16}])
def test_slots_and_calls_change_no_rollout_of_a_step(changes, steps, start):
    """Only when a completion is drawn depends on them, and a second round, unequal groups and all stay as they were."""
    assembly = assembly_of(dataclasses.replace(CONFIG, rollout=dataclasses.replace(CONFIG.rollout, **changes)))
    _, _, expected, *_ = steps[0]
    state = start(assembly)
    found = collect(assembly.collector, state, assembly.policy(state), 0, PhaseClock())
    assert len(found.rollouts) == len(expected.rollouts) > QUESTIONS
    for ours, theirs in zip(found.rollouts, expected.rollouts, strict=True):
        assert (ours.group, ours.response, ours.verdict) == (theirs.group, theirs.response, theirs.verdict)
        np.testing.assert_array_equal(ours.completion_ids, theirs.completion_ids)
        np.testing.assert_array_equal(ours.prompt_ids, theirs.prompt_ids)
        np.testing.assert_allclose(ours.sampler_logprobs, theirs.sampler_logprobs, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, found.statistics, expected.statistics)


@pytest.mark.slow
def test_packed_rows_give_the_same_step(start):
    """Cut and packed rows against plain ones: log-probs, advantages and the updated weights.

    Groups of equal rewards are not computed: they have no log-probs, and are not booked as trained on.
    """
    found = {}
    for pack in (False, True):
        of_update = dataclasses.replace(CONFIG.update, pack=pack)
        config = dataclasses.replace(CONFIG, curriculum=Uniform(), update=of_update)
        assembly = assembly_of(config, grade_rarely)
        found[pack] = take_step(assembly, start(assembly), 0)
    plain, packed_ = found[False][2], found[True][2]
    lengths = np.asarray(plain.sequences.prompt_lengths + plain.sequences.completion_lengths)
    mixed = np.asarray(plain.row_mask) & np.any(np.asarray(plain.advantages) != 0, axis=1)
    assert 0 < mixed.sum() < plain.row_mask.sum()
    for pack, computed in ((False, plain.row_mask), (True, mixed)):
        assert found[pack][4].to_dict()["train/trained"] == lengths[np.asarray(computed)].sum()
    assert packed_.sequences.tokens.shape[1] <= plain.sequences.tokens.shape[1]
    width = packed_.old_logprobs.shape[1]
    np.testing.assert_allclose(packed_.old_logprobs[mixed], plain.old_logprobs[mixed, :width], atol=1e-5)
    np.testing.assert_allclose(packed_.advantages, plain.advantages, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        found[True][3].policy.params,
        found[False][3].policy.params,
    )


@pytest.mark.slow
def test_the_samplers_logprobs_may_serve_as_the_old_ones(start):
    """Nothing is scored again, and in float32 it makes no difference beyond rounding."""
    found = {}
    for which in ("scored", "sampled"):
        update_config = dataclasses.replace(CONFIG.update, old_logprobs=which)
        assembly = assembly_of(dataclasses.replace(CONFIG, update=update_config))
        found[which] = take_step(assembly, start(assembly), 0)
    np.testing.assert_array_equal(found["sampled"][2].old_logprobs, found["sampled"][2].sampler_logprobs)
    np.testing.assert_allclose(found["sampled"][2].old_logprobs, found["scored"][2].old_logprobs, atol=1e-5)
    assert np.abs(found["scored"][2].old_logprobs).max() > 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        found["sampled"][3].policy.params,
        found["scored"][3].policy.params,
    )


def test_unequal_groups_reach_the_batch_row_by_row(steps):
    sizes = set()
    for assembly, _, collected, admission, batch, _, _ in steps:
        row = 0
        for q, g in enumerate(admission.indices.tolist()):
            if not admission.mask[q]:
                assert batch.place[q] == -1
                continue
            assert batch.place[q] == collected.place[g]
            for r in (r for r in collected.rollouts if r.group == g):
                question = assembly.pool.questions[batch.place[q]]
                prompt = [*assembly.tokenizer.begin_ids, *assembly.tokenizer.encode(question.prompt)]
                whole = prompt + r.completion_ids.tolist()
                assert batch.sequences.tokens[row, : len(whole)].tolist() == whole
                assert not batch.sequences.tokens[row, len(whole) :].any()
                assert batch.sequences.completion_lengths[row] == len(r.completion_ids)
                assert (batch.group[row], batch.reward[row], batch.row_mask[row]) == (q, r.reward, True)
                row += 1
            sizes.add(int(np.sum((batch.group == q) & batch.row_mask)))
        assert not batch.row_mask[row:].any()
        assert batch.row_mask.shape == (QUESTIONS * SAMPLES,)
    assert sizes == {FIRST, SAMPLES}


def test_leave_one_out_over_unequal_groups_matches_reference(steps):
    for _, _, _, _, batch, _, _ in steps:
        mask = batch_masks(batch)
        expected = reference.leave_one_out(batch.reward, batch.group, batch.row_mask)
        np.testing.assert_allclose(batch.advantages, reference.per_token(expected, mask), rtol=1e-5, atol=1e-6)
        assert np.abs(batch.advantages).max() > 0.4


def test_feedback_carries_means_over_the_groups_tokens(steps):
    expected = {name: np.full(POOL, -1.0) for name in ("advantage", "value", "step")}
    for step, (_, _, _, _, batch, after, _) in enumerate(steps):
        mask = batch_masks(batch)
        for q in np.flatnonzero(batch.group_mask):
            tokens = np.abs(batch.advantages)[mask & (batch.group == q)[:, None]]
            expected["advantage"][batch.place[q]] = tokens.mean()
            expected["value"][batch.place[q]] = 0
            expected["step"][batch.place[q]] = step
        for name, values in expected.items():
            np.testing.assert_allclose(after.curriculum.memory[name], values, rtol=1e-5, err_msg=name)
    assert np.sum(expected["advantage"] > 0) >= 3
    assert len(set(expected["advantage"].round(4))) > 2


def test_everything_collected_is_remembered_and_booked(steps):
    listed, names = [], ("place", "attempts", "successes", "length_sum", "rollouts")
    for _, _, collected, admission, _, after, ledger in steps:
        statistics = jax.device_get(collected.statistics)
        listed.append([{n: getattr(statistics, n)[k].item() for n in names} for k in range(2 * QUESTIONS)])
        for field, values in reference.remembered(POOL, listed).items():
            np.testing.assert_array_equal(getattr(after.curriculum, field), values, err_msg=field)
        admitted = set(admission.indices[admission.mask].tolist())
        generated, counts = {"train": 0, "screen": 0, "rejected": 0}, ledger.to_dict()
        for r in collected.rollouts:
            whole = "rejected" if statistics.rollouts[r.group] == SAMPLES else "screen"
            generated["train" if r.group in admitted else whole] += len(r.completion_ids)
        assert {name: counts[f"{name}/generated"] for name in generated} == generated
        assert min(generated["train"], generated["screen"]) > 0
        assert ledger.generated() == sum(generated.values())
        # A continued group runs its prompt once more.
        lengths = [len(r.prompt_ids) for r in collected.rollouts]
        prompts_run = len(collected.place[collected.place >= 0]) + sum(
            statistics.rollouts[g] == SAMPLES for g in range(QUESTIONS)
        )
        assert sum(counts[f"{name}/prefilled"] for name in generated) == prompts_run * lengths[0]


def test_too_few_admitted_groups_leave_rows_without_weight(steps, start):
    short = [s for s in steps if not s[3].mask.all()]
    assert short
    assembly, _, collected, admission, batch, _, _ = short[0]
    statistics = jax.device_get(collected.statistics)
    mixed = (statistics.successes > 0) & (statistics.successes < statistics.attempts)
    assert set(admission.indices[admission.mask].tolist()) == set(np.flatnonzero(mixed).tolist())
    assert batch.row_mask.sum() == statistics.rollouts[mixed].sum() < QUESTIONS * SAMPLES
    assert not batch.advantages[~batch.row_mask].any()
    assert_masked_rows_carry_no_weight(assembly, start, batch, 0)


# -------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.replace(places=p.places + POOL), "outside of its pool"),
        (lambda p: p.replace(places=p.places - POOL), "outside of its pool"),
        (lambda p: p.replace(continues=np.full(QUESTIONS, 3, np.int32)), "not of the question"),
        (lambda p: p.replace(samples=p.samples + SAMPLES), "more than the 5 rollouts"),
    ],
)
def test_a_wrong_proposal_stops_the_run(start, change, message):
    assembly = assembly_of()
    propose = assembly.programs.propose
    wrong = assembly.programs._replace(propose=lambda *args: change(jax.device_get(propose(*args))))
    collector, state = assembly.collector._replace(programs=wrong), start(assembly)
    with pytest.raises(RunError, match=message):
        collect(collector, state, assembly.policy(state), 0, PhaseClock())


def test_a_group_continued_twice_in_one_proposal_stops_the_run(start):
    """Both entries would get the same random numbers, and so the same rollouts."""
    assembly, served = assembly_of(), []

    def propose(state, collected, key):
        if not served:
            served.append(jax.device_get(assembly.programs.propose(state, collected, key)))
            return served[0]
        ids = np.full(QUESTIONS, served[0].places[1], np.int32)
        return Proposal.opening(ids, 1, np.arange(QUESTIONS) < 2).replace(continues=np.ones(QUESTIONS, np.int32))

    collector, state = (
        assembly.collector._replace(programs=assembly.programs._replace(propose=propose)),
        start(assembly),
    )
    with pytest.raises(RunError, match="twice in one proposal"):
        collect(collector, state, assembly.policy(state), 0, PhaseClock())


# ------------------------------------------------------------------------------------------------------- failed graders
def test_failed_graders_are_no_attempts_and_are_not_trained_on(start):
    assembly = assembly_of(grade=grade_and_sometimes_fail)
    failed_and_admitted = None
    for step in range(6):
        state = start(assembly)
        collected, admission, batch, _, _ = take_step(assembly, state, step)
        statistics = assert_statistics_recount(collected)
        verdicts = [r.verdict for r in collected.rollouts]
        failures = verdicts.count(Verdict.ERROR) + verdicts.count(Verdict.TIMEOUT)
        assert verdicts.count(Verdict.ERROR) > 0
        assert statistics.attempts.sum() == len(verdicts) - failures
        assert statistics.rollouts.sum() == len(verdicts)
        assert np.all(statistics.attempts[admission.indices[admission.mask]] > 0)
        rows = [r for g in admission.indices[admission.mask] for r in collected.rollouts if r.group == g]
        graded = [r.verdict not in (Verdict.ERROR, Verdict.TIMEOUT) for r in rows]
        assert batch.row_mask[: len(rows)].tolist() == graded
        expected = reference.leave_one_out(batch.reward, batch.group, batch.row_mask)
        np.testing.assert_allclose(
            batch.advantages, reference.per_token(expected, batch_masks(batch)), rtol=1e-5, atol=1e-6
        )
        assert not batch.advantages[: len(rows)][~np.array(graded, bool)].any()
        if not all(graded) and np.abs(batch.advantages).max() > 0:
            failed_and_admitted = batch
    assert failed_and_admitted is not None
    assert_masked_rows_carry_no_weight(assembly, start, failed_and_admitted, 0)


# ----------------------------------------------------------------------------------------------------------- follow-ups
@pytest.mark.slow
def test_follow_ups_start_inside_the_completions_and_their_rewards_reach_the_advantages(start):
    config = dataclasses.replace(CONFIG, curriculum=Uniform(), algorithm=Children())
    assembly, calls, graded = assembly_of(config), [], []

    def recording_sample(params, prompts, requests, key, stop_table, **settings):
        completions = assembly.sampler.run(params, prompts, requests, key, stop_table, **settings)
        calls.append(jax.device_get((prompts, requests, completions)))
        return completions

    def grade(question, response):
        graded.append((question, response))
        return grade_by_parity(question, response)

    spied = dataclasses.replace(
        assembly,
        sampler=assembly.sampler._replace(run=recording_sample),
        judge=assembly.judge._replace(grade=grade),
    )
    state = start(assembly)
    before = host_copy(state.policy.params)
    collected, _, batch, after, ledger = take_step(spied, state, 0)
    (_, _, parents), (prompts, requests, children) = calls
    num_rows = QUESTIONS * SAMPLES
    assert len(collected.rollouts) == num_rows

    # The states in the middle of the completions, in the order of their rows.
    states = {}
    for i in range(num_rows):
        length = int(batch.sequences.completion_lengths[i])
        if length > 1:
            kept = int(batch.sequences.prompt_lengths[i]) + length // 2
            key = (int(batch.place[batch.group[i]]), *batch.sequences.tokens[i, :kept].tolist())
            states.setdefault(key, (i, length // 2))
    live = requests.budget > 0
    assert live.sum() == 2 * len(states) <= requests.budget.shape[0]
    assert not children.lengths[~live].any()
    assert len(set(requests.id[live].tolist())) == live.sum()

    decode, end_ids = assembly.tokenizer.decode, assembly.tokenizer.end_ids
    texts = graded[int(parents.ended.sum()) :]  # truncated completions are never graded
    value = {}
    for child, (key, (i, prefix)) in enumerate((key, state) for key, state in states.items() for _ in range(2)):
        tokens, start_of = batch.sequences.tokens[i], int(batch.sequences.prompt_lengths[i])
        kept = start_of + prefix
        assert requests.prompt[child] == i
        assert requests.prefix_length[child] == kept <= prompts.lengths[i]
        np.testing.assert_array_equal(prompts.tokens[i, :kept], tokens[:kept])
        assert requests.budget[child] == 8 - prefix
        ids = [*tokens[start_of:kept], *children.tokens[child, : children.lengths[child]]]
        reward = 0.0
        if children.ended[child]:
            assert ids[-1] in end_ids
            question, response = texts.pop(0)
            assert question is assembly.pool.questions[batch.place[batch.group[i]]]
            assert response == decode(ids[:-1])
            assert response.startswith(decode(tokens[start_of:kept]))
            reward = float(grade_by_parity(question, response) is Verdict.CORRECT)
        value.setdefault(key, []).append(reward)
    assert not texts

    advantage = np.zeros(num_rows)
    for i in range(num_rows):
        length = int(batch.sequences.completion_lengths[i])
        asked = np.flatnonzero(batch.follow_ups.asked[i]).tolist()
        assert asked == ([length // 2] if length > 1 else [])
        if length > 1:
            kept = int(batch.sequences.prompt_lengths[i]) + length // 2
            rewards = value[int(batch.place[batch.group[i]]), *batch.sequences.tokens[i, :kept].tolist()]
            assert batch.follow_ups.asked[i].sum() == batch.follow_ups.attempts[i].sum() == 2
            assert batch.follow_ups.reward_sum[i].sum() == sum(rewards)
            advantage[i] = batch.reward[i] - np.mean(rewards)
    mask = batch_masks(batch)
    np.testing.assert_allclose(batch.advantages, reference.per_token(advantage, mask), atol=1e-6)
    assert len(np.unique(batch.advantages[mask])) >= 4

    counts = ledger.to_dict()
    assert counts["follow_up/generated"] == children.lengths.sum() > 0
    furthest = np.zeros(num_rows, int)  # once for both children
    for i, prefix in states.values():
        furthest[i] = max(furthest[i], batch.sequences.prompt_lengths[i] + prefix)
    assert prompts.lengths.tolist() == furthest.tolist()
    assert counts["follow_up/prefilled"] == furthest.sum() > 0
    assert counts["follow_up/saved"] == 0
    assert ledger.generated() == parents.lengths.sum() + children.lengths.sum()
    siblings = [children.tokens[2 * i].tolist() != children.tokens[2 * i + 1].tolist() for i in range(len(states))]
    assert sum(siblings) > len(states) / 3  # two children of one prefix are two draws
    moved = optax.tree.norm(jax.tree.map(np.subtract, host_copy(after.policy.params), before))
    assert float(moved) > 1e-3


# ----------------------------------------------------------------------------------------------- methods of one's own
def test_a_curriculum_of_ones_own_is_chosen_by_module_and_class(steps, start):
    name = f"{__name__}:SecondRound"
    arguments = ["--curriculum", name, "--curriculum.first", "2"]
    config = configuration.parse(
        Options(config=dataclasses.replace(CONFIG, curriculum=Uniform())), arguments, prog="train", description=""
    ).config
    assert config == CONFIG
    stored = configuration.to_dict(config)
    assert stored["curriculum"] == {"name": name, "first": 2}
    assert configuration.from_dict(stored) == config
    assembly = assembly_of(config)
    found, admission, batch, _, _ = take_step(assembly, start(assembly), 0)
    _, _, collected, expected_admission, expected_batch, _, _ = steps[0]
    np.testing.assert_array_equal(found.place, collected.place)
    np.testing.assert_array_equal(admission.indices, expected_admission.indices)
    np.testing.assert_array_equal(batch.advantages, expected_batch.advantages)


def test_an_algorithm_of_ones_own_is_chosen_by_module_and_class():
    options = configuration.parse(Options(), ["--algorithm", f"{__name__}:Children"], prog="train", description="")
    assert options.config.algorithm == Children()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_at_all:Thing", "module:ClassName"),
        (f"{__name__}:NoSuchClass", "module:ClassName"),
        (f"{__name__}:checksum", "dataclass with a build method"),
        ("lilos", "did you mean 'lilo'"),
    ],
)
def test_a_wrong_name_is_one_sentence(name, message):
    with pytest.raises(UsageError, match=message):
        configuration.settings_class("curriculum", name)
