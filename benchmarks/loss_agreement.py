"""Our advantages and losses beside those of public libraries, on the same arrays: prints the largest differences.

    python -m benchmarks.loss_agreement

The libraries' own functions do the work, TRL's trainers included: they are called on a stand-in for the trainer that
answers with the given log-probs instead of running a model.  All is float32; the batches are ragged, with groups of
unequal sizes, groups of equal rewards, ratios on both sides of every bound, and other numbers in the padding.
The exit status is 1 if a difference is above 1e-5.
"""

import collections
import dataclasses
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.table import markdown
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl.advantages import (
    generalized_advantages,
    group_centred,
    group_normalized,
    leave_one_out,
    per_token,
    terminal_rewards,
    whiten_batch,
    whiten_blocks,
)
from lilo_jax.rl.aggregations import sequence_mean, token_mean
from lilo_jax.rl.cispo import Cispo
from lilo_jax.rl.contract import AlgorithmSpec
from lilo_jax.rl.dapo import Dapo
from lilo_jax.rl.dr_grpo import DrGrpo
from lilo_jax.rl.grpo import Grpo
from lilo_jax.rl.gspo import Gspo
from lilo_jax.rl.losses import (
    clipped_surrogate,
    clipped_value_loss,
    dual_clipped_surrogate,
    kl_k1,
    kl_k2,
    kl_k3,
    truncated_importance,
)
from lilo_jax.rl.rloo import Rloo
from lilo_jax.rl.update import cut_minibatch
from lilo_jax.types import Array, FollowUps, Minibatch, Sequences, TokenScores, TrainBatch

LIMIT = 1e-5
SEEDS = range(4)
ROWS, SLOTS, GROUP = 16, 12, 4
MASKED = (1, 6, 7)
"""rows without a verdict: groups of 3, 2, 4 and 4 remain"""
DISCOUNT, TRACE, CLIP, HIGH, DUAL, CAP, BETA = 0.97, 0.9, 0.2, 0.28, 3.0, 2.0, 0.3
SEQUENCE_CLIP = {"clip_low": 0.1, "clip_high": 0.15}
UNBOUNDED = 1e6
"""verl's policy loss always has a dual clip: one so large that it never holds"""

Result = tuple[Any, Any]
"""(loss or values, gradient or None)"""


class Difference(NamedTuple):
    """How far one quantity of ours is from a library's.

    Attributes:
        quantity: what was compared.
        value: largest absolute difference of the loss, or of the values if it is no loss.
        gradient: largest absolute difference of the gradient, as a share of its largest entry; None without one.
    """

    quantity: str
    value: float
    gradient: float | None

    @property
    def agrees(self) -> bool:
        return self.value <= LIMIT and (self.gradient is None or self.gradient <= LIMIT)


class Drawn(NamedTuple):
    """The arrays of one comparison: float32 [B, C], or [B] for lengths, rewards and the mask of rows."""

    lengths: np.ndarray
    row_mask: np.ndarray
    reward: np.ndarray
    logprobs: np.ndarray
    old_logprobs: np.ndarray
    sampler_logprobs: np.ndarray
    reference_logprobs: np.ndarray
    token_rewards: np.ndarray
    values: np.ndarray
    old_values: np.ndarray
    returns: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return (np.arange(SLOTS) < self.lengths[:, None]) & self.row_mask[:, None]

    @property
    def group(self) -> np.ndarray:
        return np.arange(ROWS, dtype=np.int32) // GROUP


