"""The alternatives that PPO's settings name: where KL is paid for, how it is steered, entropy, dual clip, lambda."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from test_rl_losses import minibatch_of, random_batch

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.rl.ppo import Ppo
from lilo_jax.training.run import run
from lilo_jax.types import TokenScores

SEEDS = range(3)


def batch_with_rewards(seed):
    batch, _, _ = random_batch(seed, garbage=np.nan)
    reward = np.random.default_rng(seed).normal(size=len(batch.row_mask)).astype(np.float32)
    return batch.replace(reward=jnp.where(batch.row_mask, reward, jnp.nan))


def rewards_less_kl(batch, coefficient):
    """By loops: the outcome at the last token, less beta (log pi - log pi_ref) at each."""
    lengths, live = np.asarray(batch.sequences.completion_lengths), np.asarray(batch.row_mask)
    found = np.zeros(batch.old_logprobs.shape)
    for i, length in enumerate(lengths):
        for t in range(length if live[i] else 0):
            found[i, t] = -coefficient * (float(batch.old_logprobs[i, t]) - float(batch.reference_logprobs[i, t]))
        if live[i] and length:
            found[i, length - 1] += float(batch.reward[i])
    return found, (np.arange(found.shape[1]) < lengths[:, None]) & live[:, None]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trace", [1.0, 0.95, 0.0])
def test_kl_in_the_reward_matches_reference(seed, trace):
    batch = batch_with_rewards(seed)
    rewards, mask = rewards_less_kl(batch, 0.3)
    spec = Ppo(kl="reward", kl_coefficient=0.3, gae_lambda=trace, whitening="none")
    found = jax.jit(spec.build().advantages)(batch)
    expected = reference.generalized_advantages(rewards, np.asarray(batch.old_values), mask, 1.0, trace)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # It is not in the loss as well.
    _, scores, _ = random_batch(seed)
    minibatch = minibatch_of(batch.replace(advantages=found[0], returns=found[1]))
    plain = dataclasses.replace(spec, kl="loss", kl_coefficient=0.0).build()
    assert float(spec.build().policy_loss(scores, minibatch)[0]) == float(plain.policy_loss(scores, minibatch)[0])
    assert spec.build().needs_reference
    assert not plain.needs_reference


def test_the_steered_coefficient_follows_the_divergence():
    """Two rows with divergences of 3 and 1 nats: a mean of 2, against targets below, at, and far above it."""
    batch, _, _ = random_batch(0)
    mask = np.asarray(minibatch_of(batch).mask)
    tokens = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    rows = np.flatnonzero(mask.any(axis=1))
    nats = np.zeros((len(mask), 1))
    nats[rows] = 2 + np.where(np.arange(len(rows)) % 2, 1, -1)[:, None] * (len(rows) % 2 == 0)
    batch = batch.replace(reference_logprobs=jnp.asarray(batch.old_logprobs - np.where(mask, nats / tokens, 5)))
    live = int(np.asarray(batch.row_mask).sum())
    assert live == len(rows)
    for target, error in ((4.0, -0.2), (2.2, 2 / 2.2 - 1), (2.0, 0.0), (1.9, 2 / 1.9 - 1), (0.5, 0.2)):
        algorithm = Ppo(kl="steered_reward", kl_coefficient=0.1, kl_target=target, kl_horizon=50).build()
        memory = algorithm.init()
        assert float(memory["kl_coefficient"]) == pytest.approx(0.1)
        after = jax.jit(algorithm.remember)(batch.replace(memory=memory))
        assert float(after["kl_coefficient"]) == pytest.approx(0.1 * (1 + error * live / 50), rel=1e-5)
        soon = Ppo(kl="steered_reward", kl_coefficient=0.1, kl_target=target, kl_horizon=1).build()
        after = soon.remember(batch.replace(memory=memory))  # never by more than a fifth
        assert float(after["kl_coefficient"]) == pytest.approx(0.1 * (1 + error), rel=1e-5)
    # What is remembered is what rewards are priced with.
    batch = batch.replace(reward=jnp.zeros(len(mask)), memory={"kl_coefficient": jnp.float32(0.7)})
    spec = Ppo(kl="steered_reward", whitening="none")
    fixed = dataclasses.replace(spec, kl="reward", kl_coefficient=0.7).build().advantages(batch)
    jax.tree.map(np.testing.assert_array_equal, spec.build().advantages(batch), fixed)


def test_the_entropy_bonus_is_the_mean_token_entropy():
    batch, scores, _ = random_batch(1)
    entropy = np.random.default_rng(1).random(scores.logprobs.shape).astype(np.float32)
    minibatch = minibatch_of(batch)
    scores = TokenScores(logprobs=scores.logprobs, entropy=jnp.asarray(entropy))
    plain, bonus = (Ppo(kl_coefficient=0, entropy_coefficient=c).build().policy_loss for c in (0.0, 0.25))
    difference = float(bonus(scores, minibatch)[0]) - float(plain(scores, minibatch)[0])
    assert difference == pytest.approx(-0.25 * entropy[np.asarray(minibatch.mask)].mean(), rel=1e-4)


def test_the_dual_clip_changes_only_what_it_bounds():
    batch, scores, _ = random_batch(2)
    batch = batch.replace(old_logprobs=batch.old_logprobs - 1.0)  # ratios around e
    minibatch = minibatch_of(batch)
    mask, advantages = np.asarray(minibatch.mask), np.asarray(batch.advantages)
    gradient = {
        name: jax.grad(
            lambda x, loss=loss: loss(scores.replace(logprobs=x), minibatch)[0]
        )(scores.logprobs)
        for name, loss in {
            "clipped": Ppo(kl_coefficient=0).build().policy_loss,
            "dual_clipped": Ppo(kl_coefficient=0, surrogate="dual_clipped", dual_clip=2.0).build().policy_loss,
        }.items()
    }  # fmt: skip
    ratio = np.exp(np.asarray(scores.logprobs) - np.asarray(batch.old_logprobs))
    bounded = mask & (advantages < 0) & (ratio > 2)
    assert 0 < bounded.sum() < mask.sum()
    assert not np.any(gradient["dual_clipped"][bounded])
    assert np.all(gradient["clipped"][bounded] != 0)
    np.testing.assert_array_equal(gradient["dual_clipped"][~bounded], gradient["clipped"][~bounded])


def test_on_policy_ppo_is_reinforce_with_the_same_advantages():
    """At ratio one, without KL, the gradient of PPO's loss is that of -A log pi, averaged over tokens."""
    batch, _, _ = random_batch(2)
    minibatch = minibatch_of(batch)

    def ppo(x):
        return Ppo(kl_coefficient=0).build().policy_loss(TokenScores(logprobs=x, entropy=0 * x), minibatch)[0]

    def reinforce(x):
        return -jnp.sum(minibatch.advantages * x * minibatch.token_weight)

    found, expected = (jax.grad(f)(minibatch.old_logprobs) for f in (ppo, reinforce))
    assert np.any(found)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_a_run_carries_the_steered_coefficient(tiny_config, tiny_start, tmp_path):
    """Through checkpoints too: two steps, then two more in another process's place, equal four in one."""
    config = configuration.replace(
        tiny_config,
        model__path=tiny_start,
        sft__steps=0,
        num_steps=4,
        algorithm=Ppo(kl="steered_reward", kl_coefficient=0.1, kl_target=0.001, kl_horizon=100, whitening="batch"),
        storage__save_every=2,
    )
    whole = run(config, Launch(output_dir=str(tmp_path / "whole")), bar=False)
    run(config, Launch(output_dir=str(tmp_path / "parts"), stop_at=2), bar=False)
    parts = run(config, Launch(output_dir=str(tmp_path / "parts")), bar=False)
    coefficient = float(whole.state.memory["kl_coefficient"])
    assert coefficient == float(parts.state.memory["kl_coefficient"])
    rows = config.rollout.questions * config.rollout.samples
    assert coefficient != pytest.approx(0.1)
    assert 0.1 * (1 - 0.2 * rows / 100) ** 4 <= coefficient <= 0.1 * (1 + 0.2 * rows / 100) ** 4
    records = [whole.directory.read("metrics"), parts.directory.read("metrics")]
    assert records[0] == records[1]
    expected = {"policy/kl_k1", "policy/kl_k2", "policy/kl_k3", "policy/ratio_clipped", "policy/sampler_gap_max"}
    expected |= {"value/explained_variance", "policy/advantage_variance", "policy/zero_advantage_groups"}
    expected |= {"rollout/truncated_fraction", "rollout/unparsable_fraction", "update/skipped_not_finite"}
    assert expected <= records[0][0].keys()
    for record in records[0]:
        assert record["policy/sampler_gap_max"] >= record["policy/sampler_gap"] >= 0
        assert record["policy/advantage_min"] <= record["policy/advantage_mean"] <= record["policy/advantage_max"]
