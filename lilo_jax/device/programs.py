"""The compiled programs of a run.  This room is the only place where functions are jitted and laid out on the mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.curriculum.contract import Belief, Curriculum, CurriculumSpec, Wants
from lilo_jax.curriculum.features import no_facts, projected
from lilo_jax.curriculum.statistics import expected_lengths, group_signals, group_statistics
from lilo_jax.device.compiling import announced
from lilo_jax.device.inference import Sample, Score, model_on, scorer
from lilo_jax.device.layout import placed_shapes, state_layout, trainable_layout, weights_layout
from lilo_jax.device.mesh import replicated
from lilo_jax.device.reference import ReferencePlace, moved, resting_layout, scoring, updating
from lilo_jax.device.sampling import sampler
from lilo_jax.keys import StartKeys, start_keys
from lilo_jax.models import Model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.lora import LoraConfig, adapted, init_adapters
from lilo_jax.models.packing import PackedRows, packed
from lilo_jax.models.scoring import completion_mask, live_tokens, mean_states, score
from lilo_jax.rl.contract import Algorithm, AlgorithmSpec
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.prepare import prepare
from lilo_jax.rl.update import UpdateConfig, apply_gradients, deal, update
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.types import (
    Admission,
    Array,
    CurriculumState,
    Facts,
    GroupStatistics,
    Mean,
    Metrics,
    Prompts,
    Proposal,
    PyTree,
    Sequences,
    Trainable,
    TrainBatch,
    TrainState,
)


@dataclasses.dataclass(frozen=True)
class ProgramSettings:
    """What the programs depend on; runs with equal settings share compiled programs.

    `seed` is not among them, nor is anything about data except its sizes.  Ids from `known_ids` on mean nothing to the
    tokenizer and are never sampled.
    """

    model: DecoderConfig
    algorithm: AlgorithmSpec
    curriculum: CurriculumSpec
    rollout: RolloutConfig
    update: UpdateConfig
    optimizer: OptimizerConfig
    critic_optimizer: OptimizerConfig
    optimizer_steps: int
    sft_optimizer: OptimizerConfig
    sft_steps: int
    pool_size: int
    end_ids: tuple[int, ...]
    known_ids: int
    lora: LoraConfig
    reference_dtype: str = "float32"
    reference_place: ReferencePlace = "device"


class SftStep(Protocol):
    """A step on sequences, as they are or packed by a plan."""

    def __call__(
        self, state: Trainable, sequences: Sequences, plan: PackedRows | None = None, *, completion_width: int
    ) -> tuple[Trainable, Metrics]: ...


class Statistics(Protocol):
    """Sums rows into their groups."""

    def __call__(
        self,
        *,
        place: Int[Array, "groups"],
        round: Int[Array, "groups"],
        group: Int[Array, "rows"],
        reward: Float[Array, "rows"],
        correct: Bool[Array, "rows"],
        graded: Bool[Array, "rows"],
        length: Int[Array, "rows"],
        row_mask: Bool[Array, "rows"],
    ) -> GroupStatistics: ...


class Prepare(Protocol):
    """What an update needs to know of a batch, filled in; its rows as they are or packed by plans."""

    def __call__(
        self, state: TrainState, batch: TrainBatch, plans: PackedRows | None = None
    ) -> tuple[TrainBatch, Metrics]: ...


class Update(Protocol):
    """An update of the state by a batch; its rows as they are or packed by plans."""

    def __call__(
        self, state: TrainState, batch: TrainBatch, key: Key[jax.Array, ""], plans: PackedRows | None = None
    ) -> tuple[TrainState, Metrics]: ...


class Programs(NamedTuple):
    """Jitted functions, with the curriculum and algorithm whose parts they are.

    Attributes:
        model: the decoder whose functions these run.
        init: (key) -> policy params, each weight created in its shards.
        start_sft: (params) -> Trainable.
        sft_step: one step of supervised fine-tuning; donates the first.
        features: (params, Prompts, plan=None) -> the policy's mean state over each prompt, after each layer that the
            curriculum wants, in as many columns as it wants.
        start: (params, critic params or None, StartKeys, Facts) -> TrainState; donates the first two.  Without critic
            params the critic's trunk is a copy of the policy's weights, as the reference is.
        reference: (params) -> the reference of a run that started with them, as `start` makes it.
        rested: (TrainState) -> the state with its reference where it rests; see `lilo_jax.device.reference`.
        state: what `start` returns, as shapes with shardings.
        propose: (CurriculumState, GroupStatistics, key) -> Proposal.
        estimate, suspicion: what is believed of questions, and which seem to be traps; see `Curriculum`.
        expected_lengths: (CurriculumState, places) -> tokens; see `lilo_jax.curriculum.statistics`.
        sample: see `lilo_jax.sampling.sample`.
        statistics: see `lilo_jax.curriculum.statistics.group_statistics`.
        admit: (CurriculumState, GroupStatistics, key, step) -> (Admission, CurriculumState with all observed); donates
            the first.
        follow_up_requests: (TrainBatch) -> rollouts wanted, or None; see `FollowUpRequests`.
        informative: (TrainBatch) -> rows that can have a gradient, or None; see `Algorithm`.
        prepare: fills in log-probs, values and advantages.
        deal: (key, informative rows) -> rows of each micro-batch; see `lilo_jax.rl.update.deal`.
        update: all optimiser steps on a batch, and the curriculum's feedback; donates the state.
            Plans of `prepare` and `update` are `lilo_jax.models.packing.pack_blocks` of `prepare_blocks` and of `deal`.
        score: see `lilo_jax.models.scoring.score`.
    """

    curriculum: Curriculum
    algorithm: Algorithm
    model: Model
    init: Callable[[Key[jax.Array, ""]], PyTree]
    start_sft: Callable[[PyTree], Trainable]
    sft_step: SftStep
    features: Callable[..., Float[Array, "layers prompts hidden"]]
    start: Callable[[PyTree, PyTree | None, StartKeys, Facts], TrainState]
    reference: Callable[[PyTree], PyTree]
    rested: Callable[[TrainState], TrainState]
    state: TrainState
    propose: Callable[[CurriculumState, GroupStatistics, Key[jax.Array, ""]], Proposal]
    estimate: Belief | None
    suspicion: Callable[[CurriculumState], Float[Array, "pool"]] | None
    expected_lengths: Callable[[CurriculumState, Int[Array, "questions"]], Float[Array, "questions"]]
    sample: Sample
    statistics: Statistics
    admit: Callable[
        [CurriculumState, GroupStatistics, Key[jax.Array, ""], Int[Array, ""]], tuple[Admission, CurriculumState]
    ]
    follow_up_requests: Callable[[TrainBatch], Int[Array, "rows completion"]] | None
    informative: Callable[[TrainBatch], Bool[Array, "rows"]] | None
    prepare: Prepare
    deal: Callable[[Key[jax.Array, ""], Bool[Array, "rows"]], Int[Array, "steps microbatches microbatch_rows"]]
    update: Update
    score: Score


@functools.lru_cache(maxsize=16)
def build_programs(settings: ProgramSettings, mesh: Mesh) -> Programs:
    """The programs for these settings on this mesh; nothing is compiled before its first call."""
    parts, chunk = _parts(settings, mesh), settings.update.chunk
    model, algorithm, curriculum = parts.model, parts.algorithm, parts.curriculum
    sft_optimizer = settings.sft_optimizer.build(settings.sft_steps)
    start = functools.partial(_start, parts)

    def start_sft(params: PyTree) -> Trainable:
        return Trainable(params=params, optimizer=sft_optimizer.init(params))

    params_shape = jax.eval_shape(model.init, jax.random.key(0))
    params_layout = weights_layout(mesh, model.axes, params_shape)
    facts_shape = jax.eval_shape(functools.partial(no_facts, settings.pool_size, curriculum.wants))
    state_shape = jax.eval_shape(start, params_shape, None, start_keys(0), facts_shape)
    whole_layout = state_layout(
        mesh, model, settings.lora, state_shape, optimizer=parts.optimizer, critic_optimizer=parts.critic_optimizer
    )
    resting = resting_layout(whole_layout.reference, settings.reference_place)
    rested = functools.partial(moved, resting)
    started = jax.jit(start, donate_argnums=(0, 1), out_shardings=whole_layout)
    prepare_batch, update_state = _learning(parts, whole_layout)
    sft_layout = trainable_layout(mesh, model.axes, sft_optimizer, jax.eval_shape(start_sft, params_shape))
    everywhere = replicated(mesh)
    return Programs(
        curriculum=curriculum,
        algorithm=algorithm,
        model=model,
        init=jax.jit(model.init, out_shardings=params_layout),
        start_sft=jax.jit(start_sft, out_shardings=sft_layout),
        sft_step=jax.jit(
            announced("fine_tuning", functools.partial(_sft_step, model, sft_optimizer, chunk=chunk)),
            donate_argnums=0,
            static_argnames="completion_width",
            out_shardings=(sft_layout, None),
        ),
        features=jax.jit(
            announced("features", functools.partial(_features, model, curriculum.wants, settings.model.num_layers)),
            out_shardings=everywhere,
        ),
        start=lambda *given: rested(started(*given)),
        reference=jax.jit(functools.partial(_reference, settings.reference_dtype), out_shardings=params_layout),
        rested=rested,
        state=placed_shapes(state_shape, whole_layout.replace(reference=resting)),
        propose=jax.jit(curriculum.propose, out_shardings=everywhere),
        estimate=curriculum.estimate and jax.jit(curriculum.estimate, out_shardings=everywhere),
        suspicion=curriculum.suspicion and jax.jit(curriculum.suspicion, out_shardings=everywhere),
        expected_lengths=jax.jit(expected_lengths, out_shardings=everywhere),
        sample=sampler(
            model, settings.model, mesh, settings.rollout, end_ids=settings.end_ids, known_ids=settings.known_ids
        ),
        statistics=jax.jit(group_statistics, out_shardings=everywhere),
        admit=jax.jit(functools.partial(_admit, curriculum), donate_argnums=0, out_shardings=everywhere),
        follow_up_requests=algorithm.follow_ups and jax.jit(algorithm.follow_ups.wanted, out_shardings=everywhere),
        informative=algorithm.informative and jax.jit(algorithm.informative, out_shardings=everywhere),
        prepare=prepare_batch,
        deal=jax.jit(functools.partial(deal, config=settings.update), out_shardings=everywhere),
        update=update_state,
        score=scorer(model, mesh, chunk=chunk),
    )


def _learning(parts: "_Parts", layout: TrainState) -> tuple[Prepare, Update]:
    """`prepare` and `update` of `Programs`; `layout` has the shardings of the state as a step is scored."""
    update_program = jax.jit(
        announced("update", functools.partial(_update, parts)),
        donate_argnums=0,
        out_shardings=(layout.replace(reference=None), None),
    )
    prepare_program = jax.jit(announced("scoring", functools.partial(_prepare, parts)))
    return scoring(prepare_program, layout.reference), updating(update_program)


class _Parts(NamedTuple):
    """What the functions of the learner share."""

    model: Model
    algorithm: Algorithm
    curriculum: Curriculum
    optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    update: UpdateConfig
    temperature: float
    reference_dtype: str
    lora: LoraConfig

    def model_of(self, state: TrainState) -> Model:
        """The model as a function of what is trained."""
        return self.model if state.base is None else adapted(self.model, state.base, self.lora.scale)


def _parts(settings: ProgramSettings, mesh: Mesh) -> _Parts:
    rollout = settings.rollout
    return _Parts(
        model=model_on(settings.model, mesh),
        algorithm=settings.algorithm.build(),
        curriculum=settings.curriculum.build(
            pool_size=settings.pool_size, questions=rollout.questions, samples=rollout.samples
        ),
        optimizer=settings.optimizer.build(settings.optimizer_steps),
        critic_optimizer=settings.critic_optimizer.build(settings.optimizer_steps),
        update=settings.update,
        temperature=rollout.temperature,
        reference_dtype=settings.reference_dtype,
        lora=settings.lora,
    )


def _start(parts: _Parts, params: PyTree, critic_params: PyTree | None, keys: StartKeys, facts: Facts) -> TrainState:
    """The state before the first step; reference and critic trunk are copies of the policy's weights, or share them."""
    adapts = parts.lora.rank > 0
    trained = init_adapters(parts.model, parts.lora, keys.policy_adapters) if adapts else params
    critic = None
    if parts.algorithm.needs_values:
        if critic_params is None:
            trunk = init_adapters(parts.model, parts.lora, keys.critic_adapters) if adapts else params
            critic_params = parts.model.init_critic(keys.critic_head) | {"trunk": trunk["trunk"]}
        critic = Trainable(params=critic_params, optimizer=parts.critic_optimizer.init(critic_params))
    return TrainState(
        step=jnp.int32(0),
        policy=Trainable(params=trained, optimizer=parts.optimizer.init(trained)),
        critic=critic,
        reference=_reference(parts.reference_dtype, params) if parts.algorithm.needs_reference and not adapts else None,
        base=params if adapts else None,
        curriculum=parts.curriculum.init(facts),
        memory=jax.tree.map(jnp.asarray, parts.algorithm.init()),
    )