def draw(seed: int, *, masked: Sequence[int] = ()) -> Drawn:
    """Ragged rows in groups, of which the third has equal rewards; the padding holds numbers like any other."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, SLOTS)
    old = -rng.exponential(1.0, shape)
    reward = rng.normal(size=ROWS)
    reward[2 * GROUP : 3 * GROUP] = 1.0
    arrays = {
        "reward": reward,
        "logprobs": old + rng.normal(0, 0.7, shape),
        "old_logprobs": old,
        "sampler_logprobs": old + rng.normal(0, 0.7, shape),
        "reference_logprobs": old + rng.normal(0, 1.5, shape),
        "token_rewards": rng.normal(size=shape),
        "values": rng.normal(size=shape),
        "old_values": rng.normal(size=shape),
        "returns": rng.normal(size=shape),
    }
    return Drawn(
        lengths=rng.integers(1, SLOTS - 1, ROWS).astype(np.int32),
        row_mask=~np.isin(np.arange(ROWS), masked),
        **{name: x.astype(np.float32) for name, x in arrays.items()},
    )


# ---------------------------------------------------------------------------------------------------------------- ours
def train_batch(drawn: Drawn) -> TrainBatch:
    """The batch, before advantages."""
    zeros = np.zeros((ROWS, SLOTS), np.float32)
    return TrainBatch(
        sequences=Sequences(
            tokens=jnp.zeros((ROWS, 1 + SLOTS), jnp.int32),
            prompt_lengths=jnp.ones(ROWS, jnp.int32),
            completion_lengths=jnp.asarray(drawn.lengths),
        ),
        row_mask=jnp.asarray(drawn.row_mask),
        informative=jnp.asarray(drawn.row_mask),
        group=jnp.asarray(drawn.group),
        reward=jnp.asarray(drawn.reward),
        sampler_logprobs=jnp.asarray(drawn.sampler_logprobs),
        place=jnp.arange(ROWS // GROUP, dtype=jnp.int32),
        group_mask=jnp.ones(ROWS // GROUP, bool),
        reasoning_step=zeros.astype(np.int32),
        follow_ups=FollowUps.none((ROWS, SLOTS)),
        old_logprobs=jnp.asarray(drawn.old_logprobs),
        reference_logprobs=jnp.asarray(drawn.reference_logprobs),
        old_values=jnp.asarray(drawn.old_values),
        advantages=zeros,
        returns=zeros,
    )


def minibatch(drawn: Drawn, advantages: Array) -> Minibatch:
    """All rows as one minibatch."""
    batch = train_batch(drawn).replace(advantages=advantages)
    return cut_minibatch(batch, jnp.arange(ROWS), denominator="present")


def ours(spec: AlgorithmSpec, drawn: Drawn) -> Result:
    """Loss and gradient of an algorithm from rewards and log-probs."""
    algorithm = spec.build()
    batch = minibatch(drawn, algorithm.advantages(train_batch(drawn))[0])
    entropy = jnp.zeros((ROWS, SLOTS))
    return jax.value_and_grad(lambda x: algorithm.policy_loss(TokenScores(logprobs=x, entropy=entropy), batch)[0])(
        jnp.asarray(drawn.logprobs)
    )


def estimate(estimator: Callable[..., Array], drawn: Drawn, **settings: float) -> np.ndarray:
    """Advantages [B] of an estimator over groups."""
    return np.asarray(
        estimator(drawn.reward, drawn.group, jnp.asarray(drawn.row_mask), num_groups=ROWS // GROUP, **settings)
    )


def our_dual_clip(drawn: Drawn, advantages: Array) -> Result:
    """The dual-clipped surrogate's token mean, and its gradient."""
    batch = minibatch(drawn, advantages)

    def loss(logprobs: Array) -> Array:
        losses = dual_clipped_surrogate(
            logprobs, batch.old_logprobs, batch.advantages, clip_low=CLIP, clip_high=HIGH, dual_clip=DUAL
        )
        return token_mean(losses, batch)

    return jax.value_and_grad(loss)(jnp.asarray(drawn.logprobs))


def compare(quantity: str, mine: Result, theirs: Result, where: np.ndarray | None = None) -> Difference:
    """The largest differences, of values only `where` there is a token."""
    found, expected = (np.asarray(x[0], np.float64) for x in (mine, theirs))
    if where is not None:
        found, expected = found[where], expected[where]
    share = None
    if theirs[1] is not None:
        mine_slope, their_slope = (np.asarray(x[1], np.float64) for x in (mine, theirs))
        share = float(np.max(np.abs(mine_slope - their_slope)) / np.max(np.abs(their_slope)))
    return Difference(quantity, float(np.max(np.abs(found - expected))), share)


