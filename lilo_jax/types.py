"""The nouns of the project: every struct that passes between modules, with shapes and dtypes.

Text lives only in the host-side records of `lilo_jax.questions`; everything here is a frozen struct of arrays that may
enter a jitted program, or a bundle of functions on them.  This module imports no other module of the project.

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
    part        what a curriculum is composed of: source, score, selector, rounds, gate, tracker
    rule        a curriculum with a name; how a token is drawn is a token rule, how an answer is judged a grader
    belief      the success rate that a curriculum expects of a question, with its variance
    worth       how much there is to learn from a question: a score
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

Shape legend
    M  questions in the pool              V  vocabulary
    N  prompts of one sampling call       P  prompt slots (right-padded)
    R  requests of one sampling call      C  completion slots (right-padded)
    K  groups collected in one step       T  = P + C, slots of a whole sequence
    Q  groups trained on in one step      B  rows (sequences) of a training batch
Groups need not have equally many rows: a row names its group.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax.numpy as jnp
import numpy as np

Array = Any
"""A `jax.Array` inside programs and between them; a NumPy array where a struct is put together on the host."""
PyTree = Any
Constrain = Callable[..., Array]
"""(x, *logical axes) -> x with its layout on the mesh fixed."""


# ------------------------------------------------------------------------------------------------ sampling, scoring
class Prompts(flax.struct.PyTreeNode):
    """Prefixes to continue.

    Attributes:
        tokens: int32 [N, P], right-padded; what stands in the padding is never read.
        lengths: int32 [N], real tokens per row, at least 1 (0 marks a padding row).
    """

    tokens: Array
    lengths: Array


class Requests(flax.struct.PyTreeNode):
    """Completions wanted.

    Attributes:
        prompt: int32 [R], the row of `Prompts` to continue.
        prefix_length: int32 [R], how many tokens of that row it keeps, at least 1.
        id: int32 [R], names the request's random numbers; unique within one sampling call.
        budget: int32 [R], most new tokens; 0 marks a padding row, for which nothing is decoded.
        expected_length: float32 [R], new tokens that are expected: longer ones are started first.  It changes only
            when a request is served, never its tokens.
        kept: int32 [R], last tokens of the prefix that count as its completion, for lengths and stops; None: none do.
    """

    prompt: Array
    prefix_length: Array
    id: Array
    budget: Array
    expected_length: Array
    kept: Array | None = None


class Completions(flax.struct.PyTreeNode):
    """What the sampler produced.

    Attributes:
        tokens: int32 [R, C], zero beyond `lengths`.
        lengths: int32 [R], tokens generated, the end token included.
        logprobs: float32 [R, C], log-softmax(logits / temperature) of each token; zero beyond `lengths`.
        processed_logprobs: float32 [R, C], the same after top-p truncation: what the token was drawn from.
        ended: bool [R], True if the last token is an end token; False means truncated by the budget.
    """

    tokens: Array
    lengths: Array
    logprobs: Array
    processed_logprobs: Array
    ended: Array


class Sequences(flax.struct.PyTreeNode):
    """Prompts with their completions, contiguous: a row is prompt tokens, completion tokens, padding.

    Attributes:
        tokens: int32 [B, T].
        prompt_lengths: int32 [B].
        completion_lengths: int32 [B]; 0 for a row that is not to be scored.
    """

    tokens: Array
    prompt_lengths: Array
    completion_lengths: Array


class TokenScores(flax.struct.PyTreeNode):
    """Teacher-forced quantities of each completion token; zero in the padding.

    Attributes:
        logprobs: float32 [B, C], log-softmax(logits / temperature) of the token that stands there.
        entropy: float32 [B, C], entropy in nats of that distribution.
    """

    logprobs: Array
    entropy: Array


# ------------------------------------------------------------------------------------------------------- curriculum
class GroupStatistics(flax.struct.PyTreeNode):
    """What a step has measured so far, group by group; K entries, of which some may be empty.

    Attributes:
        question: int32 [K], id in the pool; -1 in an empty slot.
        round: int32 [K], the collection round that opened the group; -1 in an empty slot.
        attempts: float32 [K], graded rollouts; those whose grader failed are not counted.
        successes: float32 [K], correct ones among them.
        reward_sum: float32 [K], sum of their rewards (differs from `successes` under shaped rewards).
        length_sum: float32 [K], generated tokens over all rollouts of the group.
        rollouts: float32 [K], all rollouts, graded or not.

    >>> from lilo_jax.curriculum import most_variance  # of three groups, the second alone has both outcomes
    >>> eights, right = jnp.full(3, 8.0), jnp.array([0.0, 2.0, 8.0])
    >>> most_variance(GroupStatistics(jnp.arange(3), jnp.zeros(3, int), eights, right, right, eights, eights))
    Array([0.    , 0.1875, 0.    ], dtype=float32)
    """

    question: Array
    round: Array
    attempts: Array
    successes: Array
    reward_sum: Array
    length_sum: Array
    rollouts: Array


class Proposal(flax.struct.PyTreeNode):
    """Questions to roll out now: at most J of them.

    Attributes:
        ids: int32 [J], questions of the pool.
        samples: int32 [J], rollouts wanted for each.
        mask: bool [J], which entries are meant.
        continues: int32 [J], the slot of a group opened earlier in the step that the rollouts join (its question
            must be `ids`); -1 opens a new group, even of a question that has one already.
    """

    ids: Array
    samples: Array
    mask: Array
    continues: Array

    @classmethod
    def opening(cls, ids: Array, samples: int | Array, mask: Array | None = None) -> "Proposal":
        """A proposal that opens a new group for every entry; without a mask all entries are meant."""
        return cls(
            ids=ids,
            samples=jnp.full(ids.shape, samples, jnp.int32),
            mask=jnp.ones(ids.shape, bool) if mask is None else mask,
            continues=jnp.full(ids.shape, -1, jnp.int32),
        )


class Admission(flax.struct.PyTreeNode):
    """Groups to train on.

    Attributes:
        indices: int32 [Q], slots of `GroupStatistics`.
        mask: bool [Q], which entries are meant.
    """

    indices: Array
    mask: Array


class GroupSignals(flax.struct.PyTreeNode):
    """What the update saw in each trained group.

    Attributes:
        advantage_abs: float32 [Q], mean |advantage| over the group's tokens.
        value_loss: float32 [Q], mean squared error of the critic over them; zero without a critic.
    """

    advantage_abs: Array
    value_loss: Array


COUNTS = 6
"""Features of a text that are plain counts."""


class Facts(flax.struct.PyTreeNode):
    """What is known of the pool's questions besides their outcomes; never what a generator knows of their difficulty.

    Attributes:
        features: float32 [M, d], what the text and the policy's own states say; None unless wanted.
        grade: float32 [M], success rate of the starting policy, measured before the first step; NaN unless wanted.
        category, level: int32 [M], see `Question`; zero without.
    """

    features: Array
    grade: Array
    category: Array
    level: Array


class Wants(NamedTuple):
    """Facts that a curriculum needs.

    Attributes:
        tokens, pairs: how many of the commonest tokens, and pairs of neighbours, are features (`curriculum.features`).
        hidden: width of the features that are the policy's mean hidden state over the prompt.
        refresh_every: steps after which the latter are made anew.
        grade: rollouts a question that measure the starting policy.
        truth: whether `Facts.grade` is the current policy's exact success rate instead, at every step and for nothing:
            for ceilings in studies, where answers are unique.
        categories: how many categories of questions it can tell apart; 0 does not look at them.
        levels: how many levels of a generator's knob, from 0 on; 0 does not look at them.
    """

    tokens: int = 0
    pairs: int = 0
    hidden: int = 0
    refresh_every: int = 50
    grade: int = 0
    truth: bool = False
    categories: int = 0
    levels: int = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the features by kind: counts of the text, tokens, pairs, hidden states, a constant."""
        if not self.tokens + self.pairs + self.hidden:
            return ()
        return (*((COUNTS, self.tokens, self.pairs) if self.tokens + self.pairs else ()), self.hidden, 1)

    @property
    def features(self) -> int:
        """Width of all features together."""
        return sum(self.blocks)


