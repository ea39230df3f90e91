"""The nouns of the project: every struct that passes between modules, with shapes and dtypes.

Text lives only in the host-side records of `lilo_jax.questions`; everything here is a frozen struct of arrays that may
enter a jitted program.  The functions on them are bundled in `lilo_jax/curriculum/contract.py` and
`lilo_jax/rl/contract.py`.  This module imports no other module of the project.

Glossary: a word means one thing everywhere.
    question    a prompt with a gold answer; question_id names it for ever
    place       where a question stands in the pool of this run, 0..M-1
    pool        the questions that a curriculum chooses from, and nothing else
    step        one turn of the loop: choose, roll out, grade, train
    request     one completion that the sampler is asked for
    rollout     a completion with its verdict
    group       the rollouts of one question in one step
    row         one sequence, of a batch or of a file
    slot        a lane of the decoder; it takes the next request when it is free
    round       one proposal of a curriculum, served before the next is made; a step has one or more
    curriculum  which questions are rolled out, and which groups are trained on
    part        what a curriculum is composed of: source, worth, selector, rounds, gate, tracker
    rule        a curriculum with a name; how a token is drawn is a token rule, how an answer is judged a grader
    belief      the success rate that a curriculum expects of a question, with its variance
    worth       how much there is to learn from a question: what selection ranks by
    success     the share p of a question's rollouts that are right; its variance is p(1 - p)
    verdict     correct, wrong, no answer; or the grader failed: timeout, error
    reward      the number that is learnt from: 1 for a correct answer, plus what shapes it
    advantage   how much better a token or a response was than expected
    log-prob    the logarithm of a token's probability at the temperature of sampling, in nats
    policy      the model that is trained; the reference is its frozen start
    ledger      every token that was paid for, by purpose
    arm         one config of a comparison
    speed-up    what the baseline spent, over what an arm spent, until the baseline's own final accuracy
    audit       questions drawn at random and rolled out for measurement alone

The axes of arrays have names, the same in every signature (`Float[Array, "rows completion"]`; "" is a single number,
"..." are any axes, "#rows" may be 1).  Texts and formulas use the letters of the literature:
    pool        M  questions in the pool                 prompt      P  tokens of a prompt, padded on the right
    questions   J  questions that are looked at          completion  C  tokens of a completion, padded likewise
    groups      K  groups collected in one step          tokens      T  = P + C, of a whole sequence
    trained     Q  groups trained on in one step         vocabulary  V
    prompts     N  prompts of one sampling call          embed       D  width of hidden states
    requests    R  requests of one sampling call         features    d  width of a question's features
    rows        B  rows (sequences) of a training batch  heads, kv_heads, head_dim: of attention
An axis that only one module has is named there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array = jax.Array | np.ndarray
"""A `jax.Array` inside programs and between them; a NumPy array where a struct is put together on the host."""
PyTree = Any
Constrain = Callable[..., Array]
"""(x, *logical axes) -> x with its layout on the mesh fixed."""


# ------------------------------------------------------------------------------------------------ sampling, scoring
class Prompts(flax.struct.PyTreeNode):
    """Prefixes to continue.

    Attributes:
        tokens: right-padded; what stands in the padding is never read.
        lengths: real tokens per row, at least 1 (0 marks a padding row).
    """

    tokens: Int[Array, "prompts prompt"]
    lengths: Int[Array, "prompts"]


class Requests(flax.struct.PyTreeNode):
    """Completions wanted.

    Attributes:
        prompt: the row of `Prompts` to continue.
        prefix_length: how many tokens of that row it keeps, at least 1.
        id: names the request's random numbers; unique within one sampling call.
        budget: most new tokens; 0 marks a padding row, for which nothing is decoded.
        expected_length: new tokens that are expected: longer ones are started first.  It changes only
            when a request is served, never its tokens.
        kept: last tokens of the prefix that count as its completion, for lengths and stops; None: none do.
    """

    prompt: Int[Array, "requests"]
    prefix_length: Int[Array, "requests"]
    id: Int[Array, "requests"]
    budget: Int[Array, "requests"]
    expected_length: Float[Array, "requests"]
    kept: Int[Array, "requests"] | None = None


class Completions(flax.struct.PyTreeNode):
    """What the sampler produced.

    Attributes:
        tokens: zero beyond `lengths`.
        lengths: tokens generated, the end token included.
        logprobs: log-softmax(logits / temperature) of each token; zero beyond `lengths`.
        processed_logprobs: the same after top-p truncation: what the token was drawn from.
        ended: True if the last token is an end token; False means truncated by the budget.
    """

    tokens: Int[Array, "requests completion"]
    lengths: Int[Array, "requests"]
    logprobs: Float[Array, "requests completion"]
    processed_logprobs: Float[Array, "requests completion"]
    ended: Bool[Array, "requests"]


class Sequences(flax.struct.PyTreeNode):
    """Rows of prompt tokens, completion tokens, padding; of `completion_lengths` 0 where a row is not to be scored."""

    tokens: Int[Array, "rows tokens"]
    prompt_lengths: Int[Array, "rows"]
    completion_lengths: Int[Array, "rows"]


class TokenScores(flax.struct.PyTreeNode):
    """Teacher-forced quantities of each completion token; zero in the padding.

    Attributes:
        logprobs: log-softmax(logits / temperature) of the token that stands there.
        entropy: entropy in nats of that distribution.
    """

    logprobs: Float[Array, "rows completion"]
    entropy: Float[Array, "rows completion"]


# ------------------------------------------------------------------------------------------------------- curriculum
class GroupStatistics(flax.struct.PyTreeNode):
    """What a step has measured so far, group by group; K entries, of which some may be empty.

    Attributes:
        place: of the group's question in the pool; -1 in an empty entry.
        round: the collection round that opened the group; -1 in an empty entry.
        attempts: graded rollouts; those whose grader failed are not counted.
        successes: correct ones among them.
        reward_sum: sum of their rewards (differs from `successes` under shaped rewards).
        length_sum: generated tokens over all rollouts of the group.
        rollouts: all rollouts, graded or not.

    >>> from lilo_jax.curriculum import most_variance  # of three groups, the second alone has both outcomes
    >>> eights, right = jnp.full(3, 8.0), jnp.array([0.0, 2.0, 8.0])
    >>> most_variance(GroupStatistics(jnp.arange(3), jnp.zeros(3, int), eights, right, right, eights, eights))
    Array([0.    , 0.1875, 0.    ], dtype=float32)
    """

    place: Int[Array, "groups"]
    round: Int[Array, "groups"]
    attempts: Float[Array, "groups"]
    successes: Float[Array, "groups"]
    reward_sum: Float[Array, "groups"]
    length_sum: Float[Array, "groups"]
    rollouts: Float[Array, "groups"]


class Proposal(flax.struct.PyTreeNode):
    """Questions to roll out now: at most J of them.

    Attributes:
        places: of the questions in the pool.
        samples: rollouts wanted for each.
        mask: which entries are meant.
        continues: the group, opened earlier in the step, that the rollouts join (its question must
            stand at `places`); -1 opens a new group, even of a question that has one already.
    """

    places: Int[Array, "questions"]
    samples: Int[Array, "questions"]
    mask: Bool[Array, "questions"]
    continues: Int[Array, "questions"]

    @classmethod
    def opening(
        cls,
        places: Int[Array, "questions"],
        samples: int | Int[Array, "#questions"],
        mask: Bool[Array, "questions"] | None = None,
    ) -> "Proposal":
        """A proposal that opens a new group for every entry; without a mask all entries are meant."""
        return cls(
            places=places,
            samples=jnp.full(places.shape, samples, jnp.int32),
            mask=jnp.ones(places.shape, bool) if mask is None else mask,
            continues=jnp.full(places.shape, -1, jnp.int32),
        )


class Admission(flax.struct.PyTreeNode):
    """Groups to train on: their indices in `GroupStatistics`, and which entries are meant."""

    indices: Int[Array, "trained"]
    mask: Bool[Array, "trained"]


class GroupSignals(flax.struct.PyTreeNode):
    """What the update saw in each trained group.

    Attributes:
        advantage_abs: mean |advantage| over the group's tokens.
        value_loss: mean squared error of the critic over them; zero without a critic.
    """

    advantage_abs: Float[Array, "trained"]
    value_loss: Float[Array, "trained"]


class Facts(flax.struct.PyTreeNode):
    """What is known of the pool's questions besides their outcomes; never what a generator knows of their difficulty.

    Attributes:
        features: what the text and the policy's own states say; None unless wanted.
        grade: success rate of the starting policy, measured before the first step; NaN unless wanted.
        category, level: see `Question`; zero without.
    """

    features: Float[Array, "pool features"] | None
    grade: Float[Array, "pool"]
    category: Int[Array, "pool"]
    level: Int[Array, "pool"]

    @property
    def wanted_features(self) -> Float[Array, "pool features"]:
        """The features, for who wants them."""
        assert self.features is not None, "the curriculum reads features that it does not want"
        return self.features


class CurriculumState(flax.struct.PyTreeNode):
    """Everything remembered about the pool.

    Attributes:
        facts: about its questions.
        step: steps observed.
        attempts, successes: lifetime counts over graded rollouts.
        visits: groups collected.
        last_seen: step of the last visit; -1 for never.
        length_sum, rollouts: generated tokens and the rollouts they came from.
        memory: arrays of the curriculum's own (a buffer, say); () if it has none.
    """

    facts: Facts
    step: Int[Array, ""]
    attempts: Float[Array, "pool"]
    successes: Float[Array, "pool"]
    visits: Int[Array, "pool"]
    last_seen: Int[Array, "pool"]
    length_sum: Float[Array, "pool"]
    rollouts: Float[Array, "pool"]
    memory: PyTree


class Estimate(NamedTuple):
    """A belief about success rates: its mean, NaN where nothing is believed, and variance, 0 where it is certain."""

    mean: Float[Array, "*questions"]
    variance: Float[Array, "*questions"]


# ---------------------------------------------------------------------------------------------------------- learning
class FollowUps(flax.struct.PyTreeNode):
    """Rollouts from inside the completions of a training batch, by the state in which each token is chosen.

    States of the same tokens share their rollouts, and have equal entries.

    Attributes:
        asked: rollouts so far.
        attempts: those whose grader came to a verdict.
        reward_sum: what these earned.
    """

    asked: Int[Array, "rows completion"]
    attempts: Float[Array, "rows completion"]
    reward_sum: Float[Array, "rows completion"]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "FollowUps":
        """Nothing asked so far; host arrays."""
        zeros = np.zeros(shape, np.float32)
        return cls(asked=np.zeros(shape, np.int32), attempts=zeros, reward_sum=zeros)


class TrainBatch(flax.struct.PyTreeNode):
    """Everything an update reads.

    Attributes:
        sequences: B rows.
        row_mask: False for padding and for rows whose grader failed.
        informative: the rows that are computed; what the others would add to the gradient is zero.
        group: number of the row's group among the Q trained ones.
        reward: of each row.
        sampler_logprobs: full-distribution log-probs reported by the sampler.
        place, group_mask: of each group's question in the pool, and which groups are meant.
        reasoning_step: which step of the response a token belongs to, counted from 0; zero without follow-ups.
        follow_ups: outcomes of the algorithm's follow-up requests.
        old_logprobs: policy before the update, teacher-forced.
        reference_logprobs: zero if the algorithm needs none.
        old_values: critic's value of the state in which each token is chosen; zero without critic.
        advantages, returns: zero in the padding.
        memory: what the algorithm remembers from earlier steps.
        belief: about each group's question, before the group was rolled out; None unless the algorithm asks.
    """

    sequences: Sequences
    row_mask: Bool[Array, "rows"]
    informative: Bool[Array, "rows"]
    group: Int[Array, "rows"]
    reward: Float[Array, "rows"]
    sampler_logprobs: Float[Array, "rows completion"]
    place: Int[Array, "trained"]
    group_mask: Bool[Array, "trained"]
    reasoning_step: Int[Array, "rows completion"]
    follow_ups: FollowUps
    old_logprobs: Float[Array, "rows completion"]
    reference_logprobs: Float[Array, "rows completion"]
    old_values: Float[Array, "rows completion"]
    advantages: Float[Array, "rows completion"]
    returns: Float[Array, "rows completion"]
    memory: PyTree = ()
    belief: Estimate | None = None


class Minibatch(flax.struct.PyTreeNode):
    """A slice of a `TrainBatch` with the weights that turn per-token losses into the minibatch's mean.

    The weights are fixed for the whole minibatch before it is cut into micro-batches, so a loss that is a weighted
    *sum* gives the same gradient for any number of micro-batches.

    Attributes:
        sequences, old_logprobs, reference_logprobs, old_values, advantages, returns: as in `TrainBatch`.
        mask: completion tokens of the informative rows; the others count in the means alone.
        token_weight: mask / (live tokens of the minibatch): weights of a token mean.
        sequence_weight: mask / (live rows of the minibatch): weights of a sum over tokens, mean over rows.
    """

    sequences: Sequences
    mask: Bool[Array, "rows completion"]
    token_weight: Float[Array, "rows completion"]
    sequence_weight: Float[Array, "rows completion"]
    old_logprobs: Float[Array, "rows completion"]
    reference_logprobs: Float[Array, "rows completion"]
    old_values: Float[Array, "rows completion"]
    advantages: Float[Array, "rows completion"]
    returns: Float[Array, "rows completion"]


class Mean(flax.struct.PyTreeNode):
    """A metric that adds exactly over micro-batches, hosts and steps: value = total / weight."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @classmethod
    def of(cls, values: Shaped[Array, "*shape"], weights: Shaped[Array, "*shape"]) -> "Mean":
        """Mean of `values` under `weights` (same shape); positions of weight zero may hold anything."""
        values = jnp.where(weights != 0, values, 0).astype(jnp.float32)
        return cls(total=jnp.sum(values * weights), weight=jnp.sum(weights, dtype=jnp.float32))

    @classmethod
    def once(cls, value: Shaped[Array, ""], known: Bool[Array, ""] | bool = True) -> "Mean":
        """A number that stands for itself, or nothing where it is not known."""
        return cls(total=jnp.where(known, value, 0).astype(jnp.float32), weight=jnp.float32(known))


Metrics = dict[str, Mean]


class Trainable(flax.struct.PyTreeNode):
    """Weights, which are float32 masters, with the optax state of their optimiser."""

    params: PyTree
    optimizer: PyTree


class TrainState(flax.struct.PyTreeNode):
    """Everything a run must remember between steps, besides the ledger.

    Attributes:
        step: steps finished.
        policy: the model that is trained.
        critic: its value model, or None.
        reference: frozen parameters for the KL term, or None.  With adapters it is the base.
        base: frozen weights beneath the adapters that policy and critic then consist of, or None if all weights are
            trained.  It never changes, and is not part of a checkpoint.
        curriculum: what is known about the pool.
        memory: what the algorithm remembers.
    """

    step: Int[Array, ""]
    policy: Trainable
    critic: Trainable | None
    reference: PyTree | None
    base: PyTree | None
    curriculum: CurriculumState
    memory: PyTree