# ---------------------------------------------------------------------------------------------------------------- rlax
def rlax_differences(seed: int) -> Iterator[Difference]:
    """Beside DeepMind's RLax, whose functions take one sequence, or flat tokens of which they return the mean."""
    import rlax

    drawn = draw(seed, masked=MASKED)
    mask = drawn.mask
    # The last token's discount is 0: a sequence ends there, whatever the values behind it are.
    discounts = np.where(np.pad(mask[:, 1:], ((0, 0), (0, 1))), DISCOUNT, 0).astype(np.float32)
    values = np.pad(drawn.old_values, ((0, 0), (0, 1)))
    gae = jax.vmap(rlax.truncated_generalized_advantage_estimation, in_axes=(0, 0, None, 0))
    expected = gae(jnp.where(mask, drawn.token_rewards, 0), discounts, TRACE, values)
    found = generalized_advantages(drawn.token_rewards, drawn.old_values, mask, discount=DISCOUNT, trace=TRACE)[0]
    yield compare("generalized_advantages", (found, None), (expected, None), mask)

    def theirs(logprobs: Array) -> Array:
        ratio = jnp.exp(logprobs - drawn.old_logprobs)[mask]
        return rlax.clipped_surrogate_pg_loss(ratio, jnp.asarray(drawn.returns[mask]), CLIP)

    def mine(logprobs: Array) -> Array:
        losses = clipped_surrogate(logprobs, drawn.old_logprobs, batch.advantages, clip_low=CLIP, clip_high=CLIP)
        return token_mean(losses, batch)

    batch = minibatch(drawn, jnp.asarray(drawn.returns))  # any advantages, and one of its own for each token
    at = jnp.asarray(drawn.logprobs)
    yield compare("clipped_surrogate, token_mean", jax.value_and_grad(mine)(at), jax.value_and_grad(theirs)(at))


# ----------------------------------------------------------------------------------------------------------------- TRL
@dataclasses.dataclass
class Policy:
    """What TRL believes to be a model."""

    logprobs: Any
    training: bool = True
    is_gradient_checkpointing: bool = False


def trl_trainer(drawn: Drawn, *, width: int, pieces: int = 1, generated: int = 8, **settings: Any) -> SimpleNamespace:
    """What TRL's methods read of their trainer: one process; its models answer with log-probs of `drawn`.

    Args:
        drawn: the arrays; rows without a verdict have no reward, which TRL calls unscorable.
        width: length of the longest completion, to which TRL pads.
        pieces: micro-batches of the optimiser step.
        generated: how many results `_generate` of the trainer has.
        settings: attributes of the trainer that differ.
    """
    import torch

    def cut(x: np.ndarray) -> Any:
        return torch.tensor(x[:, :width])

    completions = [[2] * n for n in drawn.lengths.tolist()]
    reported = [row[:n].tolist() for row, n in zip(drawn.sampler_logprobs, drawn.lengths, strict=True)]
    prompts = [[1]] * ROWS
    answers: dict[int, tuple[Any, ...]] = {
        3: (prompts, completions, completions),
        8: (prompts, completions, None, completions, reported, {}, None, None),
    }
    arguments = SimpleNamespace(
        per_device_train_batch_size=ROWS, gradient_checkpointing_kwargs=None, gradient_accumulation_steps=pieces,
        steps_per_generation=pieces, use_bias_correction_kl=False, delta=settings.pop("delta", None),
    )  # fmt: skip
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), process_index=0, num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    attributes: dict[str, Any] = {
        "args": arguments, "accelerator": accelerator, "model": Policy(cut(drawn.old_logprobs)),
        "ref_model": Policy(cut(drawn.reference_logprobs)), "current_gradient_accumulation_steps": pieces,
        # Twice, so that TRL takes the old log-probs rather than the new ones as those before the update.
        "num_iterations": 2, "num_generations": GROUP, "reward_func_names": ["reward"], "reward_funcs": [None],
        "reward_weights": torch.ones(1), "reward_clip_range": None, "scale_rewards": "group",
        "multi_objective_aggregation": "sum_then_normalize", "normalize_advantages": False, "beta": 0.0,
        "loss_type": "grpo", "importance_sampling_level": "token", "epsilon_low": CLIP, "epsilon_high": CLIP,
        "max_completion_length": SLOTS, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None,
        "use_vllm": False, "vllm_importance_sampling_correction": True, "vllm_importance_sampling_clip_min": None,
        "vllm_importance_sampling_clip_max": CAP, "vllm_importance_sampling_mode": "token_truncate",
        "aux_loss_enabled": False, "_entropy_bonus_enabled": False, "mask_truncated_completions": False,
        "environment_factories": None, "environments": None, "tools": None, "log_multimodal": False, "_is_vlm": False,
        "pad_to_multiple_of": None, "_tokenizer": SimpleNamespace(pad_token_id=0), "_pending_extra_logs": {},
        "_pending_metrics": {}, "_metrics": collections.defaultdict(lambda: collections.defaultdict(list)),
        "_logs": collections.defaultdict(list, rewards=collections.defaultdict(list)),
        "_generate": lambda _: answers[generated],
        "_calculate_rewards": lambda *_: torch.tensor(np.where(drawn.row_mask, drawn.reward, np.nan))[:, None].float(),
        "_get_per_token_logps_and_entropies": lambda model, *_, **__: (
            model.logprobs, torch.zeros_like(model.logprobs), None,
        ),
    }  # fmt: skip
    return SimpleNamespace(**(attributes | settings))