NOTHING = Wants()
"""What most curricula want."""


class CurriculumState(flax.struct.PyTreeNode):
    """Everything remembered about the pool.

    Attributes:
        facts: about its questions.
        step: int32 scalar, steps observed.
        attempts, successes: float32 [M], lifetime counts over graded rollouts.
        visits: int32 [M], groups collected.
        last_seen: int32 [M], step of the last visit; -1 for never.
        length_sum, rollouts: float32 [M], generated tokens and the rollouts they came from.
        memory: arrays of the curriculum's own (a buffer, say); () if it has none.
    """

    facts: Facts
    step: Array
    attempts: Array
    successes: Array
    visits: Array
    last_seen: Array
    length_sum: Array
    rollouts: Array
    memory: PyTree


class Curriculum(NamedTuple):
    """Which questions to roll out and which groups to train on, as pure functions.

    Attributes:
        init: (Facts) -> CurriculumState.
        propose: (state, collected: GroupStatistics, key) -> Proposal.  Asked again, with what has been collected,
            until the proposal is empty or `max_rounds` proposals have been served.
        admit: (state, collected, key) -> Admission.
        observe: (state, collected, step) -> state.  Everything paid for is remembered, admitted or not.
        feedback: (state, question [Q], mask [Q], GroupSignals, step) -> state.  Called after the update.
        max_rounds: most proposals in one step.
        max_samples: most rollouts that one group can reach in one step.
        train_rows: B, most rollouts that the admitted groups of one step can have together.
        wants: facts that it needs.
        estimate: (state, key) -> float32 [M], success rates that it believes in; None if it has no such belief.
        suspicion: (state) -> float32 [M], probability that a question is a trap; None if it suspects none.
        least_samples: rollouts of a question without which it has nothing to choose by: 2 for what varies in a group.
        may_propose_fewer: whether the first proposal of a run may ask for fewer questions than are trained on.

    >>> from lilo_jax.curriculum import Lilo
    >>> Lilo(pool_ratio=4).build(pool_size=100, questions=8, samples=8).train_rows
    64
    """

    init: Callable[[Facts], CurriculumState]
    propose: Callable[[CurriculumState, GroupStatistics, Array], Proposal]
    admit: Callable[[CurriculumState, GroupStatistics, Array], Admission]
    observe: Callable[[CurriculumState, GroupStatistics, Array], CurriculumState]
    feedback: Callable[[CurriculumState, Array, Array, GroupSignals, Array], CurriculumState]
    max_rounds: int
    max_samples: int
    train_rows: int
    wants: Wants = NOTHING
    estimate: Callable[[CurriculumState, Array], Array] | None = None
    suspicion: Callable[[CurriculumState], Array] | None = None
    least_samples: int = 1
    may_propose_fewer: bool = False


