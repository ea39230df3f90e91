"""The algorithms on a tabular policy, where success rate, values and policy gradient are known by enumeration.

A response is a chain of a few tokens; token t is drawn from softmax(theta[t, token before]).  The reward depends on the
whole response, so the state whose value is asked for is the prefix.  Expected gradients go through the code of a real
update: `advantages`, `cut_minibatch`, and the derivative of `policy_loss` in theta.

Theorem 3.1 is that of Foster et al. 2025, "Learning to Reason at the Frontier of Learnability" (arXiv 2502.12272).
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lilo_jax.rl.cispo import Cispo
from lilo_jax.rl.dapo import Dapo
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.gspo import Gspo
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.reinforce import Reinforce
from lilo_jax.rl.reinforce_pp import ReinforcePp
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import cut_minibatch
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.training.follow_ups import States
from lilo_jax.types import Estimate, FollowUps, Sequences, TokenScores, TrainBatch

LENGTH, TOKENS = 3, 3


# ------------------------------------------------------------------------------------------------------- the world
def prefix_codes(tokens, base):
    """Int [..., L + 1]: the number that the first t tokens spell in the base."""
    codes = [0 * tokens[..., 0]]
    for t in range(tokens.shape[-1]):
        codes.append(codes[-1] * base + tokens[..., t])
    return (np if isinstance(tokens, np.ndarray) else jnp).stack(codes, axis=-1)


def tokens_before(tokens):
    """Int [..., L]: what the policy sees when it chooses token t; 0 for the first."""
    return (np if isinstance(tokens, np.ndarray) else jnp).concatenate([0 * tokens[..., :1], tokens[..., :-1]], -1)


@dataclasses.dataclass(frozen=True)
class World:
    """A policy and what its responses earn, in float64, with one entry for each of the X = A^L token sequences.

    Attributes:
        theta: [L, A, A], logits by place, token before, token.
        reward: [X], in the order in which the sequences are counted.
        lengths: [X]; what follows is never read, and must not change the reward.
    """

    theta: np.ndarray
    reward: np.ndarray
    lengths: np.ndarray

    @functools.cached_property
    def tokens(self):
        """Int [X, L]."""
        return np.array(list(itertools.product(range(self.theta.shape[2]), repeat=len(self.theta))))

    @functools.cached_property
    def codes(self):
        """Int [X, L], the prefix before each token."""
        return prefix_codes(self.tokens, self.theta.shape[2])[:, :-1]

    @functools.cached_property
    def policy(self):
        """[L, A, A]."""
        weights = np.exp(self.theta - self.theta.max(axis=2, keepdims=True))
        return weights / weights.sum(axis=2, keepdims=True)

    @functools.cached_property
    def chance(self):
        """[X]."""
        return self.policy[np.arange(len(self.theta)), tokens_before(self.tokens), self.tokens].prod(axis=1)

    @property
    def success(self):
        """J = p."""
        return self.chance @ self.reward

    @functools.cached_property
    def scores(self):
        """g_t = d log pi(a_t | s_t) / d theta, [X, L, L, A, A]; zero behind a response's end."""
        scores, before = np.zeros((*self.tokens.shape, *self.theta.shape)), tokens_before(self.tokens)
        for x, t in np.argwhere(np.arange(len(self.theta)) < self.lengths[:, None]):
            scores[x, t, t, before[x, t]] = (
                np.eye(self.theta.shape[2])[self.tokens[x, t]] - self.policy[t, before[x, t]]
            )
        return scores

    @functools.cached_property
    def gradient(self):
        """The gradient of J: E[r sum_t g_t]."""
        return np.einsum("x,x,xt...->...", self.chance, self.reward, self.scores)

    @functools.cached_property
    def values(self):
        """V of each prefix, [L, A^(L-1)] by place and code."""
        values = np.zeros((len(self.theta), self.theta.shape[2] ** (len(self.theta) - 1)))
        for t, codes in enumerate(self.codes.T):
            found = np.bincount(codes, self.chance * self.reward) / np.bincount(codes, self.chance)
            values[t, : len(found)] = found
        return values

    def increments(self, values):
        """V(s_{t+1}) - V(s_t) of any table of values, [X, L]; the finished response is worth its reward."""
        before = np.take_along_axis(values.T, self.codes, axis=0)
        after = np.concatenate([before[:, 1:], self.reward[:, None]], axis=1)
        last = np.arange(len(self.theta)) == self.lengths[:, None] - 1
        live = np.arange(len(self.theta)) < self.lengths[:, None]
        return np.where(live, np.where(last, self.reward[:, None], after) - before, 0)

    def expected(self, advantages):
        """E[sum_t A_t g_t] of the advantages [X, L]."""
        return np.einsum("x,xt,xt...->...", self.chance, advantages, self.scores)


def random_world(seed, *, scale=0.7, right=0.4, length=LENGTH, tokens=TOKENS):
    """Responses of equal length, each of which is right with probability `right`."""
    rng = np.random.default_rng(seed)
    reward = (rng.random(tokens**length) < right).astype(float)
    lengths = np.full(tokens**length, length)
    return World(scale * rng.standard_normal((length, tokens, tokens)), reward, lengths)