def trl_advantages(trainer_class: Any, drawn: Drawn, **settings: Any) -> np.ndarray:
    """[B], of the trainer's scoring of its rollouts."""
    trainer = trl_trainer(drawn, width=int(drawn.lengths.max()), **settings)
    return trainer_class._generate_and_score_completions(trainer, [{"prompt": "?"}] * ROWS)["advantages"].numpy()


def trl_loss(drawn: Drawn, *, pieces: int = 1, **settings: Any) -> Result:
    """Loss and gradient of `GRPOTrainer` from rewards and log-probs, added up over micro-batches as its backward does.

    How its settings are ours: CISPO's `epsilon_high` is the bound itself, ours plus 1; `delta` is the dual clip;
    `max_completion_length` is our completion slots; GSPO is loss_type "grpo" with sequence-level ratios;
    "bnpo" is the token mean of each micro-batch, and "dapo" that of a generation's rollouts (`num_items_in_batch`),
    which are one optimiser step here; vLLM's correction is our `importance_cap`.
    """
    import torch
    from trl import GRPOTrainer

    width = int(drawn.lengths.max())
    trainer = trl_trainer(drawn, width=width, pieces=pieces, **settings)
    inputs = GRPOTrainer._generate_and_score_completions(trainer, [{"prompt": "?"}] * ROWS)
    logprobs = torch.tensor(drawn.logprobs, requires_grad=True)
    total = torch.zeros(())
    for rows in np.array_split(np.arange(ROWS), pieces):
        part = {name: x[rows] if x.dim() else x for name, x in inputs.items()}
        total = total + GRPOTrainer._compute_loss(trainer, Policy(logprobs[rows, :width]), part)
    total.backward()
    return total.item(), logprobs.grad