def _reference(dtype: str, params: PyTree) -> PyTree:
    """The weights that the policy is kept near to."""
    return jax.tree.map(lambda x: x.astype(dtype), params)


def _features(
    model: Model, wants: Wants, depth: int, params: PyTree, prompts: Prompts, plan: PackedRows | None = None
) -> Float[Array, "layers prompts hidden"]:
    runs = model if plan is None else packed(model, plan)
    return projected(mean_states(runs, params, prompts, layers=wants.layers(depth)), wants.hidden)


def _admit(
    curriculum: Curriculum,
    state: CurriculumState,
    collected: GroupStatistics,
    key: Key[jax.Array, ""],
    step: Int[Array, ""],
) -> tuple[Admission, CurriculumState]:
    """Chooses groups, and remembers everything that was paid for."""
    return curriculum.admit(state, collected, key), curriculum.observe(state, collected, step)


def _update(
    parts: _Parts, state: TrainState, batch: TrainBatch, key: Key[jax.Array, ""], plans: PackedRows | None = None
) -> tuple[TrainState, Metrics]:
    """All optimiser steps on a batch, then the curriculum's feedback."""
    policy, critic, metrics = update(
        parts.model_of(state), parts.algorithm, parts.optimizer, state.policy, state.critic, batch, key, plans,
        critic_optimizer=parts.critic_optimizer, config=parts.update, temperature=parts.temperature,
    )  # fmt: skip
    value_error = (batch.old_values - batch.returns) ** 2 * parts.algorithm.needs_values
    signals = group_signals(batch, live_tokens(batch), value_error)
    remembered = parts.curriculum.feedback(state.curriculum, batch.place, batch.group_mask, signals, state.step)
    memory = parts.algorithm.remember(batch)
    return state.replace(
        step=state.step + 1, policy=policy, critic=critic, curriculum=remembered, memory=memory
    ), metrics


