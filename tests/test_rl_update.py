"""The update through a real (tiny) decoder: exact gradients, and what may not change them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from virtual_devices import printed_by

from lilo_jax.device.mesh import unconstrained
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.packing import pack_blocks
from lilo_jax.models.scoring import completion_mask, informative_sequences, live_tokens, score, score_values
from lilo_jax.rl import ALGORITHMS as TABLE
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.reinforce_pp import ReinforcePp
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import UpdateConfig, _spread, accumulate_gradients, cut_minibatch, deal, update
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.types import FollowUps, Sequences, Trainable, TrainBatch

CONFIG = DecoderConfig(
    num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24, vocab_size=11,
    train_layers="scanned",
)  # fmt: skip
MODEL = build_model(CONFIG, unconstrained)
# Every program here runs a few times only: optimising it would cost more than it saves.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
ROWS, PROMPT, SLOTS = 8, 4, 5
TEMPERATURE = 0.7
ALGORITHMS = {
    "ppo": Ppo(kl_coefficient=0.2, whitening="none"),
    "rloo": Rloo(),
    "grpo": Grpo(kl_coefficient=0.2),
    "vineppo": VinePpo(kl_coefficient=0.2, whitening="none"),
    **{name: cls() for name, cls in TABLE.items() if name not in ("ppo", "rloo", "grpo", "vineppo")},
}


@functools.cache
def initial_params():
    init, init_critic = jit(MODEL.init), jit(MODEL.init_critic)
    policy = init(jax.random.key(0))
    # A reference near the policy, as in a run: far from it every KL would stand at its clamp, without a gradient.
    reference_params = jax.tree.map(lambda a, b: 0.8 * a + 0.2 * b, policy, init(jax.random.key(2)))
    return policy, init_critic(jax.random.key(1)), reference_params


@functools.cache
def compiled_scores():
    return jit(functools.partial(score, MODEL, completion_width=SLOTS, temperature=TEMPERATURE, chunk=3))


def random_follow_ups(rng):
    """Nine rollouts from every state, some of which no grader came to a verdict about."""
    attempts = rng.integers(0, 10, (ROWS, SLOTS)).astype(np.float32)
    return FollowUps(
        asked=np.full((ROWS, SLOTS), 9, np.int32), attempts=attempts, reward_sum=rng.binomial(9, 0.5) * attempts / 9
    )


@functools.cache
def training_batch(name):
    """Ragged rows with masked ones, scored by the model before the update: every ratio is one."""
    rng = np.random.default_rng(7)
    policy, critic, reference_params = initial_params()
    sequences = Sequences(
        tokens=jnp.asarray(rng.integers(0, 11, (ROWS, PROMPT + SLOTS)), jnp.int32),
        prompt_lengths=jnp.asarray(rng.integers(1, PROMPT + 1, ROWS), jnp.int32),
        completion_lengths=jnp.asarray([5, 1, 3, 2, 4, 5, 0, 2], jnp.int32),
    )
    zeros = jnp.zeros((ROWS, SLOTS))
    batch = TrainBatch(
        sequences=sequences,
        row_mask=jnp.asarray([1, 1, 1, 0, 1, 1, 0, 1], bool),
        informative=jnp.asarray([1, 1, 1, 0, 1, 1, 0, 1], bool),
        group=jnp.asarray([0, 0, 0, 1, 1, 1, 1, 1], jnp.int32),
        reward=jnp.asarray(rng.normal(size=ROWS), jnp.float32),
        sampler_logprobs=zeros,
        place=jnp.arange(2, dtype=jnp.int32),
        group_mask=jnp.ones(2, bool),
        reasoning_step=jnp.asarray(np.arange(SLOTS) // 2 + np.zeros((ROWS, 1)), jnp.int32),
        follow_ups=random_follow_ups(rng),
        old_logprobs=compiled_scores()(policy, sequences).logprobs,
        reference_logprobs=compiled_scores()(reference_params, sequences).logprobs,
        old_values=jit(functools.partial(score_values, MODEL, completion_width=SLOTS))(critic, sequences),
        advantages=zeros,
        returns=zeros,
    )
    advantages, returns = jit(ALGORITHMS[name].build().advantages)(batch)
    return batch.replace(advantages=advantages, returns=returns)


@functools.cache
def compiled_gradients(name, microbatches):
    algorithm = ALGORITHMS[name].build()

    @jit
    def gradients(params, minibatch):
        return accumulate_gradients(
            MODEL, algorithm, params, minibatch, microbatches=microbatches, temperature=TEMPERATURE, chunk=3
        )

    return gradients


def params_for(name):
    policy, critic, _ = initial_params()
    return policy, critic if name == "ppo" else None


def gradients_of(name, batch, *, microbatches=1, denominator="present"):
    minibatch = cut_minibatch(batch, jnp.arange(batch.row_mask.shape[0]), denominator=denominator)
    return compiled_gradients(name, microbatches)(params_for(name), minibatch)[0]


def relative_difference(found, expected):
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, found, expected)) / optax.tree.norm(expected))


def padded(batch, *, rows=0, slots=0):
    """More masked rows and more columns, with garbage in what may not be read."""

    def pad(x, columns, fill):
        width = [(0, rows)] + [(0, columns)] * (x.ndim - 1)
        return jnp.pad(x, width, constant_values=fill)

    sequences = Sequences(
        tokens=pad(batch.sequences.tokens, slots, 9),
        prompt_lengths=pad(batch.sequences.prompt_lengths, 0, 1),
        completion_lengths=pad(batch.sequences.completion_lengths, 0, 3),
    )
    names = ("sampler_logprobs", "old_logprobs", "reference_logprobs", "old_values", "advantages", "returns")
    found = batch.follow_ups
    return batch.replace(
        reasoning_step=pad(batch.reasoning_step, slots, 1),
        follow_ups=FollowUps(
            asked=pad(found.asked, slots, 2),
            attempts=pad(found.attempts, slots, 2.0),
            reward_sum=pad(found.reward_sum, slots, np.nan),
        ),
        sequences=sequences,
        row_mask=pad(batch.row_mask, 0, False),
        informative=pad(batch.informative, 0, False),
        group=pad(batch.group, 0, 0),
        reward=pad(batch.reward, 0, 5.0),
        **{name: pad(getattr(batch, name), slots, 2.0) for name in names},
    )


# -------------------------------------------------------------------------------------------------------- gradients
def direct_loss(name, params, batch):
    """The policy gradient's own objective: no ratio, no clipping, no micro-batches, whole logits at once."""
    policy, critic = params
    tokens = batch.sequences.tokens
    logprobs = jax.nn.log_softmax(MODEL.logits(policy, MODEL.hidden(policy, tokens)) / TEMPERATURE)
    mask = np.arange(SLOTS) < np.asarray(batch.sequences.completion_lengths)[:, None]
    mask &= np.asarray(batch.row_mask)[:, None]
    num_rows, num_tokens, responses = int(np.asarray(batch.row_mask).sum()), int(mask.sum()), mask.sum(axis=1)
    row, t = np.nonzero(mask)
    place = np.asarray(batch.sequences.prompt_lengths)[row] + t
    logprob = logprobs[row, place - 1, np.asarray(tokens)[row, place]]
    reinforce = -batch.advantages[row, t] * logprob
    difference = batch.reference_logprobs[row, t] - logprob
    kl = jnp.minimum(jnp.exp(difference) - difference - 1, 10)
    if name in ("rloo", "dapo", "cispo", "reinforce_pp"):
        return jnp.sum(reinforce) / num_tokens
    if name == "reinforce":
        return jnp.sum(reinforce) / num_rows
    if name == "dr_grpo":
        return jnp.sum(reinforce) / num_rows / SLOTS
    if name == "gspo":
        return jnp.sum(reinforce / responses[row]) / num_rows
    if name == "vineppo":
        return jnp.sum(reinforce) / num_tokens + 0.2 * jnp.sum(kl) / num_rows
    if name == "grpo":
        return jnp.sum((reinforce + 0.2 * kl) / responses[row]) / num_rows
    values = MODEL.values(critic, MODEL.hidden(critic, tokens))[row, place - 1]
    squared_error = jnp.sum((values - batch.returns[row, t]) ** 2)
    return jnp.sum(reinforce) / num_tokens + 0.2 * jnp.sum(kl) / num_rows + 0.5 * squared_error / num_tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_at_ratio_one_is_the_policy_gradient(name):
    batch = training_batch(name)
    expected = jit(jax.grad(lambda params: direct_loss(name, params, batch)))(params_for(name))
    found = gradients_of(name, batch)
    assert float(optax.tree.norm(expected[0])) > 1e-2
    assert relative_difference(found[0], expected[0]) < 1e-5
    if name == "ppo":
        assert float(optax.tree.norm(expected[1])) > 1e-2
        assert relative_difference(found[1], expected[1]) < 1e-5
    else:
        assert found[1] is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "microbatches"), [("ppo", 2), ("ppo", 4), ("vineppo", 2), ("gspo", 4)])