def trl_differences(seed: int) -> Iterator[Difference]:
    """Beside Hugging Face's TRL, whose advantages are divided by std + 1e-4 (ours: `std_epsilon`)."""
    from trl import GRPOTrainer, RLOOTrainer

    drawn, unscored = draw(seed), draw(seed, masked=MASKED)
    for estimator, trainer, epsilon, theirs in (
        (group_normalized, GRPOTrainer, {"epsilon": 1e-4}, {}),
        (group_centred, GRPOTrainer, {}, {"scale_rewards": "none"}),
        (leave_one_out, RLOOTrainer, {}, {"generated": 3}),
    ):
        expected = trl_advantages(trainer, unscored, **theirs)
        yield compare(estimator.__name__, (estimate(estimator, unscored, **epsilon), None), (expected, None))

    high: dict[str, Any] = {"epsilon_high": HIGH}
    low_high: dict[str, Any] = {"epsilon_low": SEQUENCE_CLIP["clip_low"], "epsilon_high": SEQUENCE_CLIP["clip_high"]}
    grpo = Grpo(kl_coefficient=BETA, kl_clamp=float("inf"), std_epsilon=1e-4)
    cases: tuple[tuple[str, AlgorithmSpec, dict[str, Any]], ...] = (
        ("grpo with k3 KL", grpo, {"beta": BETA}),
        ("grpo with k3 KL, two micro-batches", grpo, {"beta": BETA, "pieces": 2}),
        ("grpo with truncated_importance", Grpo(importance_cap=CAP, std_epsilon=1e-4), {"use_vllm": True}),
        ("dr_grpo", DrGrpo(), {"loss_type": "dr_grpo", "scale_rewards": "none"}),
        ("dapo", Dapo(std_epsilon=1e-4), {"loss_type": "dapo", **high}),
        ("dapo, two micro-batches", Dapo(std_epsilon=1e-4), {"loss_type": "dapo", "pieces": 2, **high}),
        ("dapo, as bnpo", Dapo(std_epsilon=1e-4), {"loss_type": "bnpo", **high}),
        ("gspo", Gspo(**SEQUENCE_CLIP, std_epsilon=1e-4), {"importance_sampling_level": "sequence", **low_high}),
        ("cispo", Cispo(std_epsilon=1e-4), {"loss_type": "cispo", "epsilon_high": 1 + HIGH}),
    )
    for name, spec, settings in cases:
        yield compare(name, ours(spec, drawn), trl_loss(drawn, **settings))
    advantages = per_token(estimate(group_normalized, drawn, epsilon=1e-4), drawn.mask)
    dual = trl_loss(drawn, loss_type="bnpo", delta=DUAL, **high)
    yield compare("dual_clipped_surrogate, token_mean", our_dual_clip(drawn, advantages), dual)


# ---------------------------------------------------------------------------------------------------------------- verl
class Verl:
    """verl's functions on the rows that have a verdict: it knows no others."""

    def __init__(self, drawn: Drawn) -> None:
        import torch
        from verl.trainer.ppo import core_algos

        self.torch, self.core = torch, core_algos
        self.drawn, self.rows = drawn, np.flatnonzero(drawn.row_mask)
        self.mask = self.tensor(drawn.mask).float()
        # The reward stands at one token of the row, and its sum is what is read.
        at_first = np.where(np.arange(SLOTS) == 0, drawn.reward[:, None], 0).astype(np.float32)
        self.scored = (self.tensor(at_first), self.mask, drawn.group[self.rows])

    def tensor(self, x: np.ndarray) -> Any:
        return self.torch.tensor(x[self.rows])

    def back(self, x: Any) -> np.ndarray:
        """With rows of zeros where there is no verdict."""
        whole = np.zeros((ROWS, SLOTS))
        whole[self.rows] = x.numpy()
        return whole

    def gradient(self, loss: Callable[[Any], Any], at: np.ndarray) -> Result:
        """Loss (or its sum, if of each token) with its gradient."""
        x = self.tensor(at).requires_grad_()
        value = loss(x)
        value.sum().backward()
        value = value.detach()
        return (self.back(value) if value.dim() else value.item()), self.back(x.grad)

    def loss(self, name: str, estimate: str, mode: str, *, beta: float = 0.0, **clip: float) -> Result:
        """Policy loss from rewards and log-probs: an estimator, a loss and an aggregation by verl's names.

        With `beta` the k3 divergence is added as verl's actor does it.  Means over sequences leave out those without
        tokens, as ours do with `denominator` "present".
        """
        from verl.workers.config import ActorConfig

        settings = {"clip_ratio_low": CLIP, "clip_ratio_high": CLIP, "clip_ratio_c": UNBOUNDED} | clip
        config = ActorConfig(strategy="fsdp", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=ROWS, **settings)
        estimator, _, scaled = estimate.partition(" ")
        arguments = {} if estimator == "rloo" else {"epsilon": 1e-8, "norm_adv_by_std_in_grpo": scaled != "centred"}
        advantages, _ = self.core.get_adv_estimator_fn(estimator)(*self.clones(), **arguments)
        policy_loss = self.core.get_policy_loss_fn(name)
        old, reference = self.tensor(self.drawn.old_logprobs), self.tensor(self.drawn.reference_logprobs)

        def total(logprobs: Any) -> Any:
            value, _ = policy_loss(old, logprobs, advantages, self.mask, mode, config)
            kl = self.core.kl_penalty(logprobs, reference, "low_var_kl")
            return value + beta * self.core.agg_loss(kl, self.mask, mode)

        return self.gradient(total, self.drawn.logprobs)

    def clones(self) -> tuple[Any, Any, Any]:
        """Rewards, mask, groups: verl's estimators write into what they are given."""
        rewards, mask, groups = self.scored
        return rewards.clone(), mask.clone(), groups


