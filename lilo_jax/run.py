"""A run from its config: start or resume, train, and leave a directory that says how it went."""

import dataclasses

import numpy as np

from lilo_jax import assembly as assembling
from lilo_jax.assembly import Assembly
from lilo_jax.checking import check
from lilo_jax.config import Config, Launch
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.held_out import evaluate
from lilo_jax.facts import question_facts
from lilo_jax.flops import token_flops
from lilo_jax.keys import start_keys, stream_key
from lilo_jax.pretrained import FINE_TUNED, PretrainedModel, open_model, starting_model
from lilo_jax.sft import fine_tune
from lilo_jax.storage.budgets import spent
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.compilation_cache import keep_compiled_programs
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.progress import Progress
from lilo_jax.storage.recorder import Recorder
from lilo_jax.storage.run_directory import BEFORE, RunDirectory, open_run
from lilo_jax.trainer import train
from lilo_jax.types import Facts, PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished (or stopped) run.

    Attributes:
        directory: its files.
        done: whether it reached its last step.
        state: the final state if this process trained it, else None (it was done before).
    """

    directory: RunDirectory
    done: bool
    state: TrainState | None

    def curve(self, split: str) -> dict[str, np.ndarray]:
        """Accuracy on a split against everything that can be spent; see `learning_curve`."""
        return learning_curve(self.directory, split)


def run(config: Config, launch: Launch | None = None, *, name: str = "train", bar: bool = True) -> Result:
    """Trains as the config says and writes `launch.output_dir`; goes on where an earlier run of it stopped.

    Args:
        config: the whole experiment.
        launch: where and how.
        name: shown with progress.
        bar: whether progress may be a bar in a terminal.

    Raises:
        UsageError: a mistake in config or launch, before anything is trained.
        RunError: training cannot go on.
    """
    launch = Launch() if launch is None else launch
    keep_compiled_programs()
    check(launch)
    config = assembling.resolve(config)
    task = assembling.check(config)
    directory = open_run(launch.output_dir, config, launch.resume)
    if directory.is_done():
        return Result(directory, done=True, state=None)
    if config.num_steps and config.sft.steps:
        fine_tuned = Launch(output_dir=str(directory.path / FINE_TUNED), graders=launch.graders)
        run(assembling.start_config(config), fine_tuned, name=f"{name} sft", bar=bar)
    start = starting_model(config, directory.path)
    assembly = assembling.assemble(config, task, tokenizer=start.tokenizer() if start else None, graders=launch.graders)
    last_step = min(launch.stop_at or config.num_steps, config.num_steps)
    progress = Progress(name, total=config.num_steps, every=max(config.num_steps // 4, 1), bar=bar)
    try:
        with assembly.graders.pool:
            state = _train_from(assembly, directory, progress, start, last_step)
    except Exception as error:
        directory.mark("FAILED", str(error))
        directory.log(f"failed: {error}")
        raise
    finally:
        progress.close()
    done = last_step == config.num_steps
    if done:
        directory.mark("DONE", f"{config.num_steps} steps")
    directory.log(f"{'done' if done else 'stopped'} after {last_step} steps")
    return Result(directory, done=done, state=state)


def _train_from(
    assembly: Assembly, directory: RunDirectory, progress: Progress, start: PretrainedModel | None, last_step: int
) -> TrainState:
    config, programs = assembly.config, assembly.programs
    recorder, costs = Recorder(directory, progress, generations=config.storage.generations), token_flops(programs.state)
    ledger = Ledger(token_flops=costs)
    with Checkpoints(directory.checkpoints_path, keep=config.storage.keep) as checkpoints:
        saved = checkpoints.latest_step()
        directory.forget_after(-1 if saved is None else saved)
        if saved is None:
            assembly.tokenizer.save(directory.tokenizer_path)
            params = _initial_weights(assembly, start)
            if not config.num_steps:
                params = fine_tune(assembly, params, ledger, progress)
            facts = _starting_facts(assembly, params, ledger, directory)
            state = programs.start(params, _initial_critic(assembly), start_keys(config.seed), facts)
            del params  # donated
            recorder.write_evaluation(evaluate(assembly, assembly.policy(state), 0, ledger))
            assembly.graders.pool.take_counts()
            checkpoints.save(0, state.replace(base=None), ledger.to_dict())
        else:
            state, record = checkpoints.restore(saved, programs.state.replace(base=None))
            if config.lora.rank:
                state = state.replace(base=_initial_weights(assembly, start))
            ledger = Ledger.from_dict(record, costs)
            progress.line(f"resumed after step {saved}")
        if int(state.step) > last_step:
            raise UsageError(f"the run is already at step {int(state.step)}, beyond --stop-at {last_step}")
        return train(
            assembly,
            state,
            ledger,
            directory=directory,
            checkpoints=checkpoints,
            recorder=recorder,
            last_step=last_step,
        )


def _starting_facts(assembly: Assembly, params: PyTree, ledger: Ledger, directory: RunDirectory) -> Facts:
    """What the curriculum wants to know of the questions, with a record of what that cost if it wants anything."""
    clock, wants = PhaseClock(), assembly.programs.curriculum.wants
    with clock.phase("features"):
        facts = question_facts(assembly, params, ledger)
    if wants.grade or wants.features:
        directory.append("timings", {"step": BEFORE, **clock.take()})
        directory.append("ledger", {"step": BEFORE, **ledger.to_dict()})
        counts = assembly.graders.pool.take_counts()
        directory.append("grading", {"step": BEFORE, **dataclasses.asdict(counts)})
    return facts


def _initial_weights(assembly: Assembly, start: PretrainedModel | None) -> PyTree:
    """Weights before anything is trained in this run, on the mesh."""
    if start is None:
        return assembly.programs.init(stream_key(assembly.config.seed, "init"))
    return start.weights(assembly.programs.model, assembly.mesh)


def _initial_critic(assembly: Assembly) -> PyTree | None:
    """The weights of the critic that the config names, on the mesh; None: it starts as the policy does."""
    if not assembly.config.model.critic or not assembly.programs.algorithm.needs_values:
        return None
    return open_model(assembly.config.model.critic).critic_weights(assembly.programs.model, assembly.mesh)


def learning_curve(directory: RunDirectory, split: str) -> dict[str, np.ndarray]:
    """Accuracy on a held-out split against what it cost, at every evaluation.

    Returns:
        Arrays of equal length: what had been spent, for every budget of `lilo_jax.storage.budgets.spent`, among them
        `steps`, `generated_tokens` and `seconds`; and `accuracy`.
    """
    evaluations = [r for r in directory.read("eval") if r["split"] == split]
    if not evaluations:
        raise RunError(f"{directory.path} has no evaluation on {split!r}")
    steps = np.array([r["step"] for r in evaluations])
    curve = {budget: values[steps] for budget, values in spent(directory).items()}
    return curve | {"accuracy": np.array([r["accuracy"] for r in evaluations])}
