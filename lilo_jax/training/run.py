"""A run from its config: start or resume, train, and leave a directory that says how it went."""

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np

from lilo_jax import config as configuration
from lilo_jax.bounds import check
from lilo_jax.config import Config, Launch, of_run
from lilo_jax.device import capacity
from lilo_jax.device.compiling import watched
from lilo_jax.device.flops import token_flops
from lilo_jax.device.mesh import slow_axes
from lilo_jax.errors import RunError, Stopped, UsageError
from lilo_jax.grading.journal import Journal
from lilo_jax.keys import start_keys, stream_key
from lilo_jax.models.packing import beginning
from lilo_jax.pretrained.sources import FINE_TUNED, PretrainedModel, open_model, starting_model
from lilo_jax.processes import hosts
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.sinks import chosen_sinks
from lilo_jax.sinks.feed import Feed, feeding
from lilo_jax.storage.bucket_checkpoints import checkpoints_in
from lilo_jax.storage.budgets import spent
from lilo_jax.storage.checkpoints import (
    DAMAGED,
    Checkpoints,
    finished_steps,
    read_record,
    set_aside,
    weights_fingerprint,
)
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.compilation_cache import keep_compiled_programs
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.paths import AnyPath
from lilo_jax.storage.progress import Progress
from lilo_jax.storage.questions_file import fingerprint
from lilo_jax.storage.run_directory import BEFORE, RunDirectory
from lilo_jax.training import checks
from lilo_jax.training.assembly import Assembly, assemble
from lilo_jax.training.facts import question_facts
from lilo_jax.training.opening import open_run
from lilo_jax.training.plan import WORTH_SAYING, candidates, plan_bytes, shown, undivided
from lilo_jax.training.recorder import Recorder
from lilo_jax.training.saver import Saver, unfrozen
from lilo_jax.training.sft import fine_tune, start_config
from lilo_jax.training.trainer import evaluate_held_out, train
from lilo_jax.types import Facts, PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished (or stopped) run.

    Attributes:
        directory: its files.
        done: whether it reached its last step.
        state: the final state if this process trained it, else None (it was done before).

    Example: `runs/tiny` is the run of the example of `run`.

        >>> import lilo_jax
        >>> result = lilo_jax.load("runs/tiny")
        >>> result.done, result.config.num_steps, [r["step"] for r in result.directory.read("metrics")]
        (True, 2, [0, 1])
    """

    directory: RunDirectory
    done: bool
    state: TrainState | None

    @property
    def config(self) -> Config:
        """The config of the run."""
        return of_run(self.directory)

    def curve(self, split: str) -> dict[str, np.ndarray]:
        """Accuracy on a split against everything that can be spent; see `learning_curve`."""
        return learning_curve(self.directory, split)


def run(config: Config, launch: Launch | None = None, *, name: str = "train", bar: bool = True) -> Result:
    """The result of training as the config says; the run is written to `launch.output_dir`.

    If the directory holds an unfinished run of the same config and questions, it goes on there.

    Args:
        config: the whole experiment.
        launch: where and how.
        name: shown with progress.
        bar: whether progress may be a bar in a terminal.

    Raises:
        UsageError: a mistake in config or launch, before anything is trained.
        RunError: training cannot go on.

    Example: two steps of uniform sampling with RLOO on the generated task, with a model of a few thousand weights.

        >>> import lilo_jax
        >>> from lilo_jax.curriculum import Uniform
        >>> from lilo_jax.rl.rloo import Rloo
        >>> from lilo_jax.tasks.chain import Chain
        >>> task = Chain(pool=32, validation=8, test=8, longer=4, demonstrations=64)
        >>> config = lilo_jax.replace(
        ...     lilo_jax.Config(task=task, curriculum=Uniform(), algorithm=Rloo(), num_steps=2), sft__steps=2,
        ...     model__num_layers=1, model__embed_dim=16, model__mlp_dim=16, rollout__questions=2, rollout__samples=4,
        ...     evaluation__every=1,
        ... )
        >>> result = lilo_jax.run(config, lilo_jax.Launch(output_dir="runs/tiny"), bar=False)
        >>> result.done, len(result.curve("test")["accuracy"])
        (True, 3)
    """
    launch = Launch() if launch is None else launch
    keep_compiled_programs()
    check(launch)
    chosen_sinks(launch.log)
    with StopRequest(grace=launch.grace, max_seconds=launch.max_seconds) as stop:
        return _run(config, launch, stop, name=name, bar=bar)


def load(path: AnyPath | str) -> Result:
    """The run of a directory, finished or not, for reading; its `state` is None.

    Raises:
        UsageError: there is no run.

    >>> import lilo_jax
    >>> lilo_jax.load("runs/tiny").done
    True
    """
    directory = RunDirectory(path)
    of_run(directory)
    return Result(directory, done=directory.is_done(), state=None)


def _run(config: Config, launch: Launch, stop: StopRequest, *, name: str, bar: bool) -> Result:
    config = checks.resolve(config)
    task = checks.check(config)
    questions = checks.questions_of(config, task)
    asked = configuration.flat(configuration.to_dict(config))
    hosts.agree("at the start", lambda: asked | {"the questions": fingerprint(questions), "jax": jax.__version__})
    with (
        open_run(launch.output_dir, config, launch.resume, questions) as directory,
        feeding(chosen_sinks(launch.log), directory, config.num_steps) as feed,
    ):
        if directory.is_done():
            return Result(directory, done=True, state=None)
        if config.num_steps and config.sft.steps:
            fine_tuned = launch.of_part(directory.path / FINE_TUNED)
            _run(start_config(config), fine_tuned, stop, name=f"{name} sft", bar=bar)
        start = starting_model(config, directory.path)
        tokenizer = start.tokenizer() if start else None
        assembly = assemble(config, task, tokenizer=tokenizer, workers=launch.graders)
        own = None if hosts.is_first() else directory.path / f"host_{hosts.index()}.txt"
        progress = Progress(name, total=config.num_steps, every=max(config.num_steps // 4, 1), bar=bar, file=own)
        try:
            with watched(progress), assembly.graders:
                state = _train(assembly, directory, progress, feed, start, stop, launch, fingerprint(questions))
        except Stopped as stopped:
            directory.log(str(stopped))
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # of a full disk, say: the first error is the one to tell
                directory.mark("FAILED", str(error))
                directory.log(f"failed: {error}")
            if isinstance(error, OSError):
                where = error.filename or directory.path
                raise RunError(
                    f"{where} cannot be written ({error.strerror or error}): what has been saved is intact, and the "
                    f"same command goes on"
                ) from error
            raise
        finally:
            progress.close()
        step = int(state.step)
        if done := step == config.num_steps:
            directory.mark("DONE", f"{step} steps")
        directory.log(f"{'done' if done else 'stopped'} after {step} steps")
        hosts.wait()  # whoever reads next finds all of it
        return Result(directory, done=done, state=state)


def _train(
    assembly: Assembly,
    directory: RunDirectory,
    progress: Progress,
    feed: Feed,
    start: PretrainedModel | None,
    stop: StopRequest,
    launch: Launch,
    questions: str,
) -> TrainState:
    """Trains, from the newest checkpoint if there is one; what it returns is saved."""
    config, path = assembly.config, directory.checkpoints_path
    if launch.resume == "previous":
        for step in set_aside(path) if hosts.is_first() else ():
            progress.line(f"the checkpoint of step {step} is damaged and was moved to {DAMAGED}/")
        hosts.wait()
    recorder = Recorder(directory, progress, feed, generations=config.storage.generations)
    clock = PhaseClock(progress.doing)
    journal, graders = Journal(directory.path / "verdicts"), assembly.graders
    journal.turn_to(BEFORE)
    graders.keep(journal)
    _show_plan(assembly, progress)
    with clock.phase("workers"):
        graders.start(assembly.task.grade)
    with checkpoints_in(path, keep=config.storage.keep) as checkpoints:
        steps = finished_steps(path)
        record = read_record(path, steps[-1]) if steps else None
        if record and record["questions"] != questions:
            raise UsageError(f"the questions are not those of the checkpoint {path}/{steps[-1]}: give those back")
        directory.rewind(record["files"] if record else None)
        feed.catch_up(progress.line)
        if record:
            state, ledger, origin = _resumed(assembly, checkpoints, steps[-1], record, start)
            progress.line(f"resumed after step {steps[-1]}")
        else:
            state, ledger, origin = _begun(assembly, directory, progress, recorder, start, stop)
        saver = Saver(checkpoints, directory, journal, questions=questions, origin=origin)
        saver.save(int(state.step), state, ledger)
        checkpoints.wait()  # from here on, records without a checkpoint mean that the checkpoints are lost
        last_step = min(launch.stop_at or config.num_steps, config.num_steps)
        if int(state.step) > last_step:
            raise UsageError(f"the run is already at step {int(state.step)}, beyond --stop-at {last_step}")
        state = train(
            assembly, state, ledger, directory=directory, saver=saver, recorder=recorder, journal=journal, clock=clock,
            stop=stop, last_step=last_step,
        )  # fmt: skip
    if int(state.step) < last_step:
        where = f"after {int(state.step)} of {config.num_steps} steps, which are saved: the same command goes on"
        stop.check(where)
        progress.line(f"stopped at --max-seconds {where}")
    return state


def _show_plan(assembly: Assembly, progress: Progress) -> None:
    """Says what the steps will need, if that is worth saying."""
    config, programs, prompt = assembly.config, assembly.programs, assembly.pool.tokens.shape[1]
    devices = assembly.mesh.devices
    for line in (*undivided(config, assembly.mesh.shape), *slow_axes(devices.shape, jax.devices())):
        progress.line(line)
    common = beginning(assembly.pool.tokens, assembly.pool.lengths)
    if config.num_steps and sum(plan_bytes(config, prompt, common).values()) >= WORTH_SAYING:
        questions = candidates(programs.curriculum, programs.state.curriculum)
        speed = capacity.operations_per_second(config.model.compute_dtype)
        for line in shown(config, prompt, questions, memory=capacity.memory(), speed=speed, common=common):
            progress.line(line)


def _begun(
    assembly: Assembly,
    directory: RunDirectory,
    progress: Progress,
    recorder: Recorder,
    start: PretrainedModel | None,
    stop: StopRequest,
) -> tuple[TrainState, Ledger, str]:
    """The state before the first step, what it has cost, and the fingerprint of the frozen weights to be read again."""
    config, programs = assembly.config, assembly.programs
    ledger = Ledger(token_flops=token_flops(programs.state))
    directory.write_tokenizer(assembly.tokenizer.save)
    with progress.doing("reading the weights"):
        params = _initial_weights(assembly, start)
    if not config.num_steps:
        params = fine_tune(assembly, params, ledger, progress, stop)
    origin = weights_fingerprint(params) if start and _freezes(assembly) else ""
    facts = _starting_facts(assembly, params, ledger, directory, progress)
    state = programs.start(params, _initial_critic(assembly), start_keys(config.seed), facts)
    del params  # donated
    with progress.doing("evaluation"):
        recorder.write_evaluation(evaluate_held_out(assembly, state, 0, ledger))
    assembly.graders.take_counts()
    return state, ledger, origin


def _resumed(
    assembly: Assembly, checkpoints: Checkpoints, step: int, record: dict[str, Any], start: PretrainedModel | None
) -> tuple[TrainState, Ledger, str]:
    """The same of a checkpoint; weights that are not in it are read from where the run started."""
    shapes, origin = assembly.programs.state, record["origin"]
    state = checkpoints.restore(step, unfrozen(shapes) if origin else shapes)
    if origin:
        params = _initial_weights(assembly, start)
        if weights_fingerprint(params) != origin:
            raise RunError(
                "the model that the run started from has other weights now: put them back, or start anew in another "
                "--output-dir"
            )
        adapts = shapes.base is not None
        frozen = {"base": params} if adapts else {"reference": assembly.programs.reference(params)}
        state = assembly.programs.rested(state.replace(**frozen))
    return state, Ledger.from_dict(record["ledger"], token_flops(shapes)), origin


def _freezes(assembly: Assembly) -> bool:
    """Whether the state holds weights that never change."""
    return assembly.programs.state != unfrozen(assembly.programs.state)


def _starting_facts(
    assembly: Assembly, params: PyTree, ledger: Ledger, directory: RunDirectory, progress: Progress
) -> Facts:
    """What the curriculum wants to know of the questions, with a record of what that cost if it wants anything."""
    clock, wants = PhaseClock(progress.doing), assembly.programs.curriculum.wants
    with clock.phase("features"):
        facts = question_facts(assembly, params, ledger)
    if wants.grade or wants.features:
        directory.append("timings", {"step": BEFORE, **clock.take()})
        directory.append("ledger", {"step": BEFORE, **ledger.to_dict()})
        counts = assembly.graders.take_counts()
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

    >>> import lilo_jax
    >>> curve = learning_curve(lilo_jax.load("runs/tiny").directory, "test")
    >>> curve["steps"].tolist(), curve["accuracy"].shape
    ([0, 1, 2], (3,))
    """
    evaluations = [r for r in directory.read("eval") if r["split"] == split]
    if not evaluations:
        raise RunError(f"{directory.path} has no evaluation on {split!r}")
    steps = np.array([r["step"] for r in evaluations])
    curve = {budget: values[steps] for budget, values in spent(directory).items()}
    return curve | {"accuracy": np.array([r["accuracy"] for r in evaluations])}