class CurriculumSpec(Protocol):
    """A frozen dataclass of a curriculum's settings, with the function that builds it."""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Builds the functions for a pool of `pool_size`, training on `questions` groups of `samples` rollouts."""
        ...


# ---------------------------------------------------------------------------------------------------------- learning
class FollowUps(flax.struct.PyTreeNode):
    """Rollouts from inside the completions of a training batch, by the state in which each token is chosen.

    States of the same tokens share their rollouts, and have equal entries.

    Attributes:
        asked: int32 [B, C], rollouts so far.
        attempts: float32 [B, C], those whose grader came to a verdict.
        reward_sum: float32 [B, C], what these earned.
    """

    asked: Array
    attempts: Array
    reward_sum: Array

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "FollowUps":
        """Nothing asked so far, [B, C]; host arrays."""
        zeros = np.zeros(shape, np.float32)
        return cls(asked=np.zeros(shape, np.int32), attempts=zeros, reward_sum=zeros)


class TrainBatch(flax.struct.PyTreeNode):
    """Everything an update reads.

    Attributes:
        sequences: B rows.
        row_mask: bool [B]; False for padding and for rows whose grader failed.
        group: int32 [B], slot of the row's group among the Q trained ones.
        reward: float32 [B].
        sampler_logprobs: float32 [B, C], full-distribution log-probs reported by the sampler.
        question: int32 [Q]; question_mask: bool [Q].
        reasoning_step: int32 [B, C], which step of the response a token belongs to, counted from 0; zero if the
            algorithm asks for no follow-ups.
        follow_ups: outcomes of the algorithm's follow-up requests.
        old_logprobs: float32 [B, C], policy before the update, teacher-forced.
        reference_logprobs: float32 [B, C]; zero if the algorithm needs none.
        old_values: float32 [B, C], critic's value of the state in which each token is chosen; zero without critic.
        advantages, returns: float32 [B, C]; zero in the padding.
        memory: what the algorithm remembers from earlier steps.
    """

    sequences: Sequences
    row_mask: Array
    group: Array
    reward: Array
    sampler_logprobs: Array
    question: Array
    question_mask: Array
    reasoning_step: Array
    follow_ups: FollowUps
    old_logprobs: Array
    reference_logprobs: Array
    old_values: Array
    advantages: Array
    returns: Array
    memory: PyTree = ()


class Minibatch(flax.struct.PyTreeNode):
    """A slice of a `TrainBatch` with the weights that turn per-token losses into the minibatch's mean.

    The weights are fixed for the whole minibatch before it is cut into micro-batches, so a loss that is a weighted
    *sum* gives the same gradient for any number of micro-batches.

    Attributes:
        sequences, old_logprobs, reference_logprobs, old_values, advantages, returns: as in `TrainBatch`.
        mask: bool [B, C], completion tokens of live rows.
        token_weight: float32 [B, C], mask / (tokens of the minibatch): weights of a token mean.
        sequence_weight: float32 [B, C], mask / (rows of the minibatch): weights of a sum over tokens, mean over rows.
    """

    sequences: Sequences
    mask: Array
    token_weight: Array
    sequence_weight: Array
    old_logprobs: Array
    reference_logprobs: Array
    old_values: Array
    advantages: Array
    returns: Array


class Mean(flax.struct.PyTreeNode):
    """A metric that adds exactly over micro-batches, hosts and steps: value = total / weight.

    Attributes:
        total, weight: float32 scalars.
    """

    total: Array
    weight: Array

    @classmethod
    def of(cls, values: Array, weights: Array) -> "Mean":
        """Mean of `values` under `weights` (same shape); positions of weight zero may hold anything."""
        values = jnp.where(weights != 0, values, 0).astype(jnp.float32)
        return cls(total=jnp.sum(values * weights), weight=jnp.sum(weights, dtype=jnp.float32))

    @classmethod
    def once(cls, value: Array, known: Array | bool = True) -> "Mean":
        """A number that stands for itself, or nothing where it is not known."""
        return cls(total=jnp.where(known, value, 0).astype(jnp.float32), weight=jnp.float32(known))


Metrics = dict[str, Mean]


class FollowUpRequests(NamedTuple):
    """Rollouts that an algorithm wants from inside the completions it is about to train on.

    Attributes:
        wanted: (batch) -> int32 [B, C], how many more from the state in which each token is chosen.  Asked again, with
            what has been found, until none is.
        most: rollouts that a state can have in all.
    """

    wanted: Callable[[TrainBatch], Array]
    most: int


class Algorithm(NamedTuple):
    """A policy-gradient method as pure functions.

    Attributes:
        advantages: (batch) -> (advantages [B, C], returns [B, C]).
        policy_loss: (scores of the new policy, minibatch) -> (scalar, metrics).  A weighted sum over tokens.  Its
            metric "policy/ratio", if it has one, is what `UpdateConfig.max_ratio` bounds.
        value_loss: (new values [B, C], minibatch) -> (scalar, metrics), or None if there is no critic.
        needs_reference: whether `reference_logprobs` must be filled.
        follow_ups: what it asks the sampler for besides, or None.
        init: () -> memory before the first step.
        remember: (batch) -> memory after the step.
        least_samples: rollouts of a question without which it learns nothing: 2 for what compares within groups.

    >>> from lilo_jax.rl.ppo import Ppo
    >>> Ppo().build().needs_values
    True
    """

    advantages: Callable[[TrainBatch], tuple[Array, Array]]
    policy_loss: Callable[[TokenScores, Minibatch], tuple[Array, Metrics]]
    value_loss: Callable[[Array, Minibatch], tuple[Array, Metrics]] | None = None
    needs_reference: bool = False
    follow_ups: FollowUpRequests | None = None
    init: Callable[[], PyTree] = tuple
    remember: Callable[[TrainBatch], PyTree] = lambda batch: batch.memory
    least_samples: int = 1

    @property
    def needs_values(self) -> bool:
        """Whether a critic is trained and `old_values` must be filled."""
        return self.value_loss is not None


class AlgorithmSpec(Protocol):
    """A frozen dataclass of an algorithm's settings, with the function that builds it."""

    def build(self) -> Algorithm:
        """Builds the functions."""
        ...


class Trainable(flax.struct.PyTreeNode):
    """Weights with their optimiser.

    Attributes:
        params: float32 masters.
        optimizer: optax state.
    """

    params: PyTree
    optimizer: PyTree


class TrainState(flax.struct.PyTreeNode):
    """Everything a run must remember between steps, besides the ledger.

    Attributes:
        step: int32 scalar, steps finished.
        policy: the model that is trained.
        critic: its value model, or None.
        reference: frozen parameters for the KL term, or None.  With adapters it is the base.
        base: frozen weights beneath the adapters that policy and critic then consist of, or None if all weights are
            trained.  It never changes, and is not part of a checkpoint.
        curriculum: what is known about the pool.
        memory: what the algorithm remembers.
    """

    step: Array
    policy: Trainable
    critic: Trainable | None
    reference: PyTree | None
    base: PyTree | None
    curriculum: CurriculumState
    memory: PyTree
