"""From a checked config to the parts of a run: task, tokenizer, encoded questions, mesh and programs."""

import dataclasses
import functools
from collections.abc import Mapping

from jax.sharding import Mesh

from lilo_jax.config import Config
from lilo_jax.device.mesh import make_mesh, put_replicated
from lilo_jax.device.programs import Programs, ProgramSettings, build_programs
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.held_out import Evaluator, HeldOut
from lilo_jax.evaluation.judge import Judge
from lilo_jax.evaluation.outcomes import Probe
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import ResponseGrader, stop_automaton
from lilo_jax.evaluation.sampler import Sampler
from lilo_jax.grading.workers import GradingWorkers, check_grade
from lilo_jax.models.lora import combine
from lilo_jax.questions import Task
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tasks.noise import plant
from lilo_jax.tokenizers import Tokenizer
from lilo_jax.tokenizers.encoding import EncodedQuestions, encode_pairs, encode_prompts
from lilo_jax.training.checks import held_out_sets
from lilo_jax.training.collection import Collector
from lilo_jax.training.lengths import chat_of, train_tokenizer
from lilo_jax.types import PyTree, Sequences, TrainState


@dataclasses.dataclass(frozen=True)
class Assembly:
    """The parts of a run.

    Attributes:
        config: of the run.
        task: with its questions.
        tokenizer: of the model.
        pool: the training questions.
        held_out: sets to evaluate on, by name.
        mesh: where the programs run.
        programs: compiled functions.
        sampler, judge: of training questions.
        evaluator: of held-out questions.
    """

    config: Config
    task: Task
    tokenizer: Tokenizer
    pool: EncodedQuestions
    held_out: Mapping[str, HeldOut]
    mesh: Mesh
    programs: Programs
    sampler: Sampler
    judge: Judge
    evaluator: Evaluator

    @property
    def graders(self) -> GradingWorkers:
        """Processes that grade, of training and of evaluation."""
        return self.judge.graders.workers

    @property
    def probe(self) -> Probe:
        """What rolls out training questions to be measured."""
        rollout = self.config.rollout
        protocol = Protocol(rollout.samples, rollout.temperature, rollout.top_p, rollout.max_new_tokens)
        return Probe(self.pool, self.sampler, self.judge, protocol, self.config.evaluation.rows)

    @property
    def collector(self) -> Collector:
        """What rolls out training questions to be trained on."""
        return Collector(self.programs, self.pool, self.sampler, self.judge, self.config.rollout)

    @functools.cached_property
    def pool_answers(self) -> Sequences:
        """Each training question with its one right token sequence."""
        return _answers(self.config, self.task, self.tokenizer, self.pool)

    def policy(self, state: TrainState) -> PyTree:
        """The weights of the policy, adapters beside their base."""
        if state.base is None:
            return state.policy.params
        return combine(state.base, state.policy.params, self.config.lora.scale)


def assemble(config: Config, task: Task, *, tokenizer: Tokenizer | None = None, workers: int = 0) -> Assembly:
    """Builds the parts of a run.

    Args:
        config: checked.
        task: as `check` returned it.
        tokenizer: of the starting model; None trains one.
        workers: processes that grade; see `GradingWorkers`.
    """
    if workers or hasattr(task.grade, "quick"):
        check_grade(task.grade)
    tokenizer = tokenizer or train_tokenizer(config, task)
    mesh = make_mesh(config.mesh)
    settings = program_settings(
        config,
        vocabulary=tokenizer.vocab_size,
        end_ids=tokenizer.end_ids,
        pool_size=len(task.splits["train"]),
    )
    programs = build_programs(settings, mesh)
    planted = plant(task.splits["train"], config.noise, config.seed)
    graders = GradingWorkers(count=workers)

    def sampler_of(how: RolloutConfig | Protocol) -> Sampler:
        run = functools.partial(programs.sample, rule=how.rule, max_new_tokens=how.max_new_tokens)
        table = put_replicated(mesh, stop_automaton(tokenizer, how.stop, settings.model.vocab_size))
        return Sampler(run, mesh, table, config.rollout.slots)

    reward = config.reward.build(max_new_tokens=config.rollout.max_new_tokens)
    readers = ResponseGrader(graders, tokenizer, config.rollout.stop)
    held_out_readers = ResponseGrader(graders, tokenizer, config.protocol.stop)
    return Assembly(
        config=config,
        task=task,
        tokenizer=tokenizer,
        pool=encode_prompts(tokenizer, planted, chat=chat_of(config, task)),
        held_out=_held_out(config, task, tokenizer),
        mesh=mesh,
        programs=programs,
        sampler=sampler_of(config.rollout),
        judge=Judge(readers, task.grade, config.noise, reward, config.seed),
        evaluator=Evaluator(
            sampler_of(config.protocol), programs.score, held_out_readers, config.protocol, config.evaluation.rows
        ),
    )


def program_settings(config: Config, *, vocabulary: int, end_ids: tuple[int, ...], pool_size: int) -> ProgramSettings:
    """What the programs depend on; refuses a vocabulary that is smaller than the tokenizer's.

    Args:
        config: checked.
        vocabulary: ids of the tokenizer.
        end_ids: of the tokenizer.
        pool_size: training questions.
    """
    model = config.model.decoder
    if not model.vocab_size:
        model = dataclasses.replace(model, vocab_size=vocabulary)
    if model.vocab_size < vocabulary:
        raise UsageError(f"--model.vocab-size {model.vocab_size} is below the tokenizer's {vocabulary}")
    return ProgramSettings(
        model=model,
        algorithm=config.algorithm,
        curriculum=config.curriculum,
        rollout=config.rollout,
        update=config.update,
        optimizer=config.optimizer,
        critic_optimizer=dataclasses.replace(
            config.optimizer, learning_rate=config.critic_learning_rate or config.optimizer.learning_rate
        ),
        optimizer_steps=config.num_steps * config.update.epochs * config.update.minibatches,
        sft_optimizer=config.sft.optimizer,
        sft_steps=config.sft.steps,
        pool_size=pool_size,
        end_ids=end_ids,
        known_ids=vocabulary,
        lora=config.lora,
        reference_dtype=config.model.reference_dtype,
        reference_place=config.model.reference_place,
    )


def _held_out(config: Config, task: Task, tokenizer: Tokenizer) -> dict[str, HeldOut]:
    """The sets to evaluate on, with their right answers where accuracy is exact."""
    found = {}
    for name, (questions, grade, unique) in held_out_sets(config, task).items():
        encoded = encode_prompts(tokenizer, questions, chat=chat_of(config, task))
        # A tokenizer with several ways to write a text has several right token sequences.
        exact = unique and tokenizer.unique_segmentation
        found[name] = HeldOut(encoded, grade, _answers(config, task, tokenizer, encoded) if exact else None)
    return found


def _answers(config: Config, task: Task, tokenizer: Tokenizer, encoded: EncodedQuestions) -> Sequences:
    pairs = [(question.prompt, question.answer) for question in encoded.questions]
    return encode_pairs(tokenizer, pairs, chat=chat_of(config, task))
