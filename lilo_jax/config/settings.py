"""What a run is told: frozen dataclasses.

A run is a pure function of its `Config`.  Where it writes and whether it resumes is in `Launch`, which changes no
number.  Config objects stop at the wiring: pure functions take arrays and numbers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from lilo_jax.bounds import Count, NotNegative, Positive, Whole
from lilo_jax.curriculum import CURRICULA
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.device.mesh import MeshConfig
from lilo_jax.device.reference import ReferencePlace
from lilo_jax.evaluation.calibration import AuditConfig
from lilo_jax.evaluation.protocols import EvaluationConfig, Protocol, protocol
from lilo_jax.grading.rewards import RewardConfig
from lilo_jax.models.architecture import fields_of
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.lora import LoraConfig
from lilo_jax.rl import ALGORITHMS
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tasks import TASKS
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.noise import NoiseConfig
from lilo_jax.tokenizers.sentence_piece import TokenizerConfig

TABLES: dict[str, Mapping[str, type]] = {"algorithm": ALGORITHMS, "curriculum": CURRICULA, "task": TASKS}
"""The fields of `Config` that hold the settings of something chosen by name."""


@dataclasses.dataclass(frozen=True)
class ModelConfig(DecoderConfig):
    """The decoder, and the model that training starts from."""

    path: str = ""
    """Hugging Face directory, hub id or run directory whose weights, shape and tokenizer are the start; empty: random
    weights of the shape given here.  What a command line leaves open follows it (docs/models.md)"""
    revision: str = ""
    """branch, tag or commit of a hub id"""
    critic: str = ""
    """exported critic, or run directory, that the critic starts from; empty: the policy's weights with a new head"""
    reference_dtype: Literal["float32", "bfloat16"] = "float32"
    """of the frozen weights that a KL term keeps the policy near to; bfloat16 takes half the memory"""
    reference_place: ReferencePlace = "device"
    """where those lie while nothing is scored by them: on the device, or in its host's memory, from which they are
    fetched once a step"""

    @property
    def decoder(self) -> DecoderConfig:
        """Without the start."""
        return DecoderConfig(**fields_of(DecoderConfig, self))


@dataclasses.dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning, which makes the starting point of RL."""

    steps: Whole = 800
    """0: reinforcement learning starts from the model as it is"""
    batch: Count = 64
    """demonstrations per step"""
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=4e-3,
        schedule="cosine",
        warmup_steps=30,
        final_fraction=0.02,
        beta2=0.98,
        weight_decay=0.01,
        decayed="all",
    )
    pack: bool = False
    """short demonstrations share a row where that saves a quarter of the tokens; the loss stays the same"""


@dataclasses.dataclass(frozen=True)
class StorageConfig:
    """What is kept on disk."""

    save_every: Count = 50
    """steps between checkpoints; the last step is always saved"""
    save_every_seconds: NotNegative = 0.0
    """seconds after which a step is saved besides, where steps are long; 0: none is"""
    keep: Count = 2
    """checkpoints kept: should the newest be damaged, the one before it is there"""
    rollouts_every: Whole = 20
    """steps between records of full rollouts; 0 records none"""
    generations: Literal["last", "all", "none"] = "last"
    """which evaluations keep their responses, where accuracy is sampled"""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run: all settings, which together with the questions fix every number of it.

    >>> config = Config(seed=1, num_steps=150)
    >>> config.rollout.samples
    8
    """

    seed: Whole = 0
    """of everything random"""
    num_steps: Whole = 200
    """steps of reinforcement learning; 0: supervised fine-tuning alone"""
    task: Any = Chain()
    """the questions; --task.path FILE alone means questions of your own"""
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    sft: SftConfig = SftConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    noise: NoiseConfig = NoiseConfig()
    curriculum: Any = Lilo()
    """which of them are trained on: a name, or package.module:ClassName of your own"""
    algorithm: Any = Ppo()
    """how they are trained on: a name, or package.module:ClassName of your own"""
    update: UpdateConfig = UpdateConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    critic_learning_rate: NotNegative = 0.0
    """peak of the critic's own optimiser, which else is set up as the policy's; 0: the policy's"""
    mesh: MeshConfig = MeshConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    audit: AuditConfig = AuditConfig()
    storage: StorageConfig = StorageConfig()

    @property
    def protocol(self) -> Protocol:
        """How held-out questions are evaluated: as a named protocol says, where nothing else was given."""
        evaluation, stop = self.evaluation, self.rollout.stop
        given = {name: getattr(evaluation, name) for name in ("samples", "temperature", "top_p", "max_new_tokens")}
        if not evaluation.protocol:
            given["max_new_tokens"] = evaluation.max_new_tokens or self.rollout.max_new_tokens
            return Protocol(**given, stop=stop)
        named, default = protocol(evaluation.protocol), EvaluationConfig()
        changed = {name: value for name, value in given.items() if value != getattr(default, name)}
        return dataclasses.replace(named, **changed, stop=tuple(dict.fromkeys([*stop, *named.stop])))


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where a run writes and how it starts; none of it changes a number.

    >>> Launch(output_dir="runs/mine", max_seconds=3600).resume
    'auto'
    """

    output_dir: str = "runs/latest"
    """directory of the run; the same command goes on there"""
    resume: Literal["auto", "must", "never", "previous"] = "auto"
    """auto: go on where the same config stopped, or begin; must: only go on; never: only begin; previous: like auto,
    from the newest checkpoint that is not damaged; those that are move aside"""
    stop_at: Whole = 0
    """save and stop before this step; 0 runs to the end"""
    max_seconds: NotNegative = 0.0
    """save and stop at the first step that begins after so many seconds; 0 sets no limit"""
    grace: Positive = 25.0
    """seconds from SIGTERM, SIGHUP or Ctrl-C to the end of the process at the latest; Ctrl-C twice ends at once"""
    graders: Whole = 0
    """processes for what cannot be graded at once; 0: one per core, started when first needed"""
    log: str = ""
    """sinks that the records also go to, with commas between: tensorboard, wandb, mlflow, trackio (docs/runs.md)"""
    print_config: bool = False
    """print the resolved config as JSON and exit"""
    debug: bool = False
    """show the traceback of an error"""

    def of_part(self, path: AnyPath) -> "Launch":
        """How a run that is a part of this one starts: wherever it is, it goes on to its end."""
        resume: Literal["auto", "previous"] = "previous" if self.resume == "previous" else "auto"
        return dataclasses.replace(self, output_dir=str(path), resume=resume, stop_at=0)


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line of a single run."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch()