def verl_differences(seed: int) -> Iterator[Difference]:
    """Beside verl: estimators, losses from rewards and log-probs, and the critic's loss."""
    drawn = draw(seed, masked=MASKED)
    verl = Verl(drawn)
    yield from _verl_advantages(drawn, verl)
    yield from _verl_tokens(drawn, verl)
    high = {"clip_ratio_high": HIGH}
    sequence_clip = {f"clip_ratio_{name[5:]}": x for name, x in SEQUENCE_CLIP.items()}
    by_token, by_sequence, by_slots = "token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"
    grpo = Grpo(kl_coefficient=BETA)
    expected = verl.loss("vanilla", "grpo", by_sequence, beta=BETA)
    yield compare("grpo with k3 KL, clamped", ours(grpo, drawn), expected)
    yield compare("dr_grpo", ours(DrGrpo(), drawn), verl.loss("vanilla", "grpo centred", by_slots))
    yield compare("dapo", ours(Dapo(), drawn), verl.loss("vanilla", "grpo", by_token, **high))
    yield compare("rloo", ours(Rloo(), drawn), verl.loss("vanilla", "rloo", by_token, **high))
    yield compare("gspo", ours(Gspo(**SEQUENCE_CLIP), drawn), verl.loss("gspo", "grpo", by_sequence, **sequence_clip))
    yield compare("cispo", ours(Cispo(), drawn), verl.loss("cispo", "grpo", by_token, clip_ratio_low=1.0, **high))
    advantages = per_token(estimate(group_normalized, drawn, epsilon=1e-8), drawn.mask)
    expected = verl.loss("vanilla", "grpo", by_token, clip_ratio_c=DUAL, **high)
    yield compare("dual_clipped_surrogate, token_mean", our_dual_clip(drawn, advantages), expected)


def _verl_advantages(drawn: Drawn, verl: Verl) -> Iterator[Difference]:
    mask, core = drawn.mask, verl.core
    rewards, values = verl.tensor(drawn.token_rewards), verl.tensor(drawn.old_values)
    whitened, returns = core.compute_gae_advantage_return(rewards, values, verl.mask, DISCOUNT, TRACE)
    found, found_returns = generalized_advantages(
        drawn.token_rewards, drawn.old_values, mask, discount=DISCOUNT, trace=TRACE
    )
    yield compare("generalized_advantages, returns", (found_returns, None), (verl.back(returns), None), mask)
    found = whiten_blocks(found, jnp.asarray(mask), block=ROWS)
    yield compare("generalized_advantages, whiten_blocks", (found, None), (verl.back(whitened), None), mask)
    for estimator, settings, name, theirs in (
        (group_normalized, {"epsilon": 1e-8}, "grpo", {"epsilon": 1e-8}),
        (group_centred, {}, "grpo", {"norm_adv_by_std_in_grpo": False}),
        (leave_one_out, {}, "rloo", {}),
    ):
        expected = verl.back(core.get_adv_estimator_fn(name)(*verl.clones(), **theirs)[0])
        mine = per_token(estimate(estimator, drawn, **settings), mask)
        yield compare(estimator.__name__, (mine, None), (expected, None))
    config, last = SimpleNamespace(gamma=1.0), verl.tensor(np.asarray(terminal_rewards(drawn.reward, mask)))
    expected, _ = core.compute_reinforce_plus_plus_outcome_advantage(last, verl.mask, config)
    mine = whiten_batch(per_token(drawn.reward, jnp.asarray(mask)), jnp.asarray(mask))
    yield compare("reinforce_pp", (mine, None), (verl.back(expected), None), mask)


