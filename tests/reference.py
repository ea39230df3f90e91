"""Slow NumPy references, written from the equations with plain loops in float64.

Nothing here imports the package.  A batch of B rows and C slots is described by `mask` [B, C], whose live tokens are
a prefix of each row; what stands outside of it is never read.
"""

import collections
import itertools

import numpy as np


def lengths_of(mask):
    return [int(np.sum(row)) for row in mask]


# ------------------------------------------------------------------------------------------------------- advantages
def terminal_rewards(reward, mask):
    result = np.zeros(np.shape(mask))
    for i, length in enumerate(lengths_of(mask)):
        if length:
            result[i, length - 1] = reward[i]
    return result


def discounted_returns(rewards, mask, discount):
    """G_t = sum_{k >= t} gamma^(k - t) r_k over the row's live tokens."""
    result = np.zeros(np.shape(mask))
    for i, length in enumerate(lengths_of(mask)):
        for t in range(length):
            result[i, t] = sum(discount ** (k - t) * float(rewards[i][k]) for k in range(t, length))
    return result


def generalized_advantages(rewards, values, mask, discount, trace):
    """A_t = sum_{l >= 0} (gamma lambda)^l delta_{t+l},  delta_t = r_t + gamma V_{t+1} - V_t  (GAE eq. 16)."""
    advantages, returns = np.zeros(np.shape(mask)), np.zeros(np.shape(mask))
    for i, length in enumerate(lengths_of(mask)):
        v = [float(values[i][t]) for t in range(length)] + [0.0]
        delta = [float(rewards[i][t]) + discount * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            advantages[i, t] = sum((discount * trace) ** (k - t) * delta[k] for k in range(t, length))
            returns[i, t] = advantages[i, t] + v[t]
    return advantages, returns


def whiten_blocks(advantages, mask, block, epsilon=1e-8):
    result = np.zeros(np.shape(mask))
    for start in range(0, len(mask), block):
        where = [(i, t) for i in range(start, start + block) for t in range(lengths_of(mask)[i])]
        if not where:
            continue
        values = np.array([float(advantages[i][t]) for i, t in where])
        for (i, t), value in zip(where, values, strict=True):
            variance = sum((v - values.mean()) ** 2 for v in values) / max(len(values) - 1, 1)
            result[i, t] = (value - values.mean()) / np.sqrt(variance + epsilon)
    return result


def step_advantages(values, known, reward, mask, step):
    """Row by row: the worth of every state of the response, the missing ones from what follows, then differences."""
    result = np.zeros(np.shape(mask))
    for i, length in enumerate(lengths_of(mask)):
        if not length:
            continue
        begins = [t for t in range(length) if t == 0 or step[i][t] != step[i][t - 1]]
        worth = [*(float(values[i][t]) if known[i][t] else None for t in begins), float(reward[i])]
        for k in reversed(range(len(begins))):
            worth[k] = worth[k + 1] if worth[k] is None else worth[k]
        for k, (begin, end) in enumerate(zip(begins, [*begins[1:], length], strict=True)):
            result[i, begin:end] = worth[k + 1] - worth[k]
    return result


def live_members(group, row_mask):
    """Group to the live rows that it has."""
    members = collections.defaultdict(list)
    for i, (g, live) in enumerate(zip(group, row_mask, strict=True)):
        if live:
            members[int(g)].append(i)
    return members


def leave_one_out(reward, group, row_mask):
    result = np.zeros(len(reward))
    for rows in live_members(group, row_mask).values():
        for i in rows:
            others = [float(reward[j]) for j in rows if j != i]
            result[i] = float(reward[i]) - sum(others) / len(others) if others else 0.0
    return result


def group_normalized(reward, group, row_mask, epsilon):
    result = np.zeros(len(reward))
    for rows in live_members(group, row_mask).values():
        rewards = np.array([float(reward[j]) for j in rows])
        if len(rows) > 1:
            result[rows] = (rewards - rewards.mean()) / (rewards.std(ddof=1) + epsilon)
    return result


def per_token(advantage, mask):
    return np.where(mask, np.asarray(advantage, np.float64)[:, None], 0.0)


# ----------------------------------------------------------------------------------------------------------- losses
def clipped_surrogate(logprob, old_logprob, advantage, low, high):
    """One token: the larger (more pessimistic) of the two negated objectives."""
    ratio = np.exp(float(logprob) - float(old_logprob))
    held = min(max(ratio, 1 - low), 1 + high)
    return max(-ratio * float(advantage), -held * float(advantage))


def clipped_value_loss(value, old_value, target, clip):
    value, old_value, target = float(value), float(old_value), float(target)
    held = min(max(value, old_value - clip), old_value + clip)
    return max((value - target) ** 2, (held - target) ** 2) / 2


def k3(logprob, reference_logprob, clamp):
    ratio = np.exp(float(reference_logprob) - float(logprob))
    return min(max(ratio - 1 - np.log(ratio), 0.0), clamp)


def token_mean(loss, mask):
    """Mean over all live tokens of the minibatch."""
    tokens = [loss(i, t) for i, length in enumerate(lengths_of(mask)) for t in range(length)]
    return sum(tokens) / max(len(tokens), 1)


def row_mean_of_sums(loss, mask, row_mask):
    """Sum over a row's tokens, mean over live rows."""
    sums = [sum(loss(i, t) for t in range(length)) for i, length in enumerate(lengths_of(mask)) if row_mask[i]]
    return sum(sums) / max(len(sums), 1)


def row_mean_of_means(loss, mask, row_mask):
    """Mean over a response's tokens, mean over live responses."""
    means = [
        sum(loss(i, t) for t in range(length)) / max(length, 1)
        for i, length in enumerate(lengths_of(mask))
        if row_mask[i]
    ]
    return sum(means) / max(len(means), 1)


def ppo_policy_loss(logprobs, old, reference, advantages, mask, row_mask, *, epsilon, beta, clamp):
    surrogate = rloo_policy_loss(logprobs, old, advantages, mask, low=epsilon, high=epsilon)
    kl = row_mean_of_sums(lambda i, t: k3(logprobs[i][t], reference[i][t], clamp), mask, row_mask)
    return surrogate + beta * kl


def ppo_value_loss(values, old_values, returns, mask, *, clip):
    return token_mean(lambda i, t: clipped_value_loss(values[i][t], old_values[i][t], returns[i][t], clip), mask)


def rloo_policy_loss(logprobs, old, advantages, mask, *, low, high):
    return token_mean(lambda i, t: clipped_surrogate(logprobs[i][t], old[i][t], advantages[i][t], low, high), mask)


def grpo_policy_loss(logprobs, old, reference, advantages, mask, row_mask, *, epsilon, beta, clamp):
    def loss(i, t):
        surrogate = clipped_surrogate(logprobs[i][t], old[i][t], advantages[i][t], epsilon, epsilon)
        return surrogate + beta * k3(logprobs[i][t], reference[i][t], clamp)

    return row_mean_of_means(loss, mask, row_mask)


def dr_grpo_policy_loss(logprobs, old, advantages, mask, row_mask, *, epsilon):
    sums = row_mean_of_sums(
        lambda i, t: clipped_surrogate(logprobs[i][t], old[i][t], advantages[i][t], epsilon, epsilon), mask, row_mask
    )
    return sums / len(mask[0])


def gspo_policy_loss(logprobs, old, advantages, mask, row_mask, *, low, high):
    lengths = lengths_of(mask)

    def loss(i, t):
        ratio = [float(logprobs[i][u]) - float(old[i][u]) for u in range(lengths[i])]
        return clipped_surrogate(sum(ratio) / lengths[i], 0.0, advantages[i][t], low, high)

    return row_mean_of_means(loss, mask, row_mask)


def clipped_weight(logprob, old_logprob, advantage, low, high):
    ratio = np.exp(float(logprob) - float(old_logprob))
    return -min(max(ratio, 1 - low), 1 + high) * float(advantage) * float(logprob)


def cispo_policy_loss(logprobs, old, advantages, mask, *, low, high):
    return token_mean(lambda i, t: clipped_weight(logprobs[i][t], old[i][t], advantages[i][t], low, high), mask)


def reinforce_policy_loss(logprobs, old, advantages, mask, row_mask):
    return row_mean_of_sums(
        lambda i, t: clipped_weight(logprobs[i][t], old[i][t], advantages[i][t], 1.0, 1.0), mask, row_mask
    )


def group_centred(reward, group, row_mask):
    members = live_members(group, row_mask)
    return np.array(
        [r - np.mean([reward[j] for j in members[g]]) if live else 0.0
         for r, g, live in zip(reward, group, row_mask, strict=True)]
    )  # fmt: skip


def group_statistics(num_groups, group, reward, correct, graded, length, row_mask):
    """Name to a list with one sum per group."""
    names = ("attempts", "successes", "reward_sum", "length_sum", "rollouts")
    sums = {name: [0.0] * num_groups for name in names}
    for i, g in enumerate(int(g) for g in group):
        if not row_mask[i]:
            continue
        sums["rollouts"][g] += 1
        sums["length_sum"][g] += int(length[i])
        if graded[i]:
            sums["attempts"][g] += 1
            sums["successes"][g] += bool(correct[i])
            sums["reward_sum"][g] += float(reward[i])
    return sums


def learnability(outcomes):
    """Population variance of 0/1 outcomes; None if there are none."""
    return float(np.var(np.asarray(outcomes, np.float64))) if len(outcomes) else None


def best_sets(scores, k):
    """All sets of `k` candidates that a selection of the highest scores may return.

    A candidate whose score is None was never measured and may only fill places that measured ones leave.
    """
    level = sorted({s for s in scores if s is not None}, reverse=True)
    chosen = frozenset()
    for score in [*level, None]:
        tied = [i for i, s in enumerate(scores) if s == score]
        free = k - len(chosen)
        if len(tied) >= free:
            return {chosen | set(extra) for extra in itertools.combinations(tied, free)}
        chosen |= set(tied)
    raise AssertionError("fewer candidates than places")


def remembered(pool_size, steps):
    """Lifetime counts after a list of steps, each a list of groups as dictionaries."""
    zero = {"attempts": 0.0, "successes": 0.0, "visits": 0, "last_seen": -1, "length_sum": 0.0, "rollouts": 0.0}
    pool = [dict(zero) for _ in range(pool_size)]
    for step, groups in enumerate(steps):
        for found in groups:
            if found["place"] < 0:
                continue
            known = pool[found["place"]]
            for name in ("attempts", "successes", "length_sum", "rollouts"):
                known[name] += found[name]
            known["visits"] += 1
            known["last_seen"] = step
    return {name: np.array([known[name] for known in pool]) for name in zero}
