"""What updates report of a batch, against NumPy over the live tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_rl_losses import minibatch_of, random_batch

from lilo_jax.rl.metrics import advantage_metrics, follow_up_metrics, sampler_metrics, value_metrics
from lilo_jax.types import FollowUps


def means(metrics):
    return {name: float(m.total / m.weight) for name, m in metrics.items() if float(m.weight)}


@pytest.mark.parametrize("seed", range(3))
def test_batch_metrics_match_numpy(seed):
    batch, _, _ = random_batch(seed, garbage=np.nan)
    rows = len(batch.advantages)
    mask = np.asarray(minibatch_of(batch).mask)
    group = np.arange(rows) % 3
    rng = np.random.default_rng(seed)
    batch = batch.replace(
        group=jnp.asarray(group),
        place=jnp.arange(4),
        group_mask=jnp.array([True, True, True, False]),
        advantages=jnp.where(group[:, None] == 1, jnp.where(mask, 0, jnp.nan), batch.advantages),
        sampler_logprobs=jnp.where(mask, batch.old_logprobs + rng.normal(size=mask.shape), jnp.nan),
    )
    advantages, values, returns = (
        np.asarray(x)[mask].astype(np.float64) for x in (batch.advantages, batch.old_values, batch.returns)
    )
    gap = np.abs(np.asarray(batch.old_logprobs) - np.asarray(batch.sampler_logprobs))[mask]
    found = means(jax.jit(advantage_metrics)(batch, mask)) | means(sampler_metrics(batch, mask))
    found |= means(value_metrics(batch, mask))
    expected = {
        "policy/advantage_mean": advantages.mean(),
        "policy/advantage_variance": advantages.var(),
        "policy/advantage_abs": np.abs(advantages).mean(),
        "policy/advantage_min": advantages.min(),
        "policy/advantage_max": advantages.max(),
        "policy/zero_advantage_groups": 1 / 3,
        "policy/sampler_gap": gap.mean(),
        "policy/sampler_gap_max": gap.max(),
        "value/mean": values.mean(),
        "value/squared_error": np.mean((values - returns) ** 2),
        "value/return_variance": returns.var(),
        "value/explained_variance": 1 - np.mean((values - returns) ** 2) / returns.var(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_follow_up_metrics_match_numpy():
    batch, _, _ = random_batch(0)
    mask, rng = np.asarray(minibatch_of(batch).mask), np.random.default_rng(0)
    asked = np.where(rng.random(mask.shape) < 0.5, 9, 0).astype(np.int32)
    attempts = (asked * (rng.random(mask.shape) < 0.8)).astype(np.float32)
    rewards = np.round(attempts * rng.random(mask.shape)).astype(np.float32)
    step = np.cumsum(asked > 0, axis=1)
    batch = batch.replace(reasoning_step=step, follow_ups=FollowUps(asked=asked, attempts=attempts, reward_sum=rewards))
    found = means(follow_up_metrics(batch, mask))
    known = mask & (attempts > 0)
    values = rewards[known] / attempts[known]
    live = mask.any(axis=1)
    assert found["follow_up/rollouts"] == 9
    assert found["follow_up/value_mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert found["follow_up/value_variance"] == pytest.approx(values.var(), rel=1e-4)
    assert found["follow_up/steps"] == pytest.approx(np.where(mask, step, 0).max(axis=1)[live].mean() + 1)


def test_equal_returns_leave_nothing_to_explain():
    """As in a step whose answers are all right: the returns are advantages plus values, one up to rounding."""
    batch, _, _ = random_batch(0)
    mask = np.asarray(minibatch_of(batch).mask)
    returns = (1 - batch.old_values) + batch.old_values
    assert len(np.unique(np.asarray(returns)[mask])) > 1
    assert "value/explained_variance" not in means(value_metrics(batch.replace(returns=returns), mask))


def test_nothing_is_reported_of_nothing():
    batch, _, _ = random_batch(0)
    mask = np.zeros(batch.advantages.shape, bool)
    for metrics in (advantage_metrics(batch, mask), sampler_metrics(batch, mask), value_metrics(batch, mask)):
        for name, mean in metrics.items():
            assert np.isfinite(float(mean.total)), name
    assert "value/explained_variance" not in means(value_metrics(batch, mask))