def test_micro_batches_leave_the_gradient_as_it_is(name, microbatches):
    batch = training_batch(name)
    for denominator in ("present", "capacity"):
        whole = gradients_of(name, batch, denominator=denominator)
        found = gradients_of(name, batch, microbatches=microbatches, denominator=denominator)
        assert relative_difference(found, whole) < 1e-5


@pytest.mark.slow
def test_micro_batches_leave_the_metrics_as_they_are():
    minibatch = cut_minibatch(training_batch("ppo"), jnp.arange(ROWS), denominator="present")
    whole = compiled_gradients("ppo", 1)(params_for("ppo"), minibatch)[1]
    found = compiled_gradients("ppo", 4)(params_for("ppo"), minibatch)[1]
    assert {"loss/policy", "loss/value", "loss/kl_to_reference", "policy/ratio"} <= whole.keys() == found.keys()
    for name in whole:
        np.testing.assert_allclose(found[name].total, whole[name].total, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name].weight, whole[name].weight, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_row_order_leaves_the_gradient_as_it_is(name):
    batch = training_batch(name)
    order = jnp.asarray(np.random.default_rng(0).permutation(ROWS))
    minibatch = cut_minibatch(batch, order, denominator="present")
    found = compiled_gradients(name, 1)(params_for(name), minibatch)[0]
    assert relative_difference(found, gradients_of(name, batch)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "rloo", "vineppo", "gspo"])