def ragged_world(seed):
    """Responses end with token 0 or after LENGTH tokens, and are right with probability 0.4."""
    rng, plain = np.random.default_rng(seed), random_world(seed)
    ends = plain.tokens == 0
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, LENGTH)
    right = rng.random((LENGTH + 1, TOKENS**LENGTH)) < 0.4
    cut = np.take_along_axis(prefix_codes(plain.tokens, TOKENS), lengths[:, None], axis=1)[:, 0]
    return dataclasses.replace(plain, reward=right[lengths, cut].astype(float), lengths=lengths)


WORLD, RAGGED = random_world(0), ragged_world(1)
WRONG_VALUES = np.random.default_rng(1).normal(size=WORLD.values.shape)


def norm2(x):
    return float(np.sum(np.square(x)))


# --------------------------------------------------------------------------------------------- through our own code
def draw(key, theta, given, kept):
    """Responses [n, L] drawn from the policy; the first `kept` tokens of each are those `given` [n, L]."""
    chosen = given
    for t, place in enumerate(jax.random.split(key, theta.shape[0])):
        before = 0 * given[:, 0] if t == 0 else chosen[:, t - 1]
        token = jax.random.categorical(place, theta[t, before])
        chosen = chosen.at[:, t].set(jnp.where(t < kept, given[:, t], token))
    return chosen


def logprobs(theta, tokens):
    return jax.nn.log_softmax(theta)[jnp.arange(theta.shape[0]), tokens_before(tokens), tokens]


BELIEF = (0.3, 0.03)
"""Mean and variance of what is believed, which is not the truth: Beta(1.8, 4.2)."""


def batch_of(world, rows, values, *, group=None, row_mask=None):
    """The responses `rows` [B] as a batch, with values [L, A^(L-1)] as a critic's and as those that rollouts found."""
    ones = jnp.ones(rows.shape, bool)
    row_mask = ones if row_mask is None else jnp.asarray(row_mask)
    group = np.zeros(rows.shape[0], np.int32) if group is None else group
    tokens, codes, lengths = (jnp.asarray(x, jnp.int32)[rows] for x in (world.tokens, world.codes, world.lengths))
    values = jnp.asarray(values, jnp.float32)[jnp.arange(tokens.shape[1]), codes]
    old, zeros = logprobs(jnp.asarray(world.theta, jnp.float32), tokens), jnp.zeros(tokens.shape)
    return TrainBatch(
        sequences=Sequences(
            tokens=jnp.pad(tokens, ((0, 0), (1, 0))),  # a prompt of one token
            prompt_lengths=ones.astype(jnp.int32),
            completion_lengths=lengths,
        ),
        row_mask=row_mask,
        informative=row_mask,
        group=jnp.asarray(group),
        reward=jnp.where(row_mask, jnp.asarray(world.reward, jnp.float32)[rows], 7),
        sampler_logprobs=old,
        place=jnp.arange(np.max(group) + 1),
        group_mask=jnp.ones(np.max(group) + 1, bool),
        reasoning_step=jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
        follow_ups=FollowUps(asked=jnp.ones(tokens.shape, jnp.int32), attempts=zeros + 1, reward_sum=values),
        old_logprobs=old,
        reference_logprobs=zeros,
        old_values=values,
        advantages=zeros,
        returns=zeros,
        belief=Estimate(*(jnp.full(np.max(group) + 1, x, jnp.float32) for x in BELIEF)),
    )


def ascent(algorithm, theta, batch):
    """Minus the gradient of the algorithm's loss in theta [L, A, A], on-policy: the direction of its step."""
    advantages, returns = algorithm.advantages(batch)
    batch = batch.replace(advantages=advantages, returns=returns)
    minibatch = cut_minibatch(batch, jnp.arange(batch.row_mask.shape[0]), denominator="present")

    def loss(theta):
        found = logprobs(theta, batch.sequences.tokens[:, 1:])
        return algorithm.policy_loss(TokenScores(logprobs=found, entropy=jnp.zeros(found.shape)), minibatch)[0]

    return -jax.grad(loss)(theta)


def earned_by_children(key, world, *, number, most):
    """What the first 0 to `most` rollouts from every prefix earn, float32 [number, L, A^(L-1), 1 + most]."""
    places, base = world.theta.shape[:2]
    theta, earned = jnp.asarray(world.theta, jnp.float32), []
    for t, place in enumerate(jax.random.split(key, places)):
        first = world.tokens[:: base ** (places - t)]  # one response through each prefix of t tokens
        given = np.broadcast_to(first[:, None], (number, len(first), most, places)).reshape(-1, places)
        children = np.asarray(jax.jit(draw)(place, theta, given, t))
        outcome = world.reward[prefix_codes(children, base)[:, -1]].reshape(number, len(first), most)
        widths = ((0, 0), (0, base ** (places - 1) - len(first)), (1, 0))
        earned.append(np.pad(outcome.cumsum(axis=2), widths))
    return np.stack(earned, axis=1).astype(np.float32)