def _verl_tokens(drawn: Drawn, verl: Verl) -> Iterator[Difference]:
    """The critic's loss, divergences and importance weights."""
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    mask, core = drawn.mask, verl.core
    batch = minibatch(drawn, jnp.zeros((ROWS, SLOTS)))

    def value_loss(values: Array) -> Array:
        return token_mean(clipped_value_loss(values, drawn.old_values, drawn.returns, clip=CLIP), batch)

    old_values, returns = verl.tensor(drawn.old_values), verl.tensor(drawn.returns)
    expected = verl.gradient(
        lambda values: core.compute_value_loss(values, returns, old_values, verl.mask, CLIP)[0], drawn.values
    )
    yield compare("clipped_value_loss", jax.value_and_grad(value_loss)(jnp.asarray(drawn.values)), expected)
    reference = verl.tensor(drawn.reference_logprobs)
    for name, divergence in (("k1", kl_k1), ("k2", kl_k2), ("k3", lambda *x: kl_k3(*x, clamp=10.0))):

        def mine(logprobs: Array, divergence: Callable[..., Array] = divergence) -> Array:
            return sequence_mean(divergence(logprobs, drawn.reference_logprobs), batch)

        def theirs(logprobs: Any, name: str = name) -> Any:
            return core.agg_loss(core.kl_penalty(logprobs, reference, name), verl.mask, "seq-mean-token-mean")

        found = jax.value_and_grad(mine)(jnp.asarray(drawn.logprobs))
        yield compare(f"kl_{name}, sequence_mean", found, verl.gradient(theirs, drawn.logprobs))
    log_ratio = verl.tensor(drawn.old_logprobs) - verl.tensor(drawn.sampler_logprobs)
    weights = verl.back(compute_rollout_correction_weights(log_ratio, verl.mask, "token", CAP)[0])
    importance = truncated_importance(drawn.old_logprobs, drawn.sampler_logprobs, cap=CAP)
    yield compare("truncated_importance", (importance, None), (weights, None), mask)


# -------------------------------------------------------------------------------------------------------------- command
@dataclasses.dataclass(frozen=True)
class Library:
    """One library.

    Attributes:
        module: what must be importable.
        differences: (seed) -> what was compared.
        cure: how it is installed.
    """

    module: str
    differences: Callable[[int], Iterator[Difference]]
    cure: str


LIBRARIES = {
    "rlax": Library("rlax", rlax_differences, "pip install rlax==0.1.9"),
    "trl": Library("trl", trl_differences, "pip install trl==1.16.0 torch==2.13.0"),
    "verl": Library(
        "verl.trainer.ppo.core_algos",
        verl_differences,
        "pip install torch==2.13.0 transformers==5.23.0 ray==2.60.0 tensordict==0.8.3 codetiming==1.4.0 && "
        "pip install --no-deps omegaconf==2.4.0 verl==0.9.1",
    ),
}


def largest(library: Library, seeds: Sequence[int] = SEEDS) -> list[Difference]:
    """The largest differences of each quantity over several batches."""
    found = zip(*(library.differences(seed) for seed in seeds), strict=True)
    return [
        Difference(
            same[0].quantity,
            float(np.max([x.value for x in same])),
            None if same[0].gradient is None else float(np.max([x.gradient for x in same])),
        )
        for same in found
    ]


def main() -> int:
    """Prints the table; 1 if a difference is too large."""
    rows, missing, status = [], [], 0
    for name, library in LIBRARIES.items():
        try:
            importlib.import_module(library.module)
        except ModuleNotFoundError as error:
            missing.append(f"{name}: not installed (no module {error.name}); {library.cure}")
            continue
        version = importlib.metadata.version(name)
        for found in largest(library):
            status = status if found.agrees else 1
            rows.append(
                {
                    "quantity": found.quantity,
                    "library": f"{name} {version}",
                    "loss or value, absolute": f"{found.value:.1e}",
                    "gradient, relative": "" if found.gradient is None else f"{found.gradient:.1e}",
                    "": "" if found.agrees else "DIFFERS",
                }
            )
    for line in filter(None, [markdown(rows), *missing]):
        print(line)
    return status


if __name__ == "__main__":
    exit_with_message(lambda: sys.exit(main()))