def test_padding_leaves_the_gradient_as_it_is(name):
    """Also with NaN in all that is not read, advantages being computed of the padded batch."""
    batch = training_batch(name)
    expected = gradients_of(name, batch)
    wider = padded(batch, rows=8, slots=3)
    assert relative_difference(gradients_of(name, wider), expected) < 1e-5
    hidden = ~live_tokens(wider)
    spoilt = ("sampler_logprobs", "old_logprobs", "reference_logprobs", "old_values", "advantages", "returns")
    for garbage in (np.nan, np.inf):
        filled = wider.replace(
            reward=jnp.where(wider.row_mask, wider.reward, garbage),
            **{field: jnp.where(hidden, garbage, getattr(wider, field)) for field in spoilt},
        )
        advantages, returns = jit(ALGORITHMS[name].build().advantages)(filled)
        filled = filled.replace(advantages=jnp.where(hidden, garbage, advantages), returns=returns)
        assert relative_difference(gradients_of(name, filled), expected) < 1e-5


@pytest.mark.slow
def test_a_mesh_leaves_the_gradient_as_it_is():
    """On 2 x 2 x 2 virtual devices, rows, weights and heads being split, against one of them."""
    script = """
        import functools, jax, jax.numpy as jnp, test_rl_update as t
        from lilo_jax.device.layout import weights_layout
        from lilo_jax.device.mesh import MeshConfig, constrainer, make_mesh, put_rows
        from lilo_jax.rl.update import accumulate_gradients, cut_minibatch

        assert jax.device_count() == 8
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        model = t.build_model(t.CONFIG, constrainer(mesh))
        for name in ("ppo", "vineppo", "gspo"):
            batch = t.training_batch(name)
            expected = t.gradients_of(name, batch, microbatches=2)
            policy, critic = t.params_for(name)
            policy = jax.device_put(policy, weights_layout(mesh, model.axes, policy))
            if critic is not None:
                critic = jax.device_put(critic, weights_layout(mesh, model.critic_axes, critic))
            minibatch = put_rows(mesh, cut_minibatch(batch, jnp.arange(t.ROWS), denominator="present"))
            run = functools.partial(
                accumulate_gradients, model, t.ALGORITHMS[name].build(),
                microbatches=2, temperature=t.TEMPERATURE, chunk=4,
            )
            found = jax.device_get(jax.jit(run)((policy, critic), minibatch)[0])
            difference = t.relative_difference(found, jax.device_get(expected))
            print(name, difference)
            assert difference < 1e-5
    """
    assert len(printed_by(script, devices=8).splitlines()) == 3