def measured(algorithm, world, batch, rows, earned):
    """The batch with values found by as many rollouts as the algorithm asks for; rows share those of a prefix."""
    earned = earned[jnp.arange(world.theta.shape[0]), jnp.asarray(world.codes)[rows]]  # [B, C, 1 + most]

    def outcomes(asked):
        reward = jnp.take_along_axis(earned, asked[..., None], axis=2)[..., 0]
        return batch.replace(follow_ups=FollowUps(asked=asked, attempts=asked.astype(jnp.float32), reward_sum=reward))

    def ask(_, asked):
        return asked + algorithm.follow_ups.wanted(outcomes(asked))

    return outcomes(jax.lax.fori_loop(0, algorithm.follow_ups.most, ask, jnp.zeros(earned.shape[:2], jnp.int32)))


def ascents(algorithm, world, rows, values, *, earned=None, **fields):
    """The direction of each of the batches `rows` [n, B], float64 [n, L, A, A]; with `earned`, of measured values."""
    theta = jnp.asarray(world.theta, jnp.float32)

    @jax.jit
    @jax.vmap
    def each(rows, earned):
        batch = batch_of(world, rows, values, **fields)
        return ascent(algorithm, theta, batch if earned is None else measured(algorithm, world, batch, rows, earned))

    return np.asarray(each(rows, earned), np.float64)


def mean_ascent(algorithm, world, values, *, size):
    """The exact mean of the direction over all batches of `size` responses, which are one group."""
    batches = np.array(list(itertools.product(range(len(world.reward)), repeat=size)))
    chance = world.chance[batches].prod(axis=1)
    return np.einsum("n,n...->...", chance, ascents(algorithm, world, batches, values))


# ---------------------------------------------------------------------------------- what a mean is a multiple of
def standardised(p, n):
    """E[A | right] - E[A | wrong] of a reward standardised among n, with the unbiased standard deviation.

    The advantage of a row depends on nothing but rewards, so its mean gradient is this multiple of the gradient of p.
    With s right ones, A is sqrt((n - 1)(n - s) / (n s)) if right and -sqrt((n - 1) s / (n (n - s))) if wrong.
    """
    others = np.arange(n)
    chance = stats.binom.pmf(others, n - 1, p)
    right = np.sqrt((n - 1) * (n - others - 1) / (n * (others + 1)))
    wrong = -np.sqrt((n - 1) * others / (n * (n - others)))
    return chance @ (right - wrong)


def by_group(p, sizes):
    return sum(n * standardised(p, n) for n in sizes) / sum(sizes)


def over_batch(p, sizes):
    """As `standardised`, of all tokens together, whose unbiased variance has one less than LENGTH * rows as divisor."""
    n = sum(sizes)
    return standardised(p, n) * np.sqrt((n * LENGTH - 1) / (n - 1) / LENGTH)


def expected_by_belief(p, sizes, worth):
    """As `standardised`, of advantages worth(right, others, successes among them) averaged over groups."""
    found = 0
    for n in sizes:
        chance = stats.binom.pmf(np.arange(n), n - 1, p)
        found += n * sum(c * (worth(1, n - 1, s) - worth(0, n - 1, s)) for s, c in enumerate(chance))
    return found / sum(sizes)


def by_expected_groups(outcome, others, successes):
    """MaPP's advantage: of all groups that Beta(1.8, 4.2) and the other outcomes let expect."""
    k = np.arange(others + 1)
    chance = stats.betabinom.pmf(k, others, 1.8 + successes, 4.2 + others - successes)
    groups = [np.r_[outcome, np.arange(others) < right] for right in k]
    return sum(c * (outcome - g.mean()) / (g.std(ddof=1) + 1e-8) for c, g in zip(chance, groups, strict=True))


def by_posterior(outcome, others, successes):
    """The outcome less the mean of Beta(1.8 + successes, 4.2 + failures), by the deviation of an outcome there."""
    rate = (1.8 + successes) / (6 + others)
    return (outcome - rate) / np.sqrt(rate * (1 - rate))


PLAIN = {"whitening": "none", "kl_coefficient": 0}
CASES = {
    # name: (settings, values, mean gradient / gradient of J if responses sum their tokens, as f(p, group sizes))
    "reinforce": (Reinforce(baseline="none"), None, lambda p, sizes: 1),
    # A row's own reward is in the mean that is taken off it.
    "reinforce, batch mean": (Reinforce(), None, lambda p, sizes: 1 - 1 / sum(sizes)),
    "rloo": (Rloo(), None, lambda p, sizes: 1),
    "rloo, belief": (Rloo(baseline="belief"), None, lambda p, sizes: 1),
    "rloo, posterior": (Rloo(baseline="posterior"), None, lambda p, sizes: 1),
    "reinforce, belief": (Reinforce(baseline="belief"), None, lambda p, sizes: 1),
    "reinforce, posterior": (Reinforce(baseline="posterior"), None, lambda p, sizes: 1),
    "grpo, belief": (Grpo(baseline="belief"), None, lambda p, sizes: 1 / np.sqrt(0.3 * 0.7)),
    "grpo, posterior": (Grpo(baseline="posterior"), None, lambda p, s: expected_by_belief(p, s, by_posterior)),
    "grpo, marginal": (Grpo(baseline="marginal"), None, lambda p, s: expected_by_belief(p, s, by_expected_groups)),
    "dr_grpo": (DrGrpo(), None, lambda p, sizes: 1 - len(sizes) / sum(sizes)),
    "grpo": (Grpo(), None, by_group),
    "dapo": (Dapo(), None, by_group),
    "gspo": (Gspo(), None, by_group),
    "cispo": (Cispo(), None, by_group),
    "reinforce_pp": (ReinforcePp(), None, over_batch),
    "ppo, lambda 1, wrong values": (Ppo(gae_lambda=1.0, **PLAIN), WRONG_VALUES, lambda p, sizes: 1),
    "ppo, lambda 0.5, exact values": (Ppo(gae_lambda=0.5, **PLAIN), WORLD.values, lambda p, sizes: 1),
    "ppo, lambda 0, exact values": (Ppo(gae_lambda=0.0, **PLAIN), WORLD.values, lambda p, sizes: 1),
    "vineppo": (VinePpo(rollouts=2, first_rollouts=2, **PLAIN), WORLD.values, lambda p, sizes: 1),
}