def _sft_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    state: Trainable,
    sequences: Sequences,
    plan: PackedRows | None = None,
    *,
    completion_width: int,
    chunk: int,
) -> tuple[Trainable, Metrics]:
    """One step of maximum likelihood: the mean over response tokens of each row, then the mean over rows."""
    runs = model if plan is None else packed(model, plan)

    def loss(params: PyTree) -> tuple[Float[Array, ""], Metrics]:
        scores = score(runs, params, sequences, completion_width=completion_width, temperature=1.0, chunk=chunk)
        weights = completion_mask(sequences, completion_width) / jnp.maximum(sequences.completion_lengths, 1)[:, None]
        mean = Mean.of(-scores.logprobs, weights)
        return mean.total / mean.weight, {"sft/loss": mean}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
    return apply_gradients(optimizer, state, gradients), metrics


def _prepare(
    parts: _Parts, state: TrainState, batch: TrainBatch, plans: PackedRows | None = None
) -> tuple[TrainBatch, Metrics]:
    """The batch with log-probs, values and advantages."""
    reference = state.reference if state.base is None else state.base
    return prepare(
        parts.model_of(state), parts.algorithm, state.policy.params,
        None if state.critic is None else state.critic.params,
        (parts.model, reference) if parts.algorithm.needs_reference else None,
        batch.replace(memory=state.memory), plans,
        config=parts.update, temperature=parts.temperature,
    )  # fmt: skip