# ----------------------------------------------------------------------------------------------------- denominators
def test_weights_of_both_denominators_worked_by_hand():
    """Rows of 5, 1 and 3 live tokens beside one whose grader failed: 9 tokens, 3 live rows of 4."""
    batch = training_batch("rloo")
    rows = jnp.arange(4)
    present = cut_minibatch(batch, rows, denominator="present")
    capacity = cut_minibatch(batch, rows, denominator="capacity")
    np.testing.assert_array_equal(present.mask.sum(axis=1), [5, 1, 3, 0])
    for minibatch, tokens, live_rows in ((present, 9, 3), (capacity, 9 / 3 * 4, 4)):
        np.testing.assert_allclose(minibatch.token_weight, np.asarray(present.mask) / tokens, rtol=1e-6)
        np.testing.assert_allclose(minibatch.sequence_weight, np.asarray(present.mask) / live_rows, rtol=1e-6)


def test_capacity_shrinks_the_step_by_the_share_of_live_rows():
    batch = training_batch("rloo")
    share = float(np.mean(batch.row_mask))
    assert share == 6 / 8
    present, capacity = (gradients_of("rloo", batch, denominator=d)[0] for d in ("present", "capacity"))
    assert relative_difference(capacity, jax.tree.map(lambda g: g * share, present)) < 1e-5
    # Padding the batch further shrinks it further, and leaves "present" alone (tested above).
    wider = gradients_of("rloo", padded(batch, rows=8, slots=3), denominator="capacity")[0]
    assert relative_difference(wider, jax.tree.map(lambda g: g * share / 2, present)) < 1e-5


def test_a_minibatch_without_live_rows_has_zero_weights():
    batch = training_batch("rloo").replace(row_mask=jnp.zeros(ROWS, bool))
    for denominator in ("present", "capacity"):
        minibatch = cut_minibatch(batch, jnp.arange(ROWS), denominator=denominator)
        assert not np.any(minibatch.token_weight)
        assert not np.any(minibatch.sequence_weight)


# -------------------------------------------------------------------------------------------------- optimiser steps
OPTIMIZER = optax.chain(optax.sgd(0.5), optax.scale_by_schedule(lambda count: 1.0))  # plain steps, counted


@functools.cache
def compiled_update(spec, config):
    algorithm = spec.build()

    @jit
    def run(policy, critic, batch, key, plans):
        return update(
            MODEL, algorithm, OPTIMIZER, policy, critic, batch, key, plans, config=config, temperature=TEMPERATURE
        )  # fmt: skip

    return run


def run_update(spec, batch, config, key=0, plans=None):
    policy, critic = params_for(type(spec).__name__.lower())
    policy = Trainable(params=policy, optimizer=OPTIMIZER.init(policy))
    critic = critic and Trainable(params=critic, optimizer=OPTIMIZER.init(critic))
    return compiled_update(spec, config)(policy, critic, batch, jax.random.key(key), plans)


def steps_taken(trained):
    return int(optax.tree_utils.tree_get(trained.optimizer, "count"))


SEVERAL_STEPS = UpdateConfig(epochs=2, minibatches=4, chunk=3, max_ratio=np.inf)
UNSHUFFLED = UpdateConfig(epochs=1, minibatches=2, shuffle=False, chunk=3)
PLAIN_PPO = Ppo(kl_coefficient=0, whiten_rows=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "config"), [(PLAIN_PPO, SEVERAL_STEPS), (Rloo(), SEVERAL_STEPS), (ALGORITHMS["grpo"], UNSHUFFLED)]
)
def test_epochs_times_minibatches_optimiser_steps(spec, config):
    batch = training_batch(type(spec).__name__.lower())
    batch = batch.replace(row_mask=batch.row_mask.at[6].set(True))  # one masked row fills no minibatch of two
    policy, critic, metrics = run_update(spec, batch, config)
    expected = {SEVERAL_STEPS: 8, UNSHUFFLED: 2}[config]
    assert steps_taken(policy) == expected
    assert critic is None or steps_taken(critic) == expected
    assert float(metrics["policy/gradient_norm"].weight) == expected
    tokens = np.asarray(batch.sequences.completion_lengths)[np.asarray(batch.row_mask)].sum()
    assert float(metrics["loss/policy"].weight) == config.epochs * tokens  # each row once per epoch