def case(name, sizes):
    """The algorithm, its values, and its exact mean gradient for groups of these sizes in WORLD."""
    settings, values, factor = CASES[name]
    values = np.zeros_like(WRONG_VALUES) if values is None else values
    tokens = 1 if isinstance(settings, Reinforce) else LENGTH  # the others take a mean over a response's tokens
    return settings.build(), values, WORLD.gradient * factor(WORLD.success, sizes) / tokens


# ---------------------------------------------------------------------------------------------- the z-test of a mean
def disagreement(samples, expected):
    """(largest |z| of a component, p-value of all together) of the mean of `samples` [n, ...] against `expected`.

    The chi-square has as many degrees of freedom as the samples have directions: the logits of a state, for one, have
    gradients that add up to zero.  Where the samples do not vary, the mean must be right.
    """
    error, spread = samples.mean(axis=0) - expected, samples.std(axis=0, ddof=1)
    varies = spread > 0
    np.testing.assert_array_equal(samples[0][~varies], expected[~varies])
    z = error[varies] / spread[varies] * np.sqrt(len(samples))
    variance, directions = np.linalg.eigh(np.cov(samples[:, varies].T) / len(samples))
    free, along = variance > 1e-8 * variance.max(), error[varies] @ directions
    np.testing.assert_allclose(along[~free], 0, atol=1e-7)
    square = np.sum(along[free] ** 2 / variance[free])
    p_value = stats.chi2.sf(square, free.sum())
    print(f"|z| <= {np.abs(z).max():.2f} of {z.size}; chi-square {square:.1f} of {free.sum()}, p-value {p_value:.2g}")
    return np.abs(z).max(), p_value


NUMBER = 8192
GROUP = np.array([0, 0, 0, 0, 0, 1, 1, 1], np.int32)
ROW_MASK = np.array([1, 1, 1, 1, 1, 1, 0, 1], bool)  # one grader failed
SIZES = (5, 2)


@functools.cache
def sampled_rows():
    """Int [NUMBER, 8], responses drawn from the policy of WORLD."""
    given = np.zeros((NUMBER * len(GROUP), LENGTH), np.int32)
    tokens = jax.jit(draw)(jax.random.key(2), jnp.asarray(WORLD.theta, jnp.float32), given, 0)
    return np.asarray(prefix_codes(tokens, TOKENS)[:, -1]).reshape(NUMBER, -1)


def sampled_ascents(algorithm, values):
    """The directions found by NUMBER independent batches; values are measured if the algorithm asks for it."""
    earned = None
    if algorithm.follow_ups:
        earned = earned_by_children(jax.random.key(3), WORLD, number=NUMBER, most=algorithm.follow_ups.most)
    return ascents(algorithm, WORLD, sampled_rows(), values, earned=earned, group=GROUP, row_mask=ROW_MASK)


@functools.cache
def samples_of(name):
    return sampled_ascents(*case(name, SIZES)[:2])


# ------------------------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize("world", [WORLD, RAGGED], ids=["equal", "ragged"])
def test_the_enumerated_world_is_consistent(world):
    """The gradient is the slope of p, and that of every increment of the value, summed."""
    assert 0.2 < world.success < 0.8
    np.testing.assert_allclose(world.chance.sum(), 1)
    slope, step = np.zeros_like(world.theta), 1e-5
    for at in np.ndindex(slope.shape):
        change = np.zeros_like(slope)
        change[at] = step
        up, down = (dataclasses.replace(world, theta=world.theta + sign * change) for sign in (1, -1))
        slope[at] = (up.success - down.success) / (2 * step)
    np.testing.assert_allclose(world.gradient, slope, atol=1e-9)
    np.testing.assert_allclose(world.expected(world.increments(world.values)), world.gradient, atol=1e-12)


