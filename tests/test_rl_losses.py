"""Per-token losses, and the minibatch losses of each algorithm, against plain loops and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from lilo_jax.rl import ALGORITHMS
from lilo_jax.rl.cispo import Cispo
from lilo_jax.rl.dapo import Dapo
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.gspo import Gspo
from lilo_jax.rl.losses import (
    clipped_surrogate,
    clipped_value_loss,
    clipped_weight_loss,
    dual_clipped_surrogate,
    kl_k1,
    kl_k2,
    kl_k3,
    sequence_clipped_surrogate,
    truncated_importance,
)
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.reinforce import Reinforce
from lilo_jax.rl.reinforce_pp import ReinforcePp
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import cut_minibatch
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.types import FollowUps, Sequences, TokenScores, TrainBatch

SEEDS = range(3)
ROWS, SLOTS = 8, 6
COEFFICIENT = 0.3  # large enough that a wrong KL average cannot hide behind the surrogate


def random_batch(seed, *, garbage=0.0, extra_rows=0, extra_slots=0):
    """A batch and the new policy's scores and values, with ratios on both sides of the clip range.

    Padding slots hold `garbage` in what the losses may not read; extra rows are masked, extra slots are padding.
    """
    rng = np.random.default_rng(seed)
    row_mask = rng.random(ROWS) < 0.8
    length = rng.integers(1, SLOTS + 1, ROWS)
    mask = np.arange(SLOTS) < length[:, None]
    old, reference_logprobs = -rng.exponential(1.0, (2, ROWS, SLOTS))
    drawn = {
        "logprobs": old + rng.normal(0, 0.4, (ROWS, SLOTS)),
        "old_logprobs": old,
        "reference_logprobs": reference_logprobs,
        "old_values": rng.normal(size=(ROWS, SLOTS)),
        "values": rng.normal(size=(ROWS, SLOTS)),
        "advantages": rng.normal(size=(ROWS, SLOTS)),
        "returns": rng.normal(size=(ROWS, SLOTS)),
    }
    padding = ((0, extra_rows), (0, extra_slots))
    arrays = {}
    for name, values in drawn.items():
        values = np.where(mask, values, 0 if name == "logprobs" else garbage)
        arrays[name] = np.pad(values, padding).astype(np.float32)
    logprobs, values = arrays.pop("logprobs"), arrays.pop("values")
    batch = TrainBatch(
        sequences=Sequences(
            tokens=jnp.zeros((ROWS + extra_rows, 3 + SLOTS + extra_slots), jnp.int32),
            prompt_lengths=jnp.full(ROWS + extra_rows, 3, jnp.int32),
            completion_lengths=jnp.asarray(np.pad(length, (0, extra_rows)).astype(np.int32)),
        ),
        row_mask=jnp.asarray(np.pad(row_mask, (0, extra_rows))),
        informative=jnp.asarray(np.pad(row_mask, (0, extra_rows))),
        group=jnp.zeros(ROWS + extra_rows, jnp.int32),
        reward=jnp.zeros(ROWS + extra_rows),
        sampler_logprobs=jnp.zeros((ROWS + extra_rows, SLOTS + extra_slots)),
        place=jnp.zeros(1, jnp.int32),
        group_mask=jnp.ones(1, bool),
        reasoning_step=jnp.zeros(logprobs.shape, jnp.int32),
        follow_ups=FollowUps.none(logprobs.shape),
        **{name: jnp.asarray(value) for name, value in arrays.items()},
    )
    scores = TokenScores(logprobs=jnp.asarray(logprobs), entropy=jnp.zeros(logprobs.shape))
    return batch, scores, jnp.asarray(values)


def minibatch_of(batch, denominator="present"):
    return cut_minibatch(batch, jnp.arange(batch.row_mask.shape[0]), denominator=denominator)


def expected_losses(name, batch, scores, values):
    """(policy loss, value loss or None) of the whole batch as one minibatch, in float64."""
    row_mask = np.asarray(batch.row_mask)
    slots = batch.advantages.shape[1]
    mask = (np.arange(slots) < np.asarray(batch.sequences.completion_lengths)[:, None]) & row_mask[:, None]
    new, old, ref = map(np.asarray, (scores.logprobs, batch.old_logprobs, batch.reference_logprobs))
    advantages = np.asarray(batch.advantages)
    plain = {
        "rloo": lambda: reference.rloo_policy_loss(new, old, advantages, mask, low=0.2, high=0.28),
        "dapo": lambda: reference.rloo_policy_loss(new, old, advantages, mask, low=0.2, high=0.28),
        "reinforce_pp": lambda: reference.rloo_policy_loss(new, old, advantages, mask, low=0.2, high=0.2),
        "dr_grpo": lambda: reference.dr_grpo_policy_loss(new, old, advantages, mask, row_mask, epsilon=0.2),
        "gspo": lambda: reference.gspo_policy_loss(new, old, advantages, mask, row_mask, low=3e-4, high=4e-4),
        "cispo": lambda: reference.cispo_policy_loss(new, old, advantages, mask, low=1.0, high=0.28),
        "reinforce": lambda: reference.reinforce_policy_loss(new, old, advantages, mask, row_mask),
    }
    if name in plain:
        return plain[name](), None
    settings = {"epsilon": 0.2, "beta": COEFFICIENT, "clamp": 10.0}
    if name == "grpo":
        return reference.grpo_policy_loss(new, old, ref, advantages, mask, row_mask, **settings), None
    policy = reference.ppo_policy_loss(new, old, ref, advantages, mask, row_mask, **settings)
    if name == "vineppo":
        return policy, None
    old_values, returns = np.asarray(batch.old_values), np.asarray(batch.returns)
    return policy, reference.ppo_value_loss(np.asarray(values), old_values, returns, mask, clip=0.2)


def algorithm_named(name):
    special = {
        "ppo": Ppo(kl_coefficient=COEFFICIENT),
        "vineppo": VinePpo(kl_coefficient=COEFFICIENT),
        "grpo": Grpo(kl_coefficient=COEFFICIENT),
        "dr_grpo": DrGrpo(length=SLOTS),
    }
    return special.get(name) or ALGORITHMS[name]()


def found_losses(name, batch, scores, values):
    algorithm = algorithm_named(name).build()
    policy, metrics = algorithm.policy_loss(scores, minibatch_of(batch))
    if algorithm.value_loss is None:
        return policy, None, metrics
    value, value_metrics = algorithm.value_loss(values, minibatch_of(batch))
    return policy, value, metrics | value_metrics


# ----------------------------------------------------------------------------------------------------- one token
def test_clipped_surrogate_worked_by_hand():
    """Advantage +-1 at ratios 0.5, 1 and 2, clipped to [0.8, 1.28]: only the hopeful side is held back."""
    old = jnp.zeros(6)
    new = jnp.log(jnp.array([0.5, 1.0, 2.0, 0.5, 1.0, 2.0]))
    advantages = jnp.array([1.0, 1, 1, -1, -1, -1])
    found = clipped_surrogate(new, old, advantages, clip_low=0.2, clip_high=0.28)
    np.testing.assert_allclose(found, [-0.5, -1, -1.28, 0.8, 1, 2], rtol=1e-6)
    slope = jax.grad(lambda x: clipped_surrogate(x, old, advantages, clip_low=0.2, clip_high=0.28).sum())(new)
    np.testing.assert_allclose(slope, [-0.5, -1, 0, 0, 1, 2], rtol=1e-6)


def test_clipped_value_loss_worked_by_hand():
    """V_old = 0, c = 0.2: the value held at 0.2 is further from 1 than 0.7, and nearer to 0 than 0.7."""
    found = clipped_value_loss(jnp.array([0.7, 0.7]), jnp.zeros(2), jnp.array([1.0, 0.0]), clip=0.2)
    np.testing.assert_allclose(found, [0.5 * 0.8**2, 0.5 * 0.7**2], rtol=1e-6)


def test_k3_worked_by_hand():
    """For d = 0, log 2, -log 2 and one beyond the clamp."""
    difference = jnp.array([0.0, np.log(2), -np.log(2), 5.0])
    found = kl_k3(-difference, jnp.zeros(4), clamp=10.0)
    np.testing.assert_allclose(found, [0, 1 - np.log(2), np.log(2) - 0.5, 10], rtol=1e-6)


def test_the_dual_clip_bounds_only_a_large_ratio_with_a_negative_advantage():
    old, new = jnp.zeros(4), jnp.log(jnp.array([2.0, 5.0, 5.0, 0.5]))
    advantages = jnp.array([-1.0, -1, 1, -1])
    found = dual_clipped_surrogate(new, old, advantages, clip_low=0.2, clip_high=0.2, dual_clip=3.0)
    np.testing.assert_allclose(found, [2, 3, -1.2, 0.8], rtol=1e-6)


def test_a_sequence_ratio_of_one_token_is_the_tokens():
    rng = np.random.default_rng(0)
    new, old, advantages = rng.normal(size=(3, 20, 1)).astype(np.float32)
    mask = np.ones((20, 1), bool)
    clip = {"clip_low": 0.2, "clip_high": 0.3}
    np.testing.assert_allclose(
        sequence_clipped_surrogate(new, old, advantages, mask, **clip),
        clipped_surrogate(new, old, advantages, **clip),
        rtol=1e-5,
    )


def test_a_clipped_weight_keeps_the_gradient_of_every_token():
    """Ratios 0.5 and 4 with the weight at most 1.28: gradients are -w A, none is zero."""
    old = jnp.zeros(2)
    new = jnp.log(jnp.array([0.5, 4.0]))
    gradient = jax.grad(
        lambda x: clipped_weight_loss(x, old, jnp.array([1.0, 1.0]), clip_low=1.0, clip_high=0.28).sum()
    )(new)
    np.testing.assert_allclose(gradient, [-0.5, -1.28], rtol=1e-6)


def test_truncated_importance_is_capped_above_only():
    found = truncated_importance(jnp.log(jnp.array([0.1, 1.0, 9.0])), jnp.zeros(3), cap=2.0)
    np.testing.assert_allclose(found, [0.1, 1, 2], rtol=1e-6)


def test_k1_and_k2_have_their_stated_expectations():
    """Of k1 it is the divergence; of the gradient of k2, taken under the policy, it is the divergence's gradient."""
    logits, q = jax.random.normal(jax.random.key(1), (2, 7))
    log_q = jax.nn.log_softmax(q)

    def divergence(x):
        return jnp.sum(jax.nn.softmax(x) * (jax.nn.log_softmax(x) - log_q))

    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(jnp.sum(p * kl_k1(jnp.log(p), log_q)), divergence(logits), rtol=1e-5)
    k2_gradient = jax.grad(lambda x: jnp.sum(p * kl_k2(jax.nn.log_softmax(x), log_q)))(logits)
    np.testing.assert_allclose(k2_gradient, jax.grad(divergence)(logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_token_losses_match_reference(seed):
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, 200)).astype(np.float32)
    for low, high in [(0.2, 0.2), (0.1, 0.5), (0.0, 0.0)]:
        found = jax.jit(functools.partial(clipped_surrogate, clip_low=low, clip_high=high))(a, b, c)
        expected = [reference.clipped_surrogate(*x, low, high) for x in zip(a, b, c, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    expected = [reference.clipped_value_loss(*x, 0.3) for x in zip(a, b, c, strict=True)]
    np.testing.assert_allclose(clipped_value_loss(a, b, c, clip=0.3), expected, rtol=1e-5, atol=1e-7)
    expected = [reference.k3(*x, 2.0) for x in zip(a, b, strict=True)]
    np.testing.assert_allclose(kl_k3(a, b, clamp=2.0), expected, rtol=1e-5, atol=1e-6)


def test_k3_is_an_unbiased_estimate_of_the_kl_divergence():
    """Its expectation under the policy is sum_x p(x) log(p(x) / q(x)), exactly."""
    p, q = (jax.nn.softmax(x) for x in jax.random.normal(jax.random.key(0), (2, 9)))
    expectation = jnp.sum(p * kl_k3(jnp.log(p), jnp.log(q), clamp=1e9))
    np.testing.assert_allclose(expectation, jnp.sum(p * jnp.log(p / q)), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ minibatches
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_minibatch_losses_match_reference(name, seed):
    batch, scores, values = random_batch(seed)
    policy, value, _ = found_losses(name, batch, scores, values)
    expected_policy, expected_value = expected_losses(name, batch, scores, values)
    np.testing.assert_allclose(policy, expected_policy, rtol=1e-5)
    assert abs(expected_policy) > 1e-3
    if expected_value is None:
        assert value is None
    else:
        np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    jitted = jax.jit(lambda *x: found_losses(name, *x))(batch, scores, values)
    np.testing.assert_allclose(jitted[0], policy, rtol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_losses_ignore_padding(name):
    """Garbage in padding slots, more slots and more masked rows leave losses and metrics as they were."""
    plain = found_losses(name, *random_batch(1))
    padded = found_losses(name, *random_batch(1, garbage=3.0, extra_rows=3, extra_slots=2))
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    if plain[1] is not None:
        np.testing.assert_allclose(padded[1], plain[1], rtol=1e-6)
    assert padded[2].keys() == plain[2].keys()
    for key, mean in plain[2].items():
        np.testing.assert_allclose(padded[2][key].total / padded[2][key].weight, mean.total / mean.weight, rtol=1e-6)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_not_a_number_in_the_padding_changes_neither_losses_nor_gradients(name, garbage):
    def with_gradients(batch, scores, values):
        hidden = ~minibatch_of(batch).mask

        def total(logprobs, entropy, values):
            spoilt = (jnp.where(hidden, garbage, x) for x in (logprobs, entropy, values))
            logprobs, entropy, values = (x * jnp.where(hidden, garbage, 1) for x in spoilt)
            policy, value, _ = found_losses(name, batch, TokenScores(logprobs=logprobs, entropy=entropy), values)
            return policy + (0 if value is None else value)

        loss, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(scores.logprobs, scores.entropy, values)
        return [loss, *(np.where(hidden, 0, g) for g in gradients)]

    plain, spoilt = with_gradients(*random_batch(1, garbage=0.0)), with_gradients(*random_batch(1, garbage=garbage))
    assert np.isfinite(plain[0])
    assert any(np.any(g) for g in plain[1:])
    jax.tree.map(np.testing.assert_array_equal, spoilt, plain)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_batch_without_live_rows_has_zero_loss_and_gradient(name):
    batch, scores, values = random_batch(0)
    batch = batch.replace(row_mask=jnp.zeros(ROWS, bool))

    def total(logprobs, values):
        policy, value, _ = found_losses(name, batch, scores.replace(logprobs=logprobs), values)
        return policy + (0 if value is None else value)

    assert float(total(scores.logprobs, values)) == 0
    for gradient in jax.grad(total, argnums=(0, 1))(scores.logprobs, values):
        assert not np.any(gradient)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_at_ratio_one_is_that_of_advantage_times_logprob(name):
    batch, _, _ = random_batch(2)
    batch = batch.replace(reference_logprobs=batch.old_logprobs)  # the KL has no gradient where the two agree
    if name == "gspo":  # whose ratio is of a whole response: its tokens share their advantage
        batch = batch.replace(advantages=jnp.broadcast_to(batch.advantages[:, :1], batch.advantages.shape))
    minibatch = minibatch_of(batch)
    policy_loss = algorithm_named(name).build().policy_loss

    def loss(logprobs):
        return policy_loss(TokenScores(logprobs=logprobs, entropy=jnp.zeros_like(logprobs)), minibatch)[0]

    found = np.asarray(jax.grad(loss)(batch.old_logprobs))
    mask, rows = np.asarray(minibatch.mask), np.asarray(batch.row_mask).sum()
    weight = mask / mask.sum()
    if name in ("grpo", "gspo"):
        weight = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1) / rows
    if name == "dr_grpo":
        weight = mask / SLOTS / rows
    if name == "reinforce":
        weight = mask / rows
    assert mask.sum() > 10
    np.testing.assert_allclose(found, -np.asarray(batch.advantages) * weight, rtol=1e-5, atol=1e-8)


def test_token_mean_and_sequence_mean_worked_by_hand():
    """Rows of 1 and 3 tokens with advantages 4 and 8 at ratio one.

    Token mean: -(4 + 3 * 8) / 4 = -7.  Mean of response means: -(4 + 8) / 2 = -6.
    The k3 of a token with d = log 2 is 1 - log 2; its sum over tokens, mean over rows: (1 + 3) / 2 = 2 of them.
    """
    batch, scores, _ = random_batch(0)
    rows = {"tokens": jnp.zeros((2, 7), jnp.int32), "prompt_lengths": jnp.array([3, 3])}
    ones = jnp.arange(4)[None] < jnp.array([[1], [3]])
    batch = batch.replace(
        sequences=Sequences(**rows, completion_lengths=jnp.array([1, 3])),
        row_mask=jnp.ones(2, bool),
        informative=jnp.ones(2, bool),
        sampler_logprobs=jnp.zeros((2, 4)),
        old_logprobs=jnp.zeros((2, 4)),
        reference_logprobs=jnp.where(ones, jnp.log(2.0), 0),
        old_values=jnp.zeros((2, 4)),
        advantages=jnp.where(ones, jnp.array([[4.0], [8.0]]), 0),
        returns=jnp.zeros((2, 4)),
    )
    scores = TokenScores(logprobs=jnp.zeros((2, 4)), entropy=jnp.zeros((2, 4)))
    token_kl = 1 - np.log(2)

    def loss(spec):
        return float(spec.build().policy_loss(scores, minibatch_of(batch))[0])

    assert loss(Rloo()) == pytest.approx(-7)
    assert loss(Ppo(kl_coefficient=0)) == pytest.approx(-7)
    assert loss(Ppo(kl_coefficient=1.0)) == pytest.approx(-7 + 2 * token_kl)
    assert loss(Grpo()) == pytest.approx(-6)
    assert loss(Grpo(kl_coefficient=1.0)) == pytest.approx(-6 + token_kl)
    assert loss(Dapo()) == pytest.approx(-7)
    assert loss(Gspo()) == pytest.approx(-6)
    assert loss(DrGrpo()) == pytest.approx(-(4 + 3 * 8) / 2 / 4)  # sums over the 4 slots, mean over 2 rows
    assert loss(Reinforce()) == loss(Cispo()) == 0  # log pi is 0: only its gradient counts


def test_reported_metrics_are_token_means():
    batch, scores, _ = random_batch(0)
    scores = scores.replace(entropy=jnp.broadcast_to(jnp.arange(float(SLOTS)), (ROWS, SLOTS)))
    _, metrics = Rloo().build().policy_loss(scores, minibatch_of(batch))
    mask = np.asarray(minibatch_of(batch).mask)
    log_ratio = (np.asarray(scores.logprobs, np.float64) - np.asarray(batch.old_logprobs))[mask]
    ratio = np.exp(log_ratio)
    expected = {
        "policy/ratio": ratio.mean(),
        "policy/clip_fraction": np.mean((ratio < 0.8) | (ratio > 1.28)),
        "policy/ratio_clipped": np.mean(np.clip(ratio, 0.8, 1.28)),
        "policy/kl_k1": -np.mean(log_ratio),
        "policy/kl_k2": np.mean(log_ratio**2) / 2,
        "policy/kl_k3": np.mean(ratio - 1 - log_ratio),
        "policy/entropy": np.mean(np.broadcast_to(np.arange(SLOTS), mask.shape)[mask]),
        "loss/policy": reference.rloo_policy_loss(
            np.asarray(scores.logprobs), np.asarray(batch.old_logprobs), np.asarray(batch.advantages), mask,
            low=0.2, high=0.28,
        ),
    }  # fmt: skip
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name].total / metrics[name].weight, value, rtol=1e-5, err_msg=name)


def test_which_algorithms_need_a_critic_or_a_reference():
    needs = {name: (cls().build().needs_values, cls().build().needs_reference) for name, cls in ALGORITHMS.items()}
    assert needs.pop("ppo") == (True, True)
    assert needs.pop("vineppo") == (False, True)
    assert set(needs.values()) == {(False, False)}
    assert not Ppo(kl_coefficient=0).build().needs_reference
    assert Grpo(kl_coefficient=0.1).build().needs_reference


def test_which_algorithms_compare_within_groups():
    """With groups of one their advantages are 0 whatever is rewarded; the others' are not."""
    two = {name for name, cls in ALGORITHMS.items() if cls().build().least_samples == 2}
    assert two == {"rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"}
    assert ReinforcePp(baseline="group_mean").build().least_samples == 2


# ---------------------------------------------------------------------------------------------- finite differences
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_are_finite_differences_of_the_loss(name):
    """In float64, through a softmax of linear features and a linear critic, off-policy and with every penalty on.

    CISPO's and REINFORCE's importance weight has no gradient by definition: it is held where it is.
    """
    with jax.enable_x64(True):
        batch, _, _ = random_batch(3)
        rng, shape = np.random.default_rng(3), batch.advantages.shape
        features, critic_features = rng.normal(size=(2, *shape, 4))
        tokens = rng.integers(0, 5, shape)[..., None]

        def logprobs(policy):
            log_p = jax.nn.log_softmax(features @ policy)
            return jnp.take_along_axis(log_p, tokens, axis=-1)[..., 0], -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

        weights = {"policy": jnp.asarray(rng.normal(size=(4, 5))), "critic": jnp.asarray(rng.normal(size=4))}
        old, _ = logprobs(weights["policy"] + 0.2 * rng.normal(size=(4, 5)))
        batch = batch.replace(old_logprobs=old, reference_logprobs=old + 0.3 * rng.normal(size=shape))
        special = {
            "ppo": Ppo(kl_coefficient=COEFFICIENT, entropy_coefficient=0.3, surrogate="dual_clipped", dual_clip=1.3),
            "gspo": Gspo(clip_low=0.1, clip_high=0.1),
        }
        algorithm, minibatch = special.get(name, algorithm_named(name)).build(), minibatch_of(batch)

        def loss(weights):
            new, entropy = logprobs(weights["policy"])
            total, _ = algorithm.policy_loss(TokenScores(logprobs=new, entropy=entropy), minibatch)
            if algorithm.value_loss is not None:
                total += algorithm.value_loss(critic_features @ weights["critic"], minibatch)[0]
            return total

        def loss_with_held_weights(moved):
            bound, average = {
                "cispo": (1.28, minibatch.token_weight), "reinforce": (2.0, minibatch.sequence_weight)
            }[name]  # fmt: skip
            held = jnp.clip(jnp.exp(logprobs(weights["policy"])[0] - old), 0, bound)
            return -jnp.sum(held * minibatch.advantages * logprobs(moved["policy"])[0] * average)

        gradient = jax.grad(loss)(weights)
        measured = loss_with_held_weights if name in ("cispo", "reinforce") else loss
        for seed in range(3):
            keys = jax.random.split(jax.random.key(seed), 2)
            direction = {k: jax.random.normal(key, weights[k].shape) for k, key in zip(weights, keys, strict=True)}
            ahead, behind = (
                float(measured(jax.tree.map(lambda w, d, h=h: w + h * d, weights, direction))) for h in (1e-6, -1e-6)
            )
            found = sum(float(jnp.sum(gradient[k] * direction[k])) for k in weights)
            assert abs(found) > 1e-4
            assert found == pytest.approx((ahead - behind) / 2e-6, rel=1e-5)