def test_unshuffled_minibatches_are_consecutive_rows_and_plain_steps():
    batch = training_batch("grpo")
    found, critic, metrics = run_update(ALGORITHMS["grpo"], batch, UNSHUFFLED)
    params, norms = params_for("grpo")[0], []
    for rows in (jnp.arange(4), jnp.arange(4, 8)):
        minibatch = cut_minibatch(batch, rows, denominator="present")
        gradient = compiled_gradients("grpo", 1)((params, None), minibatch)[0][0]
        norms.append(float(optax.tree.norm(gradient)))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    assert critic is None
    assert relative_difference(params, params_for("grpo")[0]) > 1e-2
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics["policy/gradient_norm"].total, sum(norms), rtol=1e-5)


def test_rows_are_dealt_once_per_epoch_and_strided_over_micro_batches():
    config = UpdateConfig(epochs=3, minibatches=2, microbatches=2)
    dealt = np.asarray(deal(jax.random.key(0), jnp.ones(16, bool), config))
    assert dealt.shape == (6, 2, 4)
    for epoch in dealt.reshape(3, -1):
        assert sorted(epoch) == list(range(16))
    assert not np.array_equal(dealt[:2], dealt[2:4])
    in_order = deal(jax.random.key(0), jnp.ones(16, bool), dataclasses.replace(config, epochs=1, shuffle=False))
    np.testing.assert_array_equal(in_order[0], [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_packing_keeps_the_rows_of_a_minibatch_and_puts_neighbours_into_one_micro_batch():
    config = UpdateConfig(epochs=3, minibatches=2, microbatches=2)
    dealt, packed = (
        np.asarray(deal(jax.random.key(0), jnp.ones(16, bool), dataclasses.replace(config, pack=p)))
        for p in (False, True)
    )
    np.testing.assert_array_equal(np.sort(dealt.reshape(6, -1)), packed.reshape(6, -1))


def test_informative_rows_are_spread_evenly_and_neighbours_stay_together():
    rows, informative = jnp.arange(8) * 10, jnp.asarray([0, 1, 1, 0, 0, 0, 1, 1], bool)
    spread = _spread(rows, informative, parts=2)
    np.testing.assert_array_equal(spread, [[0, 10, 20, 30], [40, 50, 60, 70]])
    spread = _spread(rows, jnp.asarray([1, 1, 1, 1, 0, 0, 0, 0], bool), parts=4)
    np.testing.assert_array_equal(spread, [[0, 40], [10, 50], [20, 60], [30, 70]])
    rng = np.random.default_rng(0)
    for share in (0, 0.2, 0.7, 1):
        informative = rng.random(24) < share
        spread = np.asarray(_spread(jnp.arange(24), jnp.asarray(informative), parts=3))
        assert sorted(spread.ravel()) == list(range(24))
        counts = informative[spread].sum(axis=1)
        assert counts.max() - counts.min() <= 1
        kept = spread.ravel()[informative[spread.ravel()]]
        np.testing.assert_array_equal(kept, np.flatnonzero(informative))


WITHOUT_CRITIC_KL_OR_WHITENING = {"rloo", "reinforce", "dapo", "dr_grpo", "gspo", "cispo"}


def with_one_group_of_equal_rewards(name):
    """The first group has equal rewards, zero for an algorithm without a baseline."""
    batch = training_batch(name)
    batch = batch.replace(reward=jnp.where(batch.group == 0, 0, batch.reward))
    algorithm = ALGORITHMS[name].build()
    advantages, returns = jit(algorithm.advantages)(batch)
    return algorithm, batch.replace(advantages=advantages, returns=returns)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rows_without_a_gradient_are_known_where_nothing_but_the_advantage_gives_one(name):
    algorithm, batch = with_one_group_of_equal_rewards(name)
    assert (algorithm.informative is not None) == (name in WITHOUT_CRITIC_KL_OR_WHITENING)
    if algorithm.informative is not None:
        unread = batch.replace(old_logprobs=None, reference_logprobs=None, old_values=None, advantages=None)
        against_others = name != "reinforce"  # its baseline is the mean of the batch
        expected = batch.row_mask & ((batch.group != 0) | (not against_others))
        np.testing.assert_array_equal(algorithm.informative(unread), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITHOUT_CRITIC_KL_OR_WHITENING))
def test_rows_without_a_gradient_may_be_left_out(name):
    """Gradients of each micro-batch's rows and of all, whatever stands in the rows that are left out."""
    algorithm, batch = with_one_group_of_equal_rewards(name)
    expected = gradients_of(name, batch)[0]
    informative = algorithm.informative(batch)
    unread = jnp.where(informative[:, None], batch.old_logprobs, jnp.nan)
    left_out = batch.replace(informative=informative, old_logprobs=unread)
    assert float(optax.tree.norm(expected)) > 1e-3
    for microbatches in (1, 4):
        assert relative_difference(gradients_of(name, left_out, microbatches=microbatches)[0], expected) < 1e-5


@pytest.mark.slow
def test_an_update_of_packed_rows_without_those_that_have_no_gradient_is_the_same():
    algorithm, batch = with_one_group_of_equal_rewards("rloo")
    config = UpdateConfig(epochs=2, minibatches=2, microbatches=2, chunk=3, pack=True)
    tokens = np.pad(batch.sequences.tokens, ((0, 0), (0, PROMPT + SLOTS)))
    batch = batch.replace(sequences=batch.sequences.replace(tokens=tokens))
    informative = batch.replace(informative=algorithm.informative(batch))
    policy, _, _ = run_update(Rloo(), batch, config, key=3)
    dealt = np.asarray(deal(jax.random.key(3), informative.informative, config))
    plans = pack_blocks(informative_sequences(informative), dealt)
    packed, _, metrics = run_update(Rloo(), informative, config, key=3, plans=plans)
    for a, b in zip(jax.tree.leaves(packed.params), jax.tree.leaves(policy.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    lengths = np.asarray(batch.sequences.prompt_lengths + batch.sequences.completion_lengths)
    assert float(metrics["update/useful_tokens"].total) <= config.epochs * lengths[informative.informative].sum()


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_packed_rows_leave_the_update_as_it_is(shared):
    """Two micro-batches in each step, both rows of each packed into one; with a prompt for each group or each row."""
    batch, config = training_batch("ppo"), UpdateConfig(epochs=2, minibatches=2, microbatches=2, chunk=3, pack=True)
    tokens = np.pad(batch.sequences.tokens, ((0, 0), (0, PROMPT + SLOTS)))
    if shared:
        first = np.searchsorted(batch.group, batch.group)
        prompts = np.asarray(batch.sequences.prompt_lengths)[first]
        tokens[:, :PROMPT] = tokens[first, :PROMPT]
        sequences = batch.sequences.replace(tokens=jnp.asarray(tokens), prompt_lengths=jnp.asarray(prompts))
        batch = batch.replace(old_logprobs=compiled_scores()(params_for("ppo")[0], sequences).logprobs)
        batch = batch.replace(sequences=sequences)
    batch = batch.replace(sequences=batch.sequences.replace(tokens=tokens))
    lengths = np.asarray(batch.sequences.prompt_lengths + batch.sequences.completion_lengths)
    key = jax.random.key(3)
    plans = pack_blocks(informative_sequences(batch), np.asarray(deal(key, batch.informative, config)))
    assert plans.sequence.shape == (4, 2, 1, tokens.shape[1])
    policy, critic, metrics = run_update(PLAIN_PPO, batch, config, key=3)
    packed_policy, packed_critic, packed_metrics = run_update(PLAIN_PPO, batch, config, key=3, plans=plans)
    for found, expected in ((packed_policy, policy), (packed_critic, critic)):
        for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    live, computed = np.asarray(batch.row_mask), plans.sequence.size
    assert float(metrics["update/useful_tokens"].total) == config.epochs * lengths[live].sum()
    assert float(metrics["update/computed_tokens"].total) == config.epochs * ROWS * tokens.shape[1]
    assert float(packed_metrics["update/useful_tokens"].total) == useful(
        batch, np.asarray(deal(key, batch.informative, config))
    )
    assert float(packed_metrics["update/computed_tokens"].total) == computed


def useful(batch, dealt) -> int:
    """Tokens that live rows need: of each block those that all begin with, then each prompt once, then the rest."""
    total, tokens = 0, np.asarray(batch.sequences.tokens)
    prompts, completions = (np.asarray(x) for x in (batch.sequences.prompt_lengths, batch.sequences.completion_lengths))
    for block in dealt.reshape(-1, dealt.shape[-1]):
        first = tokens[block, : prompts[block].min()]
        common = int(np.cumprod((first == first[:1]).all(axis=0)).sum())
        live = [row for row in block if batch.row_mask[row]]
        distinct = {tokens[row, : prompts[row]].tobytes() for row in live}
        total += common * bool(live) + sum(len(prompt) // tokens.itemsize - common for prompt in distinct)
        total += completions[live].sum()
    return int(total)


def test_shuffling_depends_on_the_key_alone():
    runs = [run_update(Rloo(), training_batch("rloo"), SEVERAL_STEPS, key)[0].params for key in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, runs[0], runs[1])
    assert relative_difference(runs[2], runs[0]) > 1e-4


@pytest.mark.parametrize("spec", [PLAIN_PPO, Rloo()], ids=lambda x: type(x).__name__)
def test_zero_advantages_without_kl_leave_the_policy_alone(spec):
    name = type(spec).__name__.lower()
    batch, start = training_batch(name), params_for(name)
    policy, critic, _ = run_update(spec, batch.replace(advantages=jnp.zeros((ROWS, SLOTS))), SEVERAL_STEPS)
    jax.tree.map(np.testing.assert_array_equal, policy.params, start[0])
    if critic is not None:
        assert relative_difference(critic.params, start[1]) > 1e-4  # the critic still learns
    policy, _, _ = run_update(spec, batch, SEVERAL_STEPS)
    assert relative_difference(policy.params, start[0]) > 1e-4  # and with advantages the policy does move
    if name != "ppo":
        reward = jnp.where(batch.group == 0, 0.3, 0.7)  # equal within each group
        advantages, _ = jit(spec.build().advantages)(batch.replace(reward=reward))
        policy, _, _ = run_update(spec, batch.replace(advantages=advantages), SEVERAL_STEPS)
        jax.tree.map(np.testing.assert_array_equal, policy.params, start[0])


# ---------------------------------------------------------------------------------------------- steps that are skipped
def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    """One of two minibatches has an infinite advantage: the other's step is taken as if it were alone."""
    batch = training_batch("ppo")
    spoilt = batch.replace(advantages=batch.advantages.at[4, 0].set(jnp.inf))
    config = dataclasses.replace(UNSHUFFLED, max_ratio=np.inf)
    policy, critic, metrics = run_update(PLAIN_PPO, spoilt, config)
    alone, alone_critic, expected = run_update(
        PLAIN_PPO, batch.replace(row_mask=batch.row_mask & (np.arange(ROWS) < 4)), config
    )
    for found, other in ((policy, alone), (critic, alone_critic)):
        assert steps_taken(found) == 1
        for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert [float(metrics["update/skipped_not_finite"].total), float(metrics["update/skipped_high_ratio"].total)] == [
        1,
        0,
    ]
    assert float(metrics["update/skipped_not_finite"].weight) == 2
    assert all(np.isfinite(float(m.total)) for m in metrics.values())
    for name in ("loss/policy", "loss/value", "policy/ratio"):
        mean = float(metrics[name].total / metrics[name].weight)
        assert mean == pytest.approx(float(expected[name].total / expected[name].weight), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_step_without_a_row_takes_no_optimiser_step(name):
    """Weights, momentum and schedule stay as they are bit by bit, whatever weight decay there is."""
    batch = training_batch(name)
    spec = {"ppo": PLAIN_PPO, "grpo": ALGORITHMS["grpo"]}[name]
    start, start_critic, _ = run_update(spec, batch, UNSHUFFLED)
    nobody = batch.replace(row_mask=jnp.zeros(ROWS, bool))
    again = compiled_update(spec, UNSHUFFLED)
    policy, critic, metrics = again(start, start_critic, nobody, jax.random.key(0), None)
    jax.tree.map(np.testing.assert_array_equal, (policy, critic), (start, start_critic))
    assert steps_taken(start) == steps_taken(policy) == 2
    assert float(metrics["update/skipped_empty"].total) == float(metrics["update/skipped_empty"].weight) == 2
    assert float(metrics["update/skipped_not_finite"].total) == 0
    assert float(metrics["policy/gradient_norm"].weight) == 0


def test_a_minibatch_without_a_row_is_left_out_of_a_step_that_has_some():
    batch = training_batch("ppo")
    half = batch.replace(row_mask=batch.row_mask & (np.arange(ROWS) < 4))
    policy, critic, metrics = run_update(PLAIN_PPO, half, UNSHUFFLED)
    assert steps_taken(policy) == steps_taken(critic) == 1
    assert float(metrics["update/skipped_empty"].total) == 1
    assert float(metrics["policy/gradient_norm"].weight) == 1


@pytest.mark.slow
def test_a_mean_ratio_above_the_limit_leaves_the_policy_and_not_the_critic():
    batch = training_batch("ppo")
    far = batch.replace(old_logprobs=batch.old_logprobs - 3)  # every ratio is e^3
    start = params_for("ppo")
    policy, critic, metrics = run_update(PLAIN_PPO, far, UNSHUFFLED)
    jax.tree.map(np.testing.assert_array_equal, policy.params, start[0])
    assert steps_taken(policy) == 0
    assert steps_taken(critic) == 2
    assert relative_difference(critic.params, start[1]) > 1e-4
    assert float(metrics["update/skipped_high_ratio"].total) == 2
    assert float(metrics["policy/ratio"].total / metrics["policy/ratio"].weight) == pytest.approx(np.exp(3), rel=1e-4)
    assert float(metrics["loss/value"].weight) > 0  # the critic's step is taken, and reported
    policy, _, metrics = run_update(PLAIN_PPO, far, dataclasses.replace(UNSHUFFLED, max_ratio=25.0))
    assert steps_taken(policy) == 2
    assert float(metrics["update/skipped_high_ratio"].total) == 0


# ------------------------------------------------------------------------------------------------- advantages of specs
def test_advantages_of_each_algorithm_match_reference():
    batch = training_batch("ppo")
    mask = np.asarray(completion_mask(batch.sequences, SLOTS)) & np.asarray(batch.row_mask)[:, None]
    reward, group, row_mask = map(np.asarray, (batch.reward, batch.group, batch.row_mask))
    gae, returns = reference.generalized_advantages(
        reference.terminal_rewards(reward, mask), np.asarray(batch.old_values), mask, 0.9, 0.8
    )
    found, step = batch.follow_ups, np.asarray(batch.reasoning_step)
    attempts, rewards = np.asarray(found.attempts), np.asarray(found.reward_sum)
    value = rewards / np.maximum(attempts, 1)
    earned = reference.per_token(reward, mask)
    measured = reference.step_advantages(value, attempts > 0, reward, mask, step)
    expected = {
        Ppo(discount=0.9, gae_lambda=0.8, whiten_rows=4): (reference.whiten_blocks(gae, mask, 4), returns),
        Ppo(discount=0.9, gae_lambda=0.8, whitening="none"): (gae, returns),
        Ppo(discount=0.9, gae_lambda=0.8, whitening="batch"): (reference.whiten_blocks(gae, mask, ROWS), returns),
        VinePpo(whitening="none"): (measured, earned),
        VinePpo(whiten_rows=4): (reference.whiten_blocks(measured, mask, 4), earned),
        ReinforcePp(): (reference.whiten_blocks(reference.per_token(reward, mask), mask, ROWS), earned),
        ReinforcePp(baseline="group_mean"): (
            reference.whiten_blocks(
                reference.per_token(reference.group_centred(reward, group, row_mask), mask), mask, ROWS
            ),
            earned,
        ),
        Rloo(): (reference.leave_one_out(reward, group, row_mask), reward),
        Grpo(std_epsilon=0.1): (reference.group_normalized(reward, group, row_mask, 0.1), reward),
    }
    for spec, (advantages, targets) in expected.items():
        if advantages.ndim == 1:
            advantages, targets = (reference.per_token(x, mask) for x in (advantages, targets))
        found = jit(spec.build().advantages)(batch)
        np.testing.assert_allclose(found[0], advantages, rtol=1e-5, atol=2e-6, err_msg=str(spec))
        np.testing.assert_allclose(found[1], targets, rtol=1e-5, atol=2e-6, err_msg=str(spec))