def test_values_measured_by_rollouts_are_the_exact_ones():
    """400 rollouts from each of the 13 prefixes, a tenth of which no grader could judge, are within 3 standard errors.

    For another seed a right program would fail with probability 12 * 0.27% = 3.2%; the value of one prefix is 0.
    """
    algorithm = VinePpo(rollouts=400, **PLAIN).build()
    batch = jax.device_get(batch_of(WORLD, np.arange(27), np.zeros_like(WORLD.values)))
    batch = batch.replace(follow_ups=FollowUps.none((27, LENGTH)))
    wanted = algorithm.follow_ups.wanted(batch)
    np.testing.assert_array_equal(wanted, 400)
    found, rng = States([], np.full((27, LENGTH), -1, np.int32), {}), np.random.default_rng(0)
    for row, place in np.argwhere(np.asarray(wanted) > 0).tolist():
        found.find(batch, row, place)
    assert len(found.states) == 1 + 3 + 9
    for i, state in enumerate(found.states):
        given = jnp.tile(jnp.asarray(WORLD.tokens[state.row]), (400, 1))
        children = jax.jit(draw)(
            jax.random.fold_in(jax.random.key(3), i), jnp.asarray(WORLD.theta), given, state.prefix
        )
        graded = rng.random(400) < 0.9
        state.asked, state.attempts = 400, int(graded.sum())
        state.reward = float(WORLD.reward[prefix_codes(np.asarray(children), TOKENS)[graded, -1]].sum())
    batch = batch.replace(follow_ups=found.outcomes())
    assert not np.any(algorithm.follow_ups.wanted(batch))
    exact = np.take_along_axis(WORLD.values.T, WORLD.codes, axis=0)
    attempts = batch.follow_ups.attempts
    error = batch.follow_ups.reward_sum / attempts - exact
    standard = np.sqrt(exact * (1 - exact) / attempts)
    certain = standard == 0
    np.testing.assert_allclose(error[certain], 0, atol=1e-6)
    z = np.unique(error[~certain] / standard[~certain])
    print(f"z of {z.size} values from {z.min():.2f} to {z.max():.2f}, mean square {np.mean(z**2):.2f}")
    assert z.size == 12
    assert np.abs(z).max() < 3
    assert np.ptp(exact) > 0.3
    # The increments of the measured values telescope too.
    advantages = np.asarray(algorithm.advantages(batch)[0], np.float64)
    prompt = batch.follow_ups.reward_sum[0, 0] / attempts[0, 0]
    np.testing.assert_allclose(advantages.sum(axis=1), WORLD.reward - prompt, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_mean_gradient_over_all_batches_is_a_known_multiple_of_the_exact_one(name):
    """All 27^3 batches of three responses, each with its probability: no sampling, so the limit is float32."""
    algorithm, values, expected = case(name, (3,))
    np.testing.assert_allclose(mean_ascent(algorithm, WORLD, values, size=3), expected, atol=1e-6)
    assert np.abs(expected).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("dapo", "gspo", "cispo")])
def test_sampled_gradients_have_the_exact_mean(name):
    """8192 batches of two unequal groups with a failed grader; VinePPO's values come from two rollouts each.

    On-policy, with responses of equal length, DAPO, GSPO and CISPO are GRPO.

    A right program passes with any seed but for about 21 * 7e-6 + 2e-4 of them, in each case.
    """
    _, _, expected = case(name, SIZES)
    largest, p_value = disagreement(samples_of(name), expected)
    assert largest < 4.5
    assert 1e-4 < p_value < 1 - 1e-4


def test_the_z_test_rejects_biased_estimators():
    """The standard deviation of GRPO, a row in its own baseline, and a wrong critic without a trace to correct it."""
    for name, claimed in {"grpo": "dr_grpo", "dr_grpo": "rloo", "reinforce, batch mean": "reinforce"}.items():
        largest, p_value = disagreement(samples_of(name), case(claimed, SIZES)[2])
        assert largest > 6
        assert p_value < 1e-9
    algorithm = Ppo(gae_lambda=0.0, **PLAIN).build()
    samples = sampled_ascents(algorithm, WRONG_VALUES)
    largest, p_value = disagreement(samples, WORLD.gradient / LENGTH)
    assert largest > 6
    assert p_value < 1e-9
    # What it estimates without bias are the increments of the wrong values.
    largest, p_value = disagreement(samples, WORLD.expected(WORLD.increments(WRONG_VALUES)) / LENGTH)
    assert largest < 4.5
    assert p_value > 1e-4


@pytest.mark.slow
def test_stopping_when_certain_is_biased_towards_certainty():
    """VinePPO's "until_certain" estimates the increments of other values: the means of stopped rollouts.

    A state whose first rollouts agree is asked no more, so a value above 1/2 comes out too high, and one below too low.
    """
    settings = VinePpo(rollouts=9, budget="until_certain", first_rollouts=3, interval_width=0.6, **PLAIN)

    def stopped_mean(p, asked=0, right=0):
        """E[right / asked] when it stops, over all outcomes of the next three rollouts."""
        if asked:
            interval = stats.binomtest(right, asked).proportion_ci(method="wilson")
            if asked == 9 or interval.high - interval.low <= 0.6:
                return right / asked
        return sum(stats.binom.pmf(k, 3, p) * stopped_mean(p, asked + 3, right + k) for k in range(4))

    leaning = np.vectorize(stopped_mean)(WORLD.values)
    bias = leaning - WORLD.values
    print(f"bias of a value at most {np.abs(bias).max():.3f}")
    assert 0.03 < np.abs(bias).max() < 0.07  # as its docstring says
    uncertain = (WORLD.values > 1e-6) & (WORLD.values < 1 - 1e-6) & (np.abs(WORLD.values - 0.5) > 1e-3)
    np.testing.assert_array_equal(np.sign(bias[uncertain]), np.sign(WORLD.values[uncertain] - 0.5))
    samples = sampled_ascents(settings.build(), WORLD.values)
    largest, p_value = disagreement(samples, WORLD.expected(WORLD.increments(leaning)) / LENGTH)
    assert largest < 4.5
    assert p_value > 1e-4
    largest, p_value = disagreement(samples, WORLD.gradient / LENGTH)
    assert p_value < 1e-6


