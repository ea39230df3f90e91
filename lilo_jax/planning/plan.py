"""From a config to a plan: its programs compiled for a slice, what they take of each device, and how long a step is."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lilo_jax import bounds
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.device.mesh import row_shards, slow_axes
from lilo_jax.device.programs import Programs, build_programs
from lilo_jax.errors import RunError, UsageError, unknown_name
from lilo_jax.planning.arguments import Sizes, calls
from lilo_jax.planning.compiling import Compiled, compiled, held
from lilo_jax.planning.roofline import LINKS, MEAN_LENGTH, MEMORY, PRODUCTS, phases
from lilo_jax.planning.topology import GIB, Slice, described
from lilo_jax.report.tables import markdown
from lilo_jax.training.assembly import program_settings
from lilo_jax.training.checks import resolve
from lilo_jax.training.plan import candidates, forward_operations, undivided


@dataclasses.dataclass(frozen=True)
class Request:
    """What to plan for.

    Attributes:
        topology: of the slice.
        programs: which to compile; empty: all.
        prompt: tokens of the longest prompt.
        pool: training questions.
        follow_ups: rollouts from inside completions that a step asks for; 0: 96 for each row, as on MATH in VinePPO.
    """

    topology: str
    programs: tuple[str, ...] = ()
    prompt: int = 512
    pool: int = 12_000
    follow_ups: int = 0


class _Plan(NamedTuple):
    """What was found.

    Attributes:
        config: that was planned, its model's shape filled in.
        asked: for what.
        place: the slice.
        state: bytes of each device that a run remembers.
        policy: bytes of the part of it that sampling is given.
        reference: bytes of the part of it that the update is not given.
        on_host: bytes that a run remembers of each device in its host's memory.
        programs: by name.
        seconds: of the phases of a step; see `lilo_jax.planning.roofline.phases`.
        remarks: sizes that an axis of the mesh does not divide, and what makes its messages slow, in sentences.
    """

    config: Config
    asked: Request
    place: Slice
    state: int
    policy: int
    reference: int
    on_host: int
    programs: dict[str, Compiled]
    seconds: dict[str, Any]
    remarks: list[str]

    def peak(self, name: str) -> int:
        """Most bytes of each device while a program runs, with what a run keeps there besides."""
        beside_sampling = self.state - self.policy
        beside = {"prepare": 0, "update": self.reference, "sample": beside_sampling, "follow_ups": beside_sampling}
        return self.programs[name].peak + beside.get(name, self.state)

    def too_large(self) -> list[str]:
        """The programs that do not fit."""
        return [
            name for name, found in self.programs.items() if not found.fits or self.peak(name) > self.place.chip.memory
        ]


def make_plan(config: Config, asked: Request, *, tell: Callable[[str], None] = lambda line: None) -> _Plan:
    """Compiles the programs of a config for a slice.

    Args:
        config: of the run; its data is not looked at.
        asked: see `Request`.
        tell: is told what is being compiled.
    """
    config = _with_shape(config)
    place = described(asked.topology, config.mesh)
    _check_rows(config, place)
    programs = _programs(config, asked, place)
    rows = programs.curriculum.train_rows
    sizes = Sizes(
        prompt=asked.prompt,
        candidates=candidates(programs.curriculum, programs.state.curriculum),
        follow_ups=asked.follow_ups or 96 * rows,
    )
    available = calls(config, programs, place.mesh, sizes)
    for name in asked.programs:
        if name not in available:
            raise unknown_name("program", name, available)
    found = {}
    for name in asked.programs or tuple(available):
        tell(f"compiling {name} for {asked.topology}")
        found[name] = compiled(name, available[name], place)
    return _Plan(
        config=config,
        asked=asked,
        place=place,
        state=held(programs.state),
        policy=held((programs.state.policy.params, programs.state.base)),
        reference=held(programs.state.reference),
        on_host=held(programs.state.reference, on_host=True),
        programs=found,
        seconds=phases(config, place, sizes, found),
        remarks=[
            *undivided(config, place.mesh.shape),
            *slow_axes(place.mesh.devices.shape, list(place.mesh.devices.flat)),
        ],
    )


def _with_shape(config: Config) -> Config:
    """Checked as far as it can be without data, with the shape of the model that it names."""
    bounds.check(config)
    if config.model.path:
        config = resolve(config)
    if not config.model.vocab_size:
        config = configuration.replace(config, model__vocab_size=config.tokenizer.vocab_size)
    return config


def _programs(config: Config, asked: Request, place: Slice) -> Programs:
    settings = program_settings(config, vocabulary=config.model.vocab_size, end_ids=(1,), pool_size=asked.pool)
    try:
        return build_programs(settings, place.mesh)
    except ValueError as error:  # of settings that do not fit together, or a pool that is too small for a rule
        raise UsageError(f"{error} (--pool is {asked.pool})") from None


def _check_rows(config: Config, place: Slice) -> None:
    """Refuses micro-batches that the row shards do not divide."""
    rows, parts = config.rollout.questions * config.rollout.samples, config.update.minibatches
    if rows % (parts * config.update.microbatches) or (rows // parts // config.update.microbatches) % row_shards(
        place.mesh
    ):
        raise UsageError(
            f"{rows} rows in {parts} minibatches of {config.update.microbatches} micro-batches can't be split over "
            f"{row_shards(place.mesh)} row shards: lower --mesh.data or --mesh.fsdp, or raise --mesh.sequence or "
            f"--mesh.tensor"
        )


def lines(plan: _Plan) -> Iterator[str]:
    """The plan as text."""
    chip, mesh = plan.place.chip, plan.place.mesh
    shape = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    yield f"{plan.place.name}: {mesh.devices.size} devices of {chip.memory / GIB:.1f} GiB, mesh {shape}"
    yield f"a run remembers {plan.state / GIB:.2f} GiB on each device, {plan.policy / GIB:.2f} of it the policy"
    if plan.on_host:
        yield f"in the memory of its host it keeps {plan.on_host / GIB:.2f} GiB for each device: the reference"
    yield from plan.remarks
    of_devices = ("arguments", "temporaries", "outputs", "in place", "peak with the state")
    head = ["program", *of_devices, "sent", "sent per turn"]
    rows = []
    for name, found in plan.programs.items():
        sizes = (found.arguments, found.temporaries, found.outputs, found.aliased)
        peak = f"{plan.peak(name) / GIB:.2f}" + ("" if name not in plan.too_large() else " DOES NOT FIT")
        once, *loops = found.traffic or (None,)
        turn = max((loop.total for loop in loops), default=0)
        cells = [f"{size / GIB:.2f}" if found.fits else "-" for size in sizes]
        sent = f"{once.total / GIB:.2f}" if once else "-"
        rows.append([name, *cells, peak, sent, f"{turn / 2**20:.1f} MiB" if turn else "0"])
    yield "GiB of each device:"
    yield from markdown(head, rows).splitlines()
    for name, found in plan.programs.items():
        if found.traffic and (moved := found.traffic[0].size):
            kinds = ", ".join(f"{found.traffic[0].calls[k]} {k} {size / GIB:.2f}" for k, size in moved.items())
            yield f"{name} sends, GiB: {kinds}"
    yield from _time(plan)


def _time(plan: _Plan) -> Iterator[str]:
    total = sum(phase.total for phase in plan.seconds.values())
    parts = ", ".join(f"{name} {phase.total:.1f}" for name, phase in plan.seconds.items())
    yield (
        f"a step takes at least {total:.1f} s ({parts}), at {PRODUCTS:.0%} of the chip's operations, {MEMORY:.0%} of "
        f"its memory's and {LINKS:.0%} of its links' bandwidth, completions ending after {MEAN_LENGTH:.0%} of "
        f"{plan.config.rollout.max_new_tokens} tokens"
    )
    rows = [
        [name, f"{seconds:.1f}", f"{tokens / 1e6:.0f}", f"{hours:.0f}", f"{kwh:.0f}" if kwh else "-"]
        for name, seconds, tokens, hours, kwh in experiments(plan)
    ]
    yield f"{plan.config.num_steps} steps:"
    yield from markdown(["curriculum", "seconds a step", "million tokens", "chip-hours", "kWh"], rows).splitlines()


def experiments(plan: _Plan) -> Iterator[tuple[str, float, float, float, float]]:
    """Of a whole run under uniform, LILO and frontier: name, seconds of a step, generated tokens, chip-hours, kWh.

    LILO samples four times the questions.  frontier samples as many as uniform, and now and then reads the whole pool.
    """
    config, place = plan.config, plan.place
    read = plan.asked.pool * forward_operations(config, 0, plan.asked.prompt) / Frontier().refresh_every
    reading = read / (place.mesh.devices.size * PRODUCTS * place.chip.operations)
    rows = config.rollout.questions * config.rollout.samples
    own = config.curriculum
    ratio = own.pool_ratio if isinstance(own, Lilo) else 1
    sampling = plan.seconds["sample"].total / ratio
    rest = sum(phase.total for name, phase in plan.seconds.items() if name != "sample")
    for name, more, besides in (("uniform", 1, 0.0), ("lilo", 4, 0.0), ("frontier", 1, reading)):
        seconds = rest + more * sampling + besides
        tokens = more * rows * MEAN_LENGTH * config.rollout.max_new_tokens * config.num_steps
        hours = seconds * config.num_steps * place.mesh.devices.size / 3600
        yield name, seconds, tokens, hours, hours * place.chip.watts / 1000


def as_record(plan: _Plan) -> dict[str, Any]:
    """The plan for other programs to read: bytes and seconds."""
    return {
        "topology": plan.place.name,
        "mesh": dict(plan.place.mesh.shape),
        "memory_per_device": plan.place.chip.memory,
        "state": plan.state,
        "policy": plan.policy,
        "reference": plan.reference,
        "on_host": plan.on_host,
        "remarks": plan.remarks,
        "programs": {
            name: {
                **found._asdict(),
                "traffic": [part._asdict() for part in found.traffic],
                "peak_with_state": plan.peak(name),
            }
            for name, found in plan.programs.items()
        },
        "seconds": {name: phase._asdict() | {"total": phase.total} for name, phase in plan.seconds.items()},
        "too_large": plan.too_large(),
    }


def refuse(plan: _Plan) -> None:
    """Raises `RunError`, naming the programs and their largest buffers, if something does not fit."""
    if not (names := plan.too_large()):
        return
    said = "; ".join(
        f"{name} needs {plan.peak(name) / GIB:.1f} GiB ({', '.join(plan.programs[name].buffers) or 'its temporaries'})"
        for name in names
    )
    raise RunError(
        f"{plan.place.name} has {plan.place.chip.memory / GIB:.1f} GiB a device, and {said}: --propose looks for "
        f"settings that fit"
    )


def propose(plan: _Plan, asked: Request, *, tell: Callable[[str], None]) -> tuple[str, _Plan]:
    """Options with which everything fits, and their plan, itself compiled.

    Tried are, one after another and each on top of those before it: what changes no number first.

    Raises:
        RunError: nothing fits.
    """
    options: list[str] = []
    while names := plan.too_large():
        try:
            option, config = next(_smaller(plan.config, names, row_shards(plan.place.mesh)))
        except StopIteration:
            raise RunError(f"{plan.place.name}: nothing that was tried fits; take a larger slice") from None
        options.append(option)
        tell(f"trying {' '.join(options)}")
        plan = make_plan(config, asked, tell=tell)  # what the option leaves as it is was compiled before
    return " ".join(options), plan


def _smaller(config: Config, names: Sequence[str], shards: int) -> Iterator[tuple[str, Config]]:
    """The next change that makes these programs smaller, with its option."""
    learning = {"prepare", "update"} & set(names)
    rows = config.rollout.questions * config.rollout.samples
    own = config.curriculum
    slots = config.rollout.slots or rows * (own.pool_ratio if isinstance(own, Lilo) else 1)
    if learning and config.model.remat == "none":
        yield "--model.remat layers", configuration.replace(config, model__remat="layers")
    minibatch, now = rows // config.update.minibatches, config.update.microbatches
    pieces = [n for n in range(now + 1, minibatch + 1) if minibatch % (n * shards) == 0]
    if learning and pieces:
        yield f"--update.microbatches {pieces[0]}", configuration.replace(config, update__microbatches=pieces[0])
    if learning and config.update.chunk > 128:
        chunk = config.update.chunk // 2
        yield f"--update.chunk {chunk}", configuration.replace(config, update__chunk=chunk)
    if not learning and slots > 32:
        yield f"--rollout.slots {slots // 2}", configuration.replace(config, rollout__slots=slots // 2)
    if not learning and config.model.cache_dtype != "int8":
        yield "--model.cache-dtype int8", configuration.replace(config, model__cache_dtype="int8")
    if config.model.reference_dtype == "float32":
        changed = configuration.replace(config, model__reference_dtype="bfloat16")
        yield "--model.reference-dtype bfloat16", changed
    if config.model.reference_place == "device" and config.algorithm.build().needs_reference and names != ["prepare"]:
        yield "--model.reference-place host", configuration.replace(config, model__reference_place="host")
    mesh = config.mesh
    if learning and mesh.fsdp % 2 == 0:
        changed_mesh = dataclasses.replace(mesh, fsdp=mesh.fsdp // 2, sequence=2 * mesh.sequence)
        yield (
            f"--mesh.fsdp {changed_mesh.fsdp} --mesh.sequence {changed_mesh.sequence}",
            configuration.replace(config, mesh=changed_mesh),
        )
    if mesh.fsdp % 2 == 0 and config.model.num_kv_heads % (2 * mesh.tensor) == 0:
        changed_mesh = dataclasses.replace(mesh, fsdp=mesh.fsdp // 2, tensor=2 * mesh.tensor)
        yield (
            f"--mesh.fsdp {mesh.fsdp // 2} --mesh.tensor {2 * mesh.tensor}",
            configuration.replace(config, mesh=changed_mesh),
        )


def say(line: str) -> None:
    """Tells a person on the error stream what is going on."""
    print(line, file=sys.stderr, flush=True)