def test_responses_of_unequal_length():
    """Sums over tokens, and sums over a constant, stay parallel to the gradient of J; the other means do not.

    All 27^3 batches of three: REINFORCE and Dr. GRPO are exact, a token mean (RLOO) and a response mean (GRPO) turn.
    """
    nothing = np.zeros_like(WRONG_VALUES)

    def found(settings):
        return mean_ascent(settings.build(), RAGGED, nothing, size=3)

    np.testing.assert_allclose(found(Reinforce(baseline="none")), RAGGED.gradient, atol=1e-6)
    np.testing.assert_allclose(found(Reinforce()), RAGGED.gradient * 2 / 3, atol=1e-6)
    np.testing.assert_allclose(found(DrGrpo()), RAGGED.gradient * 2 / 3 / LENGTH, atol=1e-6)
    for settings in (Rloo(), Grpo()):
        turned = found(settings)
        cosine = np.sum(turned * RAGGED.gradient) / np.sqrt(norm2(turned) * norm2(RAGGED.gradient))
        print(f"{type(settings).__name__}: cosine {cosine:.4f}")
        assert 0.8 < cosine < 0.999


# -------------------------------------------------------------------------------------------- bounds of Theorem 3.1
def many_worlds(number=200):
    """Random tables from uniform to nearly deterministic, with few to many right answers."""
    scales, shares = np.geomspace(0.1, 4, 5), (0.05, 0.3, 0.5, 0.7, 0.95)
    cycle = itertools.islice(itertools.cycle(itertools.product(scales, shares)), number)
    return [random_world(100 + i, scale=scale, right=right) for i, (scale, right) in enumerate(cycle)]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments that the theorem speaks of.

    Attributes:
        response: E||sum_t g_t||^2.
        step: [L], E||g_t||^2.
        increment: [L], E[A_t^2] with A_t = V(s_{t+1}) - V(s_t).
        variance: Var[r].
    """

    response: float
    step: np.ndarray
    increment: np.ndarray
    variance: float


def moments(world, scores):
    """Of the world with scores [X, L, ...], which may be those of tied parameters."""
    scores = scores.reshape(*world.tokens.shape, -1)
    return Moments(
        response=world.chance @ np.square(scores.sum(axis=1)).sum(axis=1),
        step=world.chance @ np.square(scores).sum(axis=2),
        increment=world.chance @ world.increments(world.values) ** 2,
        variance=world.success * (1 - world.success),
    )


def test_squared_increments_of_the_value_add_up_to_the_variance_of_the_reward():
    """sum_t E[A_t^2] = Var[r] = p (1 - p), exactly and without an assumption: A_t are martingale differences.

    The A_t are those of PPO (lambda 0) and of VinePPO, with exact values, of every response.
    """
    worlds = many_worlds()
    algorithms = [Ppo(gae_lambda=0.0, **PLAIN).build(), VinePpo(**PLAIN).build()]
    template = batch_of(WORLD, np.arange(27), WORLD.values)
    before = np.stack([np.take_along_axis(w.values.T, w.codes, axis=0) for w in worlds]).astype(np.float32)
    reward = np.stack([w.reward for w in worlds]).astype(np.float32)

    @jax.jit
    @jax.vmap
    def advantages(values, reward):
        follow_ups = template.follow_ups.replace(reward_sum=values)
        batch = template.replace(reward=reward, old_values=values, follow_ups=follow_ups)
        return [algorithm.advantages(batch)[0] for algorithm in algorithms]

    chance = np.stack([w.chance for w in worlds])
    variance = np.array([w.success * (1 - w.success) for w in worlds])
    exact = np.stack([w.increments(w.values) for w in worlds])
    for found in advantages(before, reward):
        np.testing.assert_allclose(found, exact, atol=1e-6)
        np.testing.assert_allclose(np.einsum("wx,wxt->w", chance, np.asarray(found, float) ** 2), variance, atol=1e-6)
    np.testing.assert_allclose(np.einsum("wx,wxt->w", chance, exact**2), variance, atol=1e-12)
    assert variance.min() < 0.01 < 0.24 < variance.max()


def test_bounds_of_response_estimators_hold_without_an_assumption():
    """By Cauchy-Schwarz, ||E[(r - b) G]||^2 <= E[(r - b)^2] E||G||^2 with G = sum_t g_t, for any table, tied or not.

    REINFORCE: b = 0.  RLOO: b = p, which leaves Var[r] = p (1 - p).  Standardised (GRPO): E||G||^2 without p.
    Besides, E||G||^2 = sum_t E||g_t||^2, as g_t has mean zero given what came before.
    """
    tightness = []
    for world in many_worlds():
        for scores in (world.scores, world.scores.sum(axis=2), world.scores.sum(axis=(2, 3))):
            gradient = norm2(np.einsum("x,x,xt...->...", world.chance, world.reward, scores))
            m = moments(world, scores)
            np.testing.assert_allclose(m.response, m.step.sum(), rtol=1e-9)
            assert gradient <= world.success * m.response * (1 + 1e-9)  # E[r^2] = p
            assert gradient <= m.variance * m.response * (1 + 1e-9) + 1e-15
            if m.variance > 1e-9:
                tightness.append(gradient / m.variance / m.response)
    print(f"gradient / bound: median {np.median(tightness):.3f}, largest {np.max(tightness):.3f}")
    assert np.max(tightness) > 0.1  # the bound is not idle


def test_bound_of_value_estimators_holds_where_steps_have_their_own_parameters():
    """||grad J||^2 <= sum_t E[A_t^2] E||g_t||^2, the theorem's form for PPO and VinePPO.

    The theorem assumes that products g_t g_t' and A_t A_t' are uncorrelated.  In an untied table g_t g_t' = 0 for
    t != t', so the first part of the assumption holds by construction; the squares of a step are left to
    Cauchy-Schwarz, ||E[A_t g_t]||^2 <= E[A_t^2] E||g_t||^2, and no assumption remains.
    With tied parameters only the weaker Var[r] sum_t E||g_t||^2 holds always.
    """
    for world in many_worlds():
        m = moments(world, world.scores)
        assert norm2(world.gradient) <= (m.increment @ m.step) * (1 + 1e-9) + 1e-15
        assert m.increment @ m.step <= m.variance * m.step.max() * (1 + 1e-9) + 1e-15
        for scores in (world.scores.sum(axis=2), world.scores.sum(axis=(2, 3))):
            m = moments(world, scores)
            gradient = norm2(np.einsum("x,xt,xt...->...", world.chance, world.increments(world.values), scores))
            assert gradient <= m.variance * m.step.sum() * (1 + 1e-9) + 1e-15


def test_value_bound_of_a_uniform_policy_is_the_theorems():
    """Every ||g_t||^2 is 1 - 1/A, so that no assumption about it is left: Var[r] (1 - 1/A), with E||sum A g||^2 equal.

    It is 1/L of RLOO's bound.
    """
    for seed in range(20):
        world = random_world(seed, scale=0)
        m = moments(world, world.scores)
        np.testing.assert_allclose(m.step, 1 - 1 / TOKENS)
        weighted = np.einsum("xt,xt...->x...", world.increments(world.values), world.scores)
        second = world.chance @ np.square(weighted).reshape(27, -1).sum(axis=1)
        np.testing.assert_allclose(second, m.variance * (1 - 1 / TOKENS))
        np.testing.assert_allclose(LENGTH * second, m.variance * m.response)
        assert norm2(world.gradient) <= second


def test_value_bound_can_fail_without_the_assumption():
    """Majority of three fair coins that share one table: 0.28125 > 0.125, worked by hand.

    p = 3 q^2 - 2 q^3, dp/dq = 6 q (1 - q) = 3/2 and dq/dtheta = +-1/4, so ||grad J||^2 = 2 (3/8)^2 = 9/32.
    ||g_t||^2 = 1/2 and sum_t E[A_t^2] = Var[r] = 1/4 give 1/8.  Here g_t g_t' and A_t A_t' are correlated.
    RLOO's bound, 1/4 * 3/2, holds.
    """
    coins = World(np.zeros((3, 2, 2)), np.array([0, 0, 0, 1, 0, 1, 1, 1.0]), np.full(8, 3))
    tied = coins.scores.sum(axis=(2, 3))
    m = moments(coins, tied)
    np.testing.assert_allclose(m.variance, 1 / 4)
    np.testing.assert_allclose(norm2(coins.gradient.sum(axis=(0, 1))), 9 / 32)
    np.testing.assert_allclose(m.increment @ m.step, 1 / 8)
    np.testing.assert_allclose(m.response, 3 / 2)
    products = np.einsum("xti,xui->xtu", tied, tied)
    increments = coins.increments(coins.values)
    together = np.einsum("x,xtu,xt,xu->tu", coins.chance, products, increments, increments)
    apart = np.einsum("x,xtu->tu", coins.chance, products)  # and E[A_t A_t'] = 0
    assert np.all(together[~np.eye(3, dtype=bool)] > 0.01)
    np.testing.assert_allclose(apart[~np.eye(3, dtype=bool)], 0, atol=1e-15)


# --------------------------------------------------------------------------------------------- what learnability does
def gain(settings, p, size):
    """E[A | right] - E[A | wrong] in a group of `size`, with the advantages of our code for every number of right ones.

    The mean gradient is this multiple of that of J (see `standardised`).
    """
    right, wrong = WORLD.reward.argmax(), WORLD.reward.argmin()
    rows = np.where(np.arange(size) < np.arange(size + 1)[:, None], right, wrong)
    algorithm = settings.build()
    advantages = jax.jit(jax.vmap(lambda x: algorithm.advantages(batch_of(WORLD, x, WORLD.values))[0][:, 0]))(rows)
    advantages = np.asarray(advantages, np.float64)  # [right ones, row], in which the right ones come first
    return stats.binom.pmf(np.arange(size), size - 1, p) @ (advantages[1:, 0] - advantages[:-1, -1])


def test_standardised_gradients_of_large_groups_do_not_shrink_with_learnability():
    """GRPO's mean gradient over Dr. GRPO's: (p (1 - p))^(-1/2) in a large group, which undoes the root of Var[r].

    In a group of G it is at most sqrt(G): where p is far below 1 / G, few groups are mixed, and both shrink alike.
    """
    rates = (0.5, 0.2, 0.05, 0.01)
    for size in (4, 64, 512):
        ratios = np.array([gain(Grpo(), p, size) / gain(DrGrpo(), p, size) for p in rates])
        print(f"groups of {size}: {np.round(ratios, 2)}")
        np.testing.assert_allclose(ratios, [standardised(p, size) * size / (size - 1) for p in rates], rtol=1e-5)
        assert np.all(np.diff(ratios) > 0)
        assert np.all(ratios <= np.sqrt(size))
    np.testing.assert_allclose(ratios[:3], [(p * (1 - p)) ** -0.5 for p in rates[:3]], rtol=0.03)


def test_a_step_along_rloos_mean_gradient_improves_success_by_its_squared_norm():
    """J(theta + beta grad J) - J(theta) = beta ||grad J||^2 (1 + O(beta)): halving beta halves the relative error."""
    for seed in range(3):
        world = random_world(seed)
        ascent_direction = LENGTH * mean_ascent(Rloo().build(), world, np.zeros_like(WRONG_VALUES), size=2)
        errors = []
        for beta in (0.2, 0.1, 0.05):
            after = dataclasses.replace(world, theta=world.theta + beta * ascent_direction)
            errors.append((after.success - world.success) / (beta * norm2(world.gradient)) - 1)
        print(f"relative errors {np.array(errors)}")
        assert abs(errors[-1]) < 0.05
        np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, atol=0.1)


def test_squared_gradient_is_learnability_on_average_over_questions():
    """Uniform policy, all 2^9 sets of right answers to nine responses: with k of them right, on average.

        ||grad J||^2 = p (1 - p) E||G||^2 / 8,   p = k / 9,

    since a random set has Cov(r_x, r_y) = -p (1 - p) / 8 and the G of all responses add up to zero.
    """
    world = random_world(0, scale=0, length=2)
    total = world.scores.sum(axis=1).reshape(9, -1)
    right = np.array(list(itertools.product([0.0, 1.0], repeat=9)))
    squares = np.square(right @ total / 9).sum(axis=1)
    response = np.square(total).sum(axis=1).mean()
    for k in range(10):
        p = k / 9
        found = squares[right.sum(axis=1) == k].mean()
        np.testing.assert_allclose(found, p * (1 - p) * response / 8, atol=1e-15)
    np.testing.assert_allclose(squares[7], norm2(dataclasses.replace(world, reward=right[7]).gradient))


# -------------------------------------------------------------------------------------------------------- identities
@pytest.mark.parametrize("world", [WORLD, RAGGED], ids=["equal", "ragged"])
def test_vineppos_advantages_telescope(world):
    """Over the steps of a response, of one token or of two, they add up to its reward less the prompt's value."""
    for steps in ([0, 1, 2], [0, 0, 1], [0, 1, 1], [0, 0, 0]):
        batch = batch_of(world, np.arange(27), world.values)
        batch = batch.replace(reasoning_step=jnp.tile(jnp.asarray(steps), (27, 1)))
        found = np.asarray(VinePpo(**PLAIN).build().advantages(batch)[0], np.float64)
        first = np.array([True, *np.diff(steps).astype(bool)])
        np.testing.assert_allclose(found[:, first].sum(axis=1), world.reward - world.success, atol=1e-6)
        if steps == [0, 1, 2]:
            np.testing.assert_allclose(found, world.increments(world.values), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [Rloo(), Grpo(), DrGrpo(), Dapo(), Gspo(), Cispo()], ids=lambda s: type(s).__name__
)
def test_a_group_of_equals_has_exactly_no_gradient(settings):
    """All right or all wrong: zero, not a rounding error; beside a mixed group it adds no direction.

    VinePPO, whose values are of states, still learns from such a group.
    """
    theta, algorithm, vine = jnp.asarray(WORLD.theta, jnp.float32), settings.build(), VinePpo(**PLAIN).build()
    mixed = np.array([np.flatnonzero(WORLD.reward == x)[-1] for x in (0, 1, 0, 0, 1)])
    group = np.repeat(np.arange(2, dtype=np.int32), 5)

    @jax.jit
    def directions(same):
        one, other = (batch_of(WORLD, rows, WORLD.values) for rows in (same, mixed))
        two = batch_of(WORLD, jnp.concatenate([same, mixed]), WORLD.values, group=group)
        return ascent(vine, theta, one), *(ascent(algorithm, theta, batch) for batch in (one, other, two))

    for outcome in (0, 1):
        learnt, nothing, alone, beside = directions(np.flatnonzero(WORLD.reward == outcome)[:5])
        assert np.abs(learnt).max() > 0.01
        assert not np.any(nothing)
        assert np.any(alone)
        np.testing.assert_allclose(beside, alone / 2, rtol=1e-4, atol=1e-7)
